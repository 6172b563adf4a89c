"""Lines of progress among the complaints of a command."""

import pytest

from zmqbroker.worker.complaints import Complaints

Progress = list[tuple[int, int | None, str]]


def taken_in(*pieces: bytes) -> tuple[bytes, Progress]:
    """Return what is left as complaints, and the progress that was told."""
    progress: Progress = []
    complaints = Complaints(lambda *told: progress.append(told))
    for piece in pieces:
        complaints.add(piece)
    complaints.close()
    return bytes(complaints.text), progress


def test_lines_of_progress_are_told_and_are_no_complaints():
    text = b"one\nZMQBROKER_PROGRESS 3/10 shrinking things\ntwo\nZMQBROKER_PROGRESS 10/10\nthree"
    assert taken_in(text) == (b"one\ntwo\nthree", [(3, 10, "shrinking things"), (10, 10, "")])


def test_it_does_not_matter_how_they_come():
    text = b"one\nZMQBROKER_PROGRESS 3/10 a\n\nZMQBROKER_PROGRESS 4 b c \r\ntwo\nZMQBROKER_PROGRESS 5/10"
    whole = taken_in(text)
    assert whole == (b"one\n\ntwo\n", [(3, 10, "a"), (4, None, "b c"), (5, 10, "")])
    assert taken_in(*(text[at : at + 1] for at in range(len(text)))) == whole


def test_progress_is_told_when_its_line_is_whole():
    progress: Progress = []
    complaints = Complaints(lambda *told: progress.append(told))
    complaints.add(b"ZMQBROKER_PROGRESS 1/2 ha")
    assert not progress
    complaints.add(b"lf\n")
    assert progress == [(1, 2, "half")]


@pytest.mark.parametrize(
    "line",
    [
        b"ZMQBROKER_PROGRESS",
        b"ZMQBROKER_PROGRESS soon",
        b"ZMQBROKER_PROGRESS 1/",
        b"ZMQBROKER_PROGRESS -1/2",
        b"ZMQBROKER_PROGRESS 1/2x",
        b"ZMQBROKER_PROGRESS " + b"9" * 400,
        b" ZMQBROKER_PROGRESS 1/2",
    ],
)
def test_what_only_looks_like_progress_is_a_complaint(line: bytes):
    assert taken_in(line + b"\n") == (line + b"\n", [])


def test_a_text_of_any_length_and_any_bytes_is_cut_to_what_can_be_told():
    _, progress = taken_in(b"ZMQBROKER_PROGRESS 1/2 \xff" + "\N{GRINNING FACE}".encode() * 5000 + b"\n")
    assert len(progress[0][2]) == 300
