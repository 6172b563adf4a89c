"""The file of the authorized, when it changes."""

import os
from pathlib import Path

import pytest

from zmqbroker.broker.authorized_file import LARGEST, AuthorizedFile

KEYS = ["rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "1" * 40]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "authorized"
    path.write_text(f"client {KEYS[0]} alice\n")
    return path


@pytest.fixture
def file(path: Path) -> AuthorizedFile:
    """Return a file that has been looked at since it was read first."""
    file = AuthorizedFile(path)
    assert not file.has_changed()
    return file


def test_a_change_counts_at_the_look_after_the_one_that_has_found_it(file: AuthorizedFile, path: Path):
    path.write_text(f"client {KEYS[1]} bob\n")
    assert [file.has_changed() for _ in range(4)] == [False, True, False, False]
    assert list(file.keys) == [KEYS[1]]


def test_what_is_written_piece_by_piece_is_not_read_half_written(file: AuthorizedFile, path: Path):
    path.write_text("")
    assert not file.has_changed()
    path.write_text(f"client {KEYS[0]} alice\nclient {KEYS[1]} bob\n")
    assert [file.has_changed() for _ in range(2)] == [False, True]
    assert list(file.keys) == KEYS


def test_what_is_being_written_at_the_first_look_is_not_read_half_written(path: Path):
    file = AuthorizedFile(path)
    path.write_text("")
    assert not file.has_changed()
    path.write_text(f"client {KEYS[0]} alice\nclient {KEYS[1]} bob\n")
    assert file.has_changed()
    assert list(file.keys) == KEYS


def test_a_file_that_changes_all_the_time_is_read_all_the_same(file: AuthorizedFile, path: Path):
    told = []
    for number in range(6):
        path.write_text(f"client {KEYS[0]} alice{number}\n")
        os.utime(path, (number, number))
        told.append(file.has_changed())
    assert told == [False, False, True, False, True, False]


def test_what_is_changed_between_the_first_reading_and_the_first_look_counts(path: Path):
    file = AuthorizedFile(path)
    state = os.stat(path)
    path.write_text(f"client {KEYS[0]} carol\n")  # of the same size
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # and time, as within one tick of the clock
    assert file.has_changed()
    assert file.keys[KEYS[0]].name == "carol"


def test_a_file_that_is_replaced_by_another_one_counts(file: AuthorizedFile, path: Path):
    other = path.with_name("other")
    other.write_text(f"client {KEYS[0]} carol\n")
    state = os.stat(path)
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.rename(path)
    assert [file.has_changed() for _ in range(2)] == [False, True]


@pytest.mark.parametrize("content", [b"nonsense\n", b"\xff\n", None])
def test_what_makes_no_sense_is_logged_once_and_changes_nothing(file: AuthorizedFile, path: Path, content, caplog):
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert [file.has_changed() for _ in range(5)] == [False] * 5
    assert list(file.keys) == [KEYS[0]]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "who was authorized before still is" in caplog.text


def test_comments_alone_are_no_change(file: AuthorizedFile, path: Path):
    path.write_text(f"# a comment\nclient {KEYS[0]} alice\n")
    assert not any(file.has_changed() for _ in range(3))


def test_a_file_that_takes_too_long_to_read_changes_nothing(file: AuthorizedFile, path: Path, caplog):
    path.write_text("#" * LARGEST + "\n")
    assert not any(file.has_changed() for _ in range(3))
    assert list(file.keys) == [KEYS[0]]
    assert "authorized is too large: it may have 4 MiB: who was authorized before still is" in caplog.text
