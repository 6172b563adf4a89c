"""For the tests of the control socket: a broker that has one, and plain sockets beside it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from conftest import Peers, Running

from zmqbroker.transport.control import ControlSocket
from zmqbroker.wire.control import parse_answer, question_message

ANY_PORT = "tcp://127.0.0.1:*"


@pytest.fixture
def controlled(start: Callable[..., Running]) -> Running:
    return start(control=ANY_PORT)


@pytest.fixture
def control(controlled: Running) -> Iterator[ControlSocket]:
    assert controlled.broker.control_address is not None
    with ControlSocket(controlled.broker.control_address, patience=20) as socket:
        yield socket


def submit(running: Running, number: int, **fields: Any) -> zmq.Socket[bytes]:
    """Send so many tasks, `0` first, with a header if there are fields, and see that they are accepted."""
    client = running.client(zmq.DEALER)
    before = running.count("accepted")
    header = [b"ZB1 " + json(fields)] if fields else []
    for each in range(number):
        client.send_multipart([*header, b"", b"%d" % each])
    running.wait_for("accepted", before + number)
    return client


def json(fields: dict[str, Any]) -> bytes:
    from json import dumps

    return dumps(fields).encode()


class Asker:
    """A plain DEALER that says to the control socket whatever it likes."""

    def __init__(self, peers: Peers, address: str | None) -> None:
        assert address is not None
        self.socket = peers.open(zmq.DEALER, address)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))

    def ask(self, **fields: Any) -> dict[str, Any]:
        """Return the answer to a question that may be wrong."""
        self.send(b"1", question_message(b"", "")[1], b"", json({"zmqbroker": 1, **fields}))
        return parse_answer(self.socket.recv_multipart())[1]

    def raw(self, question: bytes) -> bytes:
        """Return what is said to a question, whatever it is."""
        self.send(b"", question)
        return self.socket.recv_multipart()[-1]
