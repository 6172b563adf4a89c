"""What kind of ZeroMQ socket listens: the other side's part of a handshake, read by a connection of one's own.

ZeroMQ's own protocol, ZMTP 3, begins with a greeting of 64 bytes and a command, READY, that names the kind of socket.
We send a greeting and no command: whoever listens sees a peer that hangs up before it is any.
"""

import re
import socket
from contextlib import suppress
from time import monotonic

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
LONGEST_READY = 1024  # bytes

_find_kind = re.compile(rb"\x05READY.*?\x0bSocket-Type\0\0\0[\x03-\x06]([A-Z]{3,6})", re.DOTALL).search


def kind_of(peer: socket.socket, patience: float) -> str:
    """Return the kind of socket at the other end of a connection (ROUTER, PULL, ...), as ZeroMQ calls it.

    Nothing when it has not said so within so many seconds, as what is no ZeroMQ will not.
    """
    until = monotonic() + patience
    heard = b""
    with suppress(OSError):
        peer.settimeout(patience)
        peer.sendall(GREETING)
        while len(heard) < len(GREETING) + LONGEST_READY and (left := until - monotonic()) > 0:
            peer.settimeout(left)
            more = peer.recv(LONGEST_READY)
            heard += more
            found = _find_kind(heard, len(GREETING))
            if found is not None:
                return found[1].decode()
            if not more or heard[:1] != GREETING[:1]:
                break
    return ""
