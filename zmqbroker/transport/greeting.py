"""What kind of ZeroMQ socket listens: the other side's part of a handshake, read by a connection of one's own.

ZeroMQ's own protocol, ZMTP 3, begins with a greeting of 64 bytes, which says how the connection is secured, its
mechanism: NULL, not at all, or CURVE. A command follows; without security it is READY, that names the kind of socket.
We say no more of a greeting than it takes to be told the mechanism, the rest only to who has none, and no command:
whoever listens sees a peer that hangs up before it is any.
"""

import re
import socket
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

NULL, CURVE = "NULL", "CURVE"
OPENING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00"  # up to the version
REST = NULL.encode().ljust(20, b"\0") + bytes(32)
MECHANISM = slice(12, 32)
GREETING = 64  # bytes
LONGEST_READY = 1024  # bytes

_find_kind = re.compile(rb"\x05READY.*?\x0bSocket-Type\0\0\0[\x03-\x06]([A-Z]{3,6})", re.DOTALL).search


class Greeting(NamedTuple):
    """What the other side has said of itself; empty: it has not, as what is no ZeroMQ will not."""

    mechanism: str = ""
    kind: str = ""  # of its socket: ROUTER, PULL, ..., as ZeroMQ calls it


def greet(peer: socket.socket, patience: float) -> Greeting:
    """Return what the other end of a connection says of itself within so many seconds."""
    until = monotonic() + patience
    heard, mechanism = b"", ""
    with suppress(OSError):
        peer.settimeout(patience)
        peer.sendall(OPENING)
        while len(heard) < GREETING + LONGEST_READY and (left := until - monotonic()) > 0:
            peer.settimeout(left)
            more = peer.recv(LONGEST_READY)
            heard += more
            if not more or heard[:1] != OPENING[:1]:
                break
            if not mechanism and len(heard) >= MECHANISM.stop:
                mechanism = heard[MECHANISM].rstrip(b"\0").decode(errors="replace")
                if mechanism != NULL:
                    break
                peer.sendall(REST)
            found = _find_kind(heard, GREETING)
            if found is not None:
                return Greeting(mechanism, found[1].decode())
    return Greeting(mechanism)
