"""Workers that die or are cut off, and how soon their tasks run again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, PATIENCE_MS, Peers, Running
from helpers import wait_until

from zmqbroker import Broker
from zmqbroker.broker.liveness import Connections
from zmqbroker.wire.announced import Announce, announce_message

Start = Callable[..., Running]

ESTABLISHED = "01"  # as /proc/net/tcp has it

# A worker with nothing of ours in it: it says what it got, and then does what its last argument says.
WORKER = """
import os, sys, zmq
context = zmq.Context()
ready, results = context.socket(zmq.REQ), context.socket(zmq.PUSH)
ready.connect(sys.argv[1])
results.connect(sys.argv[2])
ready.send(b"ready")
attempt_id, body = ready.recv_multipart()
print(body.decode(), flush=True)
if sys.argv[3] == "answer":
    results.send_multipart([attempt_id, body])
    ready.close(linger=0)
    results.close(linger=5000)
    context.term()
elif sys.argv[3] == "crash":
    os.abort()
else:
    sys.stdin.read()
"""


@pytest.fixture
def spawn() -> Iterator[Callable[[Running, str], "subprocess.Popen[str]"]]:
    """Return a function that starts a worker process for a broker."""
    started: list[subprocess.Popen[str]] = []

    def spawn(running: Running, behaviour: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", WORKER, running.addresses.ready, running.addresses.results, behaviour]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


def took(process: "subprocess.Popen[str]") -> str:
    """Wait until a worker process says which task it has."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_the_task_of_a_killed_worker_is_on_another_one_within_half_a_second(
    start: Start, spawn: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, transport: str
):
    ready = LOOPBACK if transport == "tcp" else f"ipc://{tmp_path}/ready"
    running = start(timeout=60.0, ready=ready)
    client, other = running.client(), running.worker()
    doomed = spawn(running, "hang")
    client.send(b"task")
    assert took(doomed) == "task"
    other.ready()
    running.wait_for("idle", 1)
    killed_at = monotonic()
    doomed.kill()
    attempt_id, body = other.receive()
    assert monotonic() - killed_at < 0.5
    other.reply(attempt_id, *body)
    assert client.recv() == b"task"
    assert (running.count("attempts"), running.count("lost")) == (2, 1)


def test_without_a_timeout_a_task_that_kills_every_worker_fails_after_its_tries(
    start: Start, spawn: Callable[..., "subprocess.Popen[str]"]
):
    running = start(tries=3)
    client = running.client(zmq.DEALER)
    client.send_multipart([b'ZB1 {"key": "poison"}', b"", b"task"])
    for _ in range(3):
        assert took(spawn(running, "crash")) == "task"
    header, *_ = client.recv_multipart()
    assert b'"failed"' in header
    assert b"the worker was lost" in header


def test_a_worker_that_answers_and_exits_at_once_is_never_charged(
    start: Start, spawn: Callable[..., "subprocess.Popen[str]"]
):
    running = start(tries=1)
    client = running.client()
    processes = [spawn(running, "answer") for _ in range(5)]
    for number in range(5):
        client.send(b"%d" % number)
        assert client.recv() == b"%d" % number
    for process in processes:
        assert process.wait(20) == 0
    assert (running.count("done"), running.count("failed"), running.count("retried")) == (5, 0, 0)


def test_a_worker_that_is_lost_while_idle_is_forgotten(running: Running):
    with running.elsewhere() as peers:
        worker = peers.open(zmq.DEALER, running.addresses.ready)
        for _ in range(3):
            worker.send_multipart([b"", b"ready"])
        running.wait_for("idle", 1)
    running.wait_until(lambda: running.count("idle") == 0)


def test_a_worker_that_leaves_while_another_one_is_given_up_is_forgotten_too(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    connections = running.broker._sockets.workers
    lost = connections.lost

    def lost_and_one_more() -> Iterator[Any]:
        gone = list(lost())
        yield from gone
        if gone and not second.context.closed:
            second.close()
            connections.monitor.poll(PATIENCE_MS)

    with running.elsewhere() as first, running.elsewhere() as second:
        for number, peers in enumerate((first, second), 1):
            peers.open(zmq.DEALER, running.addresses.ready).send_multipart([b"", b"ready"])
            running.wait_for("idle", number)
        monkeypatch.setattr(connections, "lost", lost_and_one_more)
        first.close()
        running.wait_until(lambda: running.count("idle") == 0)


def test_a_message_of_an_earlier_connection_with_the_same_descriptor_does_not_displace_the_later_one():
    class Frame:
        def get(self, _: int) -> int:
            return 30

    with Peers() as peers:
        connections = Connections(peers.context, peers.open(zmq.ROUTER, "inproc://nobody"))
        connections.handshakes.open.add(30)
        earlier, later, much_later = b"\0\xff\xff\xff\xff", b"\0\0\0\0\0", b"\0\0\0\0\x09"  # they wrap
        frame: Any = Frame()
        assert list(connections.note(later, frame)) == []
        assert connections.has_left(earlier, frame)
        assert not connections.has_left(later, frame)
        assert not connections.has_left(much_later, frame)
        assert not connections.has_left(b"a name of its own", frame)
        connections.close()


def test_a_stopped_worker_is_not_a_lost_one(start: Start, spawn: Callable[..., "subprocess.Popen[str]"]):
    running = start(timeout=60.0)
    client = running.client()
    stopped = spawn(running, "hang")
    client.send(b"task")
    took(stopped)
    stopped.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
    running.let_the_broker_notice()
    stopped.send_signal(signal.SIGCONT)
    assert running.count("lost") == 0


def test_a_worker_with_an_identity_that_comes_back_has_lost_its_task(start: Start):
    running = start(timeout=60.0)
    client, other = running.client(), running.worker()
    with running.elsewhere() as peers:
        first = peers.open(zmq.REQ, running.addresses.ready, identity=b"worker")
        client.send(b"task")
        first.send(b"ready")
        first.recv_multipart()
        second = running.worker(identity=b"worker")
        second.ready()  # by a new connection, while the old one is still there
        other.ready()
        attempt_id, body = other.receive()
    other.reply(attempt_id, *body)
    assert client.recv() == b"task"
    client.send(b"next")
    attempt_id, body = second.receive()
    second.reply(attempt_id, *body)
    assert client.recv() == b"next"


def test_connections_that_come_and_go_never_cost_a_living_worker_its_task(start: Start):
    running = start(tries=1)
    client, worker = running.client(), running.worker()
    client.send(b"task")
    attempt_id, _ = worker.take()
    for _ in range(30):
        with running.elsewhere() as peers:  # they use the same descriptors again and again
            for _ in range(10):
                peers.open(zmq.REQ, running.addresses.ready).send(b"ready")
            peers.open(zmq.REQ, running.addresses.ready)  # that never speaks
            running.let_the_broker_notice()
    worker.reply(attempt_id, b"result")
    assert client.recv() == b"result"
    assert running.count("lost") == 0


def test_workers_by_inproc_are_served_without_being_watched(start: Start):
    running = start(ready="inproc://ready")
    client, worker = running.client(), running.worker()
    client.send(b"task")
    worker.echo()
    assert client.recv() == b"task"


def test_an_announce_by_a_connection_that_has_dropped_leaves_nobody_behind():
    with Peers() as peers, Broker(LOOPBACK, LOOPBACK, LOOPBACK, context=peers.context) as broker:
        announce = announce_message(Announce(), "test", [])
        with Peers() as elsewhere:
            worker = elsewhere.open(zmq.DEALER, broker.addresses.ready, linger=PATIENCE_MS)
            worker.send_multipart(announce)
        assert broker._sockets.workers.monitor.poll(PATIENCE_MS)
        peers.open(zmq.DEALER, broker.addresses.requests).send(b"after that")
        assert broker._sockets.requests.poll(PATIENCE_MS)
        assert broker._sockets.ready.poll(PATIENCE_MS)
        broker._loop.turn()
        assert len(broker._dispatcher._workers) == 0


def test_a_worker_that_left_before_its_first_message_was_read_is_forgotten_when_it_is():
    with Broker(LOOPBACK, LOOPBACK, LOOPBACK) as broker, Peers() as peers:
        worker = peers.open(zmq.DEALER, broker.addresses.ready, linger=PATIENCE_MS)
        worker.send_multipart([b"", b"ready"])
        assert broker._sockets.ready.poll(PATIENCE_MS)
        worker.close()
        wait_until(lambda: not connections_to(broker.addresses.ready))
        broker._loop.turn()
        assert broker.counters()["idle"] == 0
        assert len(broker._dispatcher._workers) == 0


def connections_to(address: str) -> int:
    """Return how many TCP connections there are at a port of this host."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(port) and line.split()[3] == ESTABLISHED for line in lines)
