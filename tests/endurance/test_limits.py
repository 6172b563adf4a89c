"""Many peers, few descriptors, peers that stopped or do not read: small and quick; `limits.py` has them large."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
import zmq
from conftest import Peers, PlainWorker, Running
from helpers import PATIENCE, Program, bound_addresses, wait_until
from library_support import echo, working

from zmqbroker import Broker
from zmqbroker.transport.binding import LONGEST_HEARTBEAT
from zmqbroker.transport.keep_alive import KeepAlive

pytestmark = pytest.mark.once


Start = Callable[..., Running]
PEERS = "tests/endurance/network_peers.py"
FEW_DESCRIPTORS = 64
ANY = ("tcp://127.0.0.1:*",) * 3
HEARTBEAT = 1.0  # seconds
LARGE = 64 << 20  # bytes
UNREAD = 2000  # replies
BODY = bytes(16384)  # so many of them are more than TCP and the queue of a socket hold


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Return a function that starts a program."""
    started: list[Program] = []

    def start(script: str, *arguments: object) -> Program:
        started.append(Program(script, *arguments))
        return started[-1]

    yield start
    for running in started:
        with suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGCONT)
        running.clean_up()


def ask(client: "zmq.Socket[bytes]") -> None:
    """Have a task done."""
    client.send(b"task")
    assert client.recv() == b"task"


def resident(program: Program) -> int:
    """Return the bytes of memory that a program has."""
    pages = Path(f"/proc/{program.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def stop(worker: Program) -> None:
    """Stop a process, its I/O thread included, as a host that hangs does."""
    worker.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WNOWAIT)


# Dead hosts


@pytest.mark.parametrize("number", range(3), ids=["requests", "ready", "results"])
def test_keep_alive_is_set_on_every_socket(start: Start, number: int):
    broker = start(keep_alive=KeepAlive(7, 2, 3)).broker
    opened = (broker._sockets.requests, broker._sockets.ready, broker._sockets.results)[number]
    options = (zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT)
    assert [opened.get(option) for option in options] == [1, 7, 2, 3]


def test_a_worker_that_takes_nothing_is_taken_for_dead_and_a_client_is_not(start: Start):
    broker = start(keep_alive=KeepAlive(7, 2, 3)).broker
    opened = (broker._sockets.requests, broker._sockets.ready, broker._sockets.results)
    assert [socket.get(zmq.TCP_MAXRT) for socket in opened] == [0, 13_000, 13_000]


@pytest.mark.parametrize(
    "keep_alive",
    [KeepAlive(32768), KeepAlive(60, 32768), KeepAlive(60, 10, 128), KeepAlive(60, 0), KeepAlive(60, 10, 0)],
)
def test_what_tcp_does_not_take_as_keep_alive_is_refused(keep_alive: KeepAlive):
    with pytest.raises(ValueError, match="of keep_alive must be"):
        Broker(*ANY, keep_alive=keep_alive)


@pytest.mark.parametrize("keep_alive", [KeepAlive(32767, 32767, 127), KeepAlive(1, 1, 1), KeepAlive(0, 0, 0)])
def test_all_that_tcp_takes_as_keep_alive_lets_peers_connect(start: Start, keep_alive: KeepAlive):
    start(keep_alive=keep_alive).let_the_broker_notice()


@pytest.mark.parametrize("heartbeat", [0.001, LONGEST_HEARTBEAT])
def test_a_heartbeat_however_short_or_long_lets_peers_connect(start: Start, heartbeat: float):
    opened = start(heartbeat=heartbeat).broker._sockets.ready
    assert opened.get(zmq.HEARTBEAT_TTL) == max(100, heartbeat * 1000)


def test_a_heartbeat_that_is_too_long_to_be_told_is_refused():
    with pytest.raises(ValueError, match="heartbeat must be 0 to 6553"):
        Broker(*ANY, heartbeat=LONGEST_HEARTBEAT + 1)


def test_keep_alive_can_be_turned_off(start: Start):
    opened = start(keep_alive=KeepAlive(0, 2, 3)).broker._sockets.ready
    assert opened.get(zmq.TCP_KEEPALIVE) == -1
    assert opened.get(zmq.TCP_MAXRT) == 0


def test_heartbeats_take_the_task_of_a_stopped_worker_to_another_one(start: Start, program: Callable[..., Program]):
    running = start(heartbeat=HEARTBEAT)
    client, other = running.client(), running.worker()
    stopped = program(PEERS, "plain_worker", running.addresses.ready, running.addresses.results)
    client.send(b"hold")
    stopped.wait_for("took hold")
    other.ready()
    running.wait_for("idle", 1)
    stop(stopped)
    began = monotonic()
    attempt_id, body = other.receive()
    assert monotonic() - began < 2 * HEARTBEAT
    other.reply(attempt_id, *body)
    assert client.recv() == b"hold"
    assert (running.count("lost"), running.count("attempts")) == (1, 2)


def test_heartbeats_forget_an_idle_worker_that_was_stopped(start: Start, program: Callable[..., Program]):
    running = start(heartbeat=HEARTBEAT)
    stopped = program(PEERS, "plain_worker", running.addresses.ready, running.addresses.results)
    running.wait_for("idle", 1)
    stop(stopped)
    running.wait_until(lambda: running.count("idle") == 0)


def test_heartbeats_cut_off_no_client_that_does_not_read_or_is_not_read_from(start: Start):
    running = start(heartbeat=0.1, max_waiting=10)
    client = running.client(zmq.DEALER, rcvhwm=1, sndhwm=0)
    monitor = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    for number in range(UNREAD):
        client.send_multipart([b"%d" % number, b"", BODY])
    assert not monitor.poll(300), "cut off while the queue was full"
    with working(running.addresses.ready, echo, slots=10):
        running.wait_for("done", UNREAD)
    assert not monitor.poll(300), "cut off while it did not read"
    assert {client.recv_multipart()[0] for _ in range(UNREAD)} == {b"%d" % number for number in range(UNREAD)}
    client.disable_monitor()
    monitor.close()


def test_a_worker_that_takes_long_with_many_tasks_behind_is_not_lost_and_gets_each_once(start: Start):
    running = start(heartbeat=HEARTBEAT)
    client = running.client(zmq.DEALER, sndhwm=0, rcvhwm=0)
    go_on = threading.Event()

    def wait(body: bytes) -> bytes:
        assert go_on.wait(PATIENCE)
        return body[:1]

    with working(running.addresses.ready, wait, slots=UNREAD):
        running.wait_for("idle", 1)
        for _ in range(UNREAD):
            client.send_multipart([b"", BODY])
        running.wait_for("accepted", UNREAD)
        running.wait_for("running", 1)  # the others wait again, or still
        go_on.wait(2 * HEARTBEAT)
        go_on.set()
        for _ in range(UNREAD):
            client.recv_multipart()
    assert (running.count("lost"), running.count("attempts")) == (0, UNREAD)


def test_an_idle_worker_that_was_stopped_costs_one_attempt_and_no_one_else_anything(
    start: Start, program: Callable[..., Program]
):
    running = start(timeout=1.0)
    client, others = running.client(zmq.DEALER), running.worker()
    stopped = program(PEERS, "plain_worker", running.addresses.ready, running.addresses.results)
    running.wait_for("idle", 1)
    stop(stopped)
    for body in (b"first", b"second"):  # the first one goes to the worker that has been idle longest
        client.send_multipart([b"", body])
    assert others.echo() == [b"second"]
    assert client.recv_multipart() == [b"", b"second"]
    assert others.echo() == [b"first"]
    assert client.recv_multipart() == [b"", b"first"]
    assert (running.count("attempts"), running.count("retried")) == (3, 1)


# Limits


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(start: Start):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, hard), hard))
    try:
        start()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_broker_without_descriptors_serves_who_is_connected_and_newcomers_when_others_leave(
    program: Callable[..., Program],
):
    broker = program("broker.py", *ANY)
    requests, ready, _ = bound_addresses(broker)
    resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))
    with Peers() as peers, working(ready, echo):
        client, newcomer = (peers.open(zmq.REQ, requests) for _ in range(2))
        newcomer.disconnect(requests)
        ask(client)
        with Peers() as crowd:
            for _ in range(FEW_DESCRIPTORS):
                crowd.open(zmq.REQ, requests)
            wait_until(lambda: len(os.listdir(f"/proc/{broker.process.pid}/fd")) == FEW_DESCRIPTORS)
            newcomer.connect(requests)
            newcomer.send(b"newcomer")
            wait_until(lambda: ask(client) or "no file descriptors are left" in broker.output)
            assert not newcomer.poll(0)
        assert newcomer.recv() == b"newcomer"
    assert broker.output.count("descriptors") == 1
    assert broker.end() == 0


def test_a_large_body_is_not_kept_when_its_reply_is_out(program: Callable[..., Program]):
    broker = program("broker.py", "-T", 3600, "--drain", 0, *ANY)
    requests, ready, results = bound_addresses(broker)
    with Peers() as peers:
        earlier = peers.open(zmq.REQ, requests)
        earlier.send(b"runs on, so that its deadline is the first")
        PlainWorker(peers.open(zmq.REQ, ready), peers.open(zmq.PUSH, results)).take()
        with working(ready, echo):
            assert_a_large_body_is_not_kept(broker, peers.open(zmq.REQ, requests))


def assert_a_large_body_is_not_kept(broker: Program, client: "zmq.Socket[bytes]") -> None:
    ask(client)
    before = resident(broker)
    client.send(bytes(LARGE))
    assert len(client.recv()) == LARGE
    wait_until(lambda: resident(broker) < before + LARGE // 4)


def test_hundreds_of_workers_and_clients_are_served(running: Running):
    workers = [running.worker() for _ in range(200)]
    clients = [running.client() for _ in range(200)]
    for worker in workers:
        worker.ready()
    running.wait_for("idle", len(workers))
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    for worker in workers:
        attempt_id, body = worker.receive()
        worker.reply(attempt_id, *body)
    assert [client.recv() for client in clients] == [b"%d" % number for number in range(len(clients))]
    assert (running.count("attempts"), running.count("gone")) == (len(workers), 0)


# Readers that do not read


def load(lazy: "zmq.Socket[bytes]", prompt: "zmq.Socket[bytes]", count: int) -> float:
    """Have one client send so many tasks whose replies it does not read; return another one's slowest round trip."""
    slowest = 0.0
    for number in range(count):
        lazy.send_multipart([b"%d" % number, b"", BODY])
        if number % 100 == 0:
            began = monotonic()
            ask(prompt)
            slowest = max(slowest, monotonic() - began)
    return slowest


def test_unread_replies_are_kept_and_cost_no_other_client_anything(running: Running):
    lazy, prompt = running.client(zmq.DEALER, rcvhwm=1, sndhwm=0), running.client()
    with working(running.addresses.ready, echo, slots=10):
        slowest = load(lazy, prompt, UNREAD)
        running.wait_for("done", UNREAD + UNREAD // 100)
    print(f"the slowest round trip of another client took {slowest * 1000:.1f} ms")
    assert slowest < 5.0
    assert {lazy.recv_multipart()[0] for _ in range(UNREAD)} == {b"%d" % number for number in range(UNREAD)}
    assert running.count("undeliverable") == 0


def test_more_unread_replies_than_are_kept_are_dropped_and_counted(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zmqbroker.broker.sockets.UNREAD_REPLIES", 100)
    running = start()
    lazy, prompt = running.client(zmq.DEALER, rcvhwm=1, sndhwm=0), running.client()
    with working(running.addresses.ready, echo, slots=10):
        load(lazy, prompt, UNREAD)
        running.wait_for("done", UNREAD + UNREAD // 100)
    dropped = running.count("undeliverable")
    assert dropped > 0
    assert len({lazy.recv_multipart()[0] for _ in range(UNREAD - dropped)}) == UNREAD - dropped
    assert not lazy.poll(0)
