"""Who comes to the wrong socket of a broker, and leaves without a word: what its log says, and whom it harms."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from conftest import LOOPBACK, Running

from zmqbroker.broker.handshakes import Newcomers

RESULTS = "only PUSH sockets belong there"
ASKING = "only REQ and DEALER sockets belong there"


def test_a_connection_that_ends_before_its_handshake_has_failed():
    newcomers = Newcomers()
    newcomers.came(7)
    assert newcomers.left(7)


def test_one_that_was_welcome_has_not():
    newcomers = Newcomers()
    newcomers.came(7)
    newcomers.is_welcome()
    assert not newcomers.left(7)
    newcomers.came(7)  # another one, under the same descriptor
    assert newcomers.left(7)


def test_of_several_at_a_time_none_is_taken_for_bad_that_may_be_good():
    newcomers = Newcomers()
    for descriptor in (7, 8):
        newcomers.came(descriptor)
    newcomers.is_welcome()  # 7 or 8
    assert not newcomers.left(7)
    newcomers.came(9)
    assert newcomers.left(9)
    assert not newcomers.left(8)


def test_a_welcome_may_be_told_of_before_the_connection():
    newcomers = Newcomers()
    newcomers.is_welcome()
    newcomers.came(7)
    assert not newcomers.left(7)
    newcomers.came(8)
    assert newcomers.left(8)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "handshake" in record.getMessage()]


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
@pytest.mark.parametrize(
    ("kind", "where", "belongs"),
    [
        (zmq.PUSH, "REQUESTS", ASKING),
        (zmq.PUSH, "READY", ASKING),
        (zmq.REQ, "RESULTS", RESULTS),
        (zmq.DEALER, "RESULTS", RESULTS),
    ],
)
def test_a_socket_that_does_not_belong_there_is_one_line_and_harms_nobody(
    start: Callable[..., Running],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    transport: str,
    kind: int,
    where: str,
    belongs: str,
):
    name = where.lower()
    running = start(**{name: LOOPBACK if transport == "tcp" else f"ipc://{tmp_path}/{name}"})
    stranger = running.open(kind, getattr(running.addresses, name))
    running.wait_until(lambda: bool(told(caplog)))
    because = f"a wrong address ({belongs}), or who left at once, as a port scan does"
    assert told(caplog) == [f"a connection to {where} was over before its handshake: {because}"]
    stranger.close()
    client, worker = running.client(), running.worker()
    client.send(b"task")
    worker.echo()
    assert client.recv() == b"task"
    assert running.count("accepted") == running.count("attempts") == 1
    assert running.count("malformed") == 0
    assert len(told(caplog)) == 1


@pytest.mark.parametrize("where", ["REQUESTS", "READY", "RESULTS"])
def test_a_port_scan_is_told_of_as_what_it_may_be_and_not_each_time(
    running: Running, caplog: pytest.LogCaptureFixture, where: str
):
    host, _, port = getattr(running.addresses, where.lower()).removeprefix("tcp://").rpartition(":")
    for _ in range(20):
        socket.create_connection((host, int(port))).close()
    running.wait_until(lambda: bool(told(caplog)))
    running.let_the_broker_notice()
    assert len(told(caplog)) == 1
    assert told(caplog)[0].endswith(" as a port scan does")


def test_who_belongs_there_is_not_told_of(running: Running, caplog: pytest.LogCaptureFixture):
    for _ in range(5):
        client, worker = running.client(), running.worker()
        client.send(b"task")
        worker.echo()
        assert client.recv() == b"task"
        client.close()
        worker.vanish()
    running.let_the_broker_notice()
    assert not told(caplog)
