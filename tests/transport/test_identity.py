"""Identities in files: how they are made and read, and what is refused."""

import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
import zmq
from identity_support import make
from zmq.auth import load_certificate

from zmqbroker.transport.destination import destination
from zmqbroker.transport.identity import (
    BROKER,
    OWN,
    PUBLIC,
    SECRET,
    Credentials,
    check_name,
    check_privacy,
    create,
    credentials,
    name_of,
    read_public,
    read_secret,
)
from zmqbroker.transport.keys import is_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_identity_is_a_public_file_and_a_secret_one_that_nobody_else_may_read(tmp_path: Path):
    before = os.umask(0o022)
    try:
        pair = create(tmp_path / "laptop")
    finally:
        os.umask(before)
    public, secret = tmp_path / "laptop.public", tmp_path / "laptop.secret"
    assert sorted(tmp_path.iterdir()) == [public, secret]
    assert (mode(public), mode(secret)) == (0o644, 0o600)
    assert load_certificate(public) == (pair.public, None)
    assert load_certificate(secret) == tuple(pair)
    assert zmq.curve_public(pair.secret) == pair.public
    assert read_secret(secret) == pair
    assert read_public(public) == read_public(secret) == pair.public


def test_the_secret_file_is_never_readable_by_others_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        create(tmp_path / "laptop")
    finally:
        os.umask(before)
    assert mode(tmp_path / "laptop.secret") == 0o600


@pytest.mark.parametrize("end", ["public", "secret"])
def test_what_is_there_is_not_overwritten_and_nothing_is_left_behind(tmp_path: Path, end: str):
    there = tmp_path / f"laptop.{end}"
    there.write_text("mine")
    with pytest.raises(ValueError, match=rf"^cannot write {there}: file exists$"):
        create(tmp_path / "laptop")
    assert there.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [there]


def test_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "laptop.secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="file exists"):
        create(tmp_path / "laptop")
    assert [path.name for path in tmp_path.iterdir()] == ["laptop.secret"]


def test_where_there_is_no_directory_nothing_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^cannot write .*/none/laptop\.secret: no such file or directory$"):
        create(tmp_path / "none" / "laptop")


@pytest.mark.parametrize("end", [PUBLIC, SECRET])
def test_a_name_that_ends_as_its_files_do_is_refused(tmp_path: Path, end: str):
    with pytest.raises(ValueError, match=rf"^leave the end of .*/laptop{end} out: "):
        create(tmp_path / f"laptop{end}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "two words", "a\tb", "a\nb", "a\u2028b"])
def test_what_could_not_stand_in_a_line_is_no_name(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="is no name of an identity"):
        check_name(name)
    with pytest.raises(ValueError, match="is no name of an identity"):
        create(f"{tmp_path}/{name}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.public", "a"), ("/x/a.b.secret", "a.b"), ("a.key", "a.key"), (Path("/x/y/a.secret"), "a"), ("a", "a")],
)
def test_an_identity_is_called_as_its_file(file: str | Path, name: str):
    assert name_of(file) == name


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o622])
def test_a_secret_file_that_others_may_read_is_refused(tmp_path: Path, bits: int):
    _, secret, _ = make(tmp_path / "laptop")
    secret.chmod(bits)
    for read in (read_secret, read_public):
        with pytest.raises(ValueError, match=rf"^{secret} may be read by others \(mode 0{bits:o}\): chmod 600 it$"):
            read(secret)
    secret.chmod(0o400)
    assert read_secret(secret)


ROOT, USER = 0, 4161


@pytest.mark.parametrize(
    ("owner", "user", "bits", "is_private"),
    [
        (ROOT, USER, 0o440, True),  # what Kubernetes mounts for who is in the group
        (ROOT, USER, 0o640, True),
        (ROOT, USER, 0o460, False),
        (ROOT, USER, 0o444, False),
        (ROOT, ROOT, 0o440, False),
        (USER, USER, 0o440, False),
        (USER, USER, 0o400, True),
    ],
)
def test_a_secret_of_root_may_be_read_by_the_group_that_it_is_handed_to(monkeypatch, owner, user, bits, is_private):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    status = os.stat_result((stat.S_IFREG | bits, 0, 0, 1, owner, USER, 0, 0, 0, 0))
    with nullcontext() if is_private else pytest.raises(ValueError, match="may be read by others"):
        check_privacy("laptop.secret", status)


def test_a_public_file_has_no_secret(tmp_path: Path):
    public, _, _ = make(tmp_path / "laptop")
    with pytest.raises(ValueError, match=r"has no secret key: it takes the file NAME\.secret here"):
        read_secret(public)


def test_keys_that_are_no_pair_are_refused(tmp_path: Path):
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    one.secret.write_text(one.secret.read_text().replace(one.key, other.key))
    with pytest.raises(ValueError, match=r"^the keys in .*one\.secret are no pair$"):
        read_secret(one.secret)


@pytest.mark.parametrize("key", ["", "short", "x" * 39, "x" * 41, "#" * 40, "é" * 20, '"' * 40])
def test_a_damaged_key_is_named(tmp_path: Path, key: str):
    path = tmp_path / "laptop.public"
    path.write_text(f'curve\n    public-key = "{key}"\n')
    with pytest.raises(ValueError, match="is damaged: a key has 40 characters of Z85"):
        read_public(path)


def test_what_zeromq_makes_is_a_key_and_it_may_hold_any_sign_of_z85():
    assert all(is_key(key) for _ in range(20) for key in zmq.curve_keypair())


@pytest.mark.parametrize(
    "content", [b"", b"\0\xff\xfe", b"client  key  name\n", b'# public-key = "x"\n', b"public-key\n"]
)
def test_what_is_no_identity_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "laptop.public"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path} is no identity: make one by `zmqbroker identity new NAME`$"):
        read_public(path)


def test_a_file_that_is_not_there_or_is_none_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^cannot read .*/none: no such file$"):
        read_public(tmp_path / "none")
    with pytest.raises(ValueError, match=r"^cannot read .*: Is a directory$"):
        read_public(tmp_path)


def test_who_one_is_comes_from_the_files_that_are_given_else_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(OWN, raising=False)
    monkeypatch.delenv(BROKER, raising=False)
    assert credentials(None, None) is None
    mine, other, broker = (make(tmp_path / name) for name in ("mine", "other", "broker"))
    expected = Credentials(read_secret(mine.secret), broker.key.encode())
    assert credentials(mine.secret, str(broker.public)) == expected
    monkeypatch.setenv(OWN, str(other.secret))
    monkeypatch.setenv(BROKER, str(broker.public))
    assert credentials(None, None) == Credentials(read_secret(other.secret), broker.key.encode())
    assert credentials(mine.secret, None) == expected
    monkeypatch.setenv(OWN, "")
    monkeypatch.setenv(BROKER, "")
    assert credentials(None, None) is None


def test_a_secret_key_is_shown_to_nobody_who_prints_it(tmp_path: Path):
    pair = create(tmp_path / "mine")
    for text in (repr(pair), str(Credentials(pair, pair.public))):
        assert pair.secret.decode() not in text
    assert pair.public.decode() in repr(pair)


def test_one_identity_without_the_other_is_refused(tmp_path: Path):
    mine = make(tmp_path / "mine")
    with pytest.raises(
        ValueError,
        match=rf"^only one of two identities is given: the broker's \(--broker-identity, {BROKER}\) is missing$",
    ):
        credentials(mine.secret, None)
    with pytest.raises(
        ValueError, match=rf"^only one of two identities is given: one's own \(--identity, {OWN}\) is missing$"
    ):
        credentials(None, mine.public)


def test_an_inproc_address_takes_no_identity_and_that_of_the_environment_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine, broker = make(tmp_path / "mine"), make(tmp_path / "broker")
    for given in ({"identity": mine.secret}, {"broker_identity": broker.public}):
        with pytest.raises(ValueError, match=r"^inproc://tasks takes no identity: it does not leave this process$"):
            destination("inproc://tasks", **given)
    monkeypatch.setenv(OWN, str(mine.secret))
    monkeypatch.setenv(BROKER, str(broker.public))
    assert destination("inproc://tasks").credentials is None
    assert destination("ipc:///tmp/tasks").credentials is not None
