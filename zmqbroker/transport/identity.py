"""Identities: pairs of CURVE keys in files, and who one is and whom one expects when one connects.

The files are those of `zmq.auth.load_certificate`. Keys are Z85, 40 bytes each, see RFC 32 of the ZeroMQ project.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from zmq.auth import load_certificate

OWN = "ZMQBROKER_IDENTITY"  # the names of variables
BROKER = "ZMQBROKER_BROKER_IDENTITY"
LENGTH = 40  # bytes of a key
OTHERS = 0o077

FilePath = str | os.PathLike[str]


class Identity(NamedTuple):
    """A pair of keys."""

    public: bytes
    secret: bytes


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
        missing = f"an identity of one's own ({OWN})" if own_file is None else f"the broker's public one ({BROKER})"
        raise ValueError(f"only one of two identities is given: {missing} is missing")
    return Credentials(read_secret(own_file), read_public(broker_file))


def read_secret(path: FilePath) -> Identity:
    """Read a pair of keys. Raises ValueError for what is none, and for a file that others may read."""
    public, secret = _read(path)
    if secret is None:
        raise ValueError(f"{os.fspath(path)} has no secret key: it takes the file NAME.secret here")
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & OTHERS:
        raise ValueError(f"{os.fspath(path)} may be read by others (mode {mode:04o}): chmod 600 it")
    with suppress(zmq.ZMQError):
        if zmq.curve_public(secret) == public:
            return Identity(public, secret)
    raise ValueError(f"the keys in {os.fspath(path)} are no pair")


def read_public(path: FilePath) -> bytes:
    """Read a public key. Raises ValueError for what is none."""
    return _read(path)[0]


def _read(path: FilePath) -> tuple[bytes, bytes | None]:
    if not zmq.has("curve"):
        raise ValueError("this libzmq has no CURVE: install the wheel of pyzmq, which has it")
    try:
        public, secret = load_certificate(Path(path))
    except OSError as error:
        raise ValueError(f"cannot read {os.fspath(path)}: {error.strerror or 'no such file'}") from None
    except ValueError:
        raise ValueError(f"{os.fspath(path)} is no identity: make one by `zmqbroker identity new NAME`") from None
    if len(public) != LENGTH or (secret is not None and len(secret) != LENGTH):
        raise ValueError(f"{os.fspath(path)} is damaged: a key has {LENGTH} characters")
    return public, secret
