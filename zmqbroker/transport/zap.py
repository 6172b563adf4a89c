"""ZAP, by which libzmq asks who may come in: RFC 27 of the ZeroMQ project, for CURVE alone.

Questions come by an inproc address, of which a context has one, and have a question's frames or, from whoever else has
the context, anything. Each has to be answered, or there is no next one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from zmqbroker.transport.messages import NOBLOCK

ADDRESS = "inproc://zeromq.zap.01"
VERSION, CURVE = b"1.0", b"CURVE"
KEY_LENGTH = 32  # bytes, as it is in a question
IN_USE = "this ZeroMQ context has another ZAP handler: a broker with an identity needs a context without one"


class Newcomer(NamedTuple):
    """Who wants to come in."""

    domain: str  # of the socket
    address: str  # without a port
    key: str  # the public one, in Z85


def open_zap(context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    """Return the socket by which a context is asked; raises ValueError where it has one."""
    opened: zmq.Socket[bytes] = context.socket(zmq.REP)
    opened.linger = 0
    try:
        opened.bind(ADDRESS)
    except zmq.ZMQError:
        opened.close()
        raise ValueError(IN_USE) from None
    return opened


def leave_zap(zap: zmq.Socket[bytes]) -> None:
    """Leave the context to another handler at once: to close the socket alone would do it later."""
    zap.unbind(ADDRESS)


def answer_one(zap: zmq.Socket[bytes], may_come_in: Callable[[Newcomer], bool]) -> bool:
    """Answer a question; False: there was none. What is no question of CURVE is refused."""
    try:
        question = zap.recv_multipart(NOBLOCK)
    except zmq.Again:
        return False
    newcomer = parse_question(question)
    is_welcome = newcomer is not None and may_come_in(newcomer)
    status, text, user = (
        (b"200", b"OK", newcomer.key.encode()) if newcomer and is_welcome else (b"400", b"refused", b"")
    )
    number = question[1] if len(question) > 1 else b""
    zap.send_multipart([VERSION, number, status, text, user, b""], NOBLOCK)
    return True


def parse_question(question: list[bytes]) -> Newcomer | None:
    """Return who wants to come in; None: this is no question of CURVE."""
    if len(question) != 7:
        return None
    version, _, domain, address, _, mechanism, key = question
    if version != VERSION or mechanism != CURVE or len(key) != KEY_LENGTH:
        return None
    return Newcomer(domain.decode(errors="replace"), address.decode(errors="replace"), z85.encode(key).decode())
