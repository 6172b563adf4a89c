"""Identities: pairs of CURVE keys in files, and who one is and whom one expects when one connects.

The files are those of `zmq.auth.load_certificate`.
"""

import os
import stat
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from zmqbroker.transport.keys import LENGTH, is_key

PUBLIC, SECRET = ".public", ".secret"  # ends of the names of files
FILE = """\
# {what}

metadata
    name = "{name}"
curve
    public-key = "{public}"
"""
SECRET_LINE = '    secret-key = "{secret}"\n'
OWN = "ZMQBROKER_IDENTITY"  # the names of variables
BROKER = "ZMQBROKER_BROKER_IDENTITY"
ROOT = 0  # a user
OTHERS = 0o077
OTHERS_OF_ROOT = 0o037  # what root has, it may have handed to a group

FilePath = str | os.PathLike[str]


class Identity(NamedTuple):
    """A pair of keys."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"<Identity {self.public.decode(errors='replace')}>"  # the secret is for no log


class Credentials(NamedTuple):
    """Who one is, and whom one expects at the other end."""

    own: Identity
    broker: bytes  # its public key

    def put_on(self, opened: "zmq.Socket[Any]") -> None:
        """Have a socket be who one is; to be called before it connects."""
        opened.curve_publickey, opened.curve_secretkey = self.own
        opened.curve_serverkey = self.broker


def credentials(own: FilePath | None, broker: FilePath | None) -> Credentials | None:
    """Read who one is, and the public key of the broker: of these files, or of those that the environment names.

    None: neither is named, so one has no identity. Raises ValueError for one without the other, and for what is no such
    file.
    """
    own_file = own or os.environ.get(OWN) or None
    broker_file = broker or os.environ.get(BROKER) or None
    if own_file is None and broker_file is None:
        return None
    if own_file is None or broker_file is None:
        own_missing, broker_missing = f"one's own (--identity, {OWN})", f"the broker's (--broker-identity, {BROKER})"
        missing = own_missing if own_file is None else broker_missing
        raise ValueError(f"only one of two identities is given: {missing} is missing")
    return Credentials(read_secret(own_file), read_public(broker_file))


def create(path: FilePath) -> Identity:
    """Make a pair of keys, and write PATH.public and PATH.secret, which nobody else may read.

    Raises ValueError, having written neither, where one of them is there already, or cannot be written.
    """
    name = name_of(path)
    check_name(name)
    if not os.fspath(path).endswith(name):
        raise ValueError(f"leave the end of {os.fspath(path)} out: {PUBLIC} and {SECRET} are added to the name")
    _need_curve()
    pair = Identity(*zmq.curve_keypair())
    public, secret = (key.decode() for key in pair)
    fill = partial(FILE.format, name=name, public=public)
    private = fill(what="A secret key: whoever has it is this identity.") + SECRET_LINE.format(secret=secret)
    with ExitStack() as undoing:
        _write(f"{os.fspath(path)}{SECRET}", 0o600, private, undoing)
        _write(f"{os.fspath(path)}{PUBLIC}", 0o644, fill(what="A public key: all may know it."), undoing)
        undoing.pop_all()
    return pair


def name_of(path: FilePath) -> str:
    """Return what the identity in a file is called: as the file, but for PUBLIC or SECRET."""
    name = os.path.basename(path)
    return next((name.removesuffix(end) for end in (PUBLIC, SECRET) if name.endswith(end)), name)


def check_name(name: str) -> None:
    """Raise ValueError for what cannot be the name of an identity, with which lines of a file are to end."""
    if not name or not name.isprintable() or " " in name:
        raise ValueError(f"{name!r} is no name of an identity: it takes printable characters, without blanks")


def read_secret(path: FilePath) -> Identity:
    """Read a pair of keys. Raises ValueError for what is none, and for a file that others may read."""
    public, secret = _read(path)
    if secret is None:
        raise ValueError(f"{os.fspath(path)} has no secret key: it takes the file NAME{SECRET} here")
    with suppress(zmq.ZMQError):
        if zmq.curve_public(secret) == public:
            return Identity(public, secret)
    raise ValueError(f"the keys in {os.fspath(path)} are no pair")


def read_public(path: FilePath) -> bytes:
    """Read a public key, which a file with a pair has as well. Raises ValueError for what is none, as `read_secret`."""
    return _read(path)[0]


def check_privacy(path: FilePath, status: os.stat_result) -> None:
    """Raise ValueError for a file with a secret that others may read.

    A group may where the file is root's and we are not: so a container, or a service, is handed what it cannot own.
    """
    mode = stat.S_IMODE(status.st_mode)
    is_handed = status.st_uid == ROOT != os.geteuid()
    if mode & (OTHERS_OF_ROOT if is_handed else OTHERS):
        raise ValueError(f"{os.fspath(path)} may be read by others (mode {mode:04o}): chmod 600 it")


def _read(path: FilePath) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate  # it takes a while, and most have no identity

    _need_curve()
    try:
        public, secret = load_certificate(Path(path))
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"cannot read {os.fspath(path)}: {error.strerror or 'no such file'}") from None
    except (ValueError, IndexError):  # there is no key, or nothing after its name
        raise ValueError(f"{os.fspath(path)} is no identity: make one by `zmqbroker identity new NAME`") from None
    if not is_key(public) or (secret is not None and not is_key(secret)):
        raise ValueError(f"{os.fspath(path)} is damaged: a key has {LENGTH} characters of Z85")
    if secret is not None:
        check_privacy(path, status)
    return public, secret


def _write(path: str, mode: int, text: str, undoing: ExitStack) -> None:
    """Write a file that is not there yet. Raises ValueError where it is, or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        undoing.callback(os.unlink, path)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None


def _need_curve() -> None:
    if not zmq.has("curve"):
        raise ValueError("this libzmq has no CURVE: install the wheel of pyzmq, which has it")
