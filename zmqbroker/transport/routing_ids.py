"""Routing ids that nobody can guess.

A ROUTER numbers its connections, beginning with what rand(3) says, which libzmq 4.3 does not seed: so all processes
begin with the same number. A peer that forges a handshake may claim the next one, and libzmq aborts when that comes up
(`ok` in socket_base.cpp): whoever can connect could end a broker.
"""

import ctypes
import os
from contextlib import suppress


def make_unguessable() -> None:
    """Seed rand(3), for the sockets that are opened from now on; where there is no such function nothing is done."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "big"))
