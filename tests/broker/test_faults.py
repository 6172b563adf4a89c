"""Bad input and faults, on real sockets: afterwards the broker goes on as if nothing had happened."""

import logging
import random
from collections.abc import Callable

import pytest
import zmq
from conftest import Running

Start = Callable[..., Running]


def assert_still_serves(running: Running) -> None:
    """Send a task through the broker with peers of its own."""
    client, worker = running.client(), running.worker()
    client.send(b"still there?")
    worker.ready()
    while True:  # other tasks may come first, where a test left some
        attempt_id, body = worker.receive()
        worker.reply(attempt_id, *body)
        if body == [b"still there?"]:
            break
        worker.ready()
    assert client.recv_multipart() == [b"still there?"]


def garbage(seed: int, messages: int) -> list[list[bytes]]:
    """Return messages of random frame counts: random bytes, empty frames, and words of the protocol."""
    chance = random.Random(seed)
    pieces = [b"", b"", b"ready", b"fail", b"touch", b"release", b"reject", b"ZB1 {}", b"x" * 20]
    return [
        [chance.choice([*pieces, chance.randbytes(chance.randrange(40))]) for _ in range(chance.randrange(1, 8))]
        for _ in range(messages)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_garbage_on_the_results_socket_changes_nothing(running: Running, seed: int):
    answer = running.open(zmq.PUSH, running.addresses.results)
    client, worker = running.client(), running.worker()
    client.send(b"task")
    attempt_id, _ = worker.take()
    for message in garbage(seed, 1000):
        answer.send_multipart(message)
    worker.reply(attempt_id, b"result")
    assert client.recv() == b"result"
    running.wait_until(lambda: running.count("malformed") + running.count("late") == 1000)
    assert_still_serves(running)


@pytest.mark.parametrize("seed", range(3))
def test_garbage_from_clients_is_answered_or_taken_as_tasks(running: Running, seed: int):
    client = running.client(zmq.DEALER)
    messages = garbage(seed, 1000)
    for message in messages:
        client.send_multipart(message)
    running.wait_until(lambda: running.count("malformed") + running.count("accepted") == 1000)
    failures = running.count("malformed")
    assert 0 < failures < 1000
    for _ in range(failures):
        assert client.recv_multipart()[-1] == b""
    assert_still_serves(running)


@pytest.mark.parametrize("seed", range(3))
def test_garbage_from_workers_is_counted(start: Start, seed: int):
    running = start(timeout=0.2, tries=0)  # what is handed to a worker that is gone comes back
    worker = running.worker(zmq.DEALER)
    messages = garbage(seed, 1000)
    for message in messages:
        worker.ask.send_multipart(message)
    malformed = sum(b"" not in message for message in messages)
    running.wait_for("malformed", malformed)
    worker.vanish()
    assert_still_serves(running)


@pytest.mark.parametrize("frames", [[b"\0" * 1_000_000], [b"", b"\0" * 1_000_000], [b""] * 10_000])
def test_a_megabyte_of_nothing_on_every_socket(start: Start, frames: list[bytes]):
    running = start(timeout=0.2, tries=0)  # what is handed to a worker that is gone comes back
    client, worker = running.client(zmq.DEALER), running.worker(zmq.DEALER)
    for opened in (client, worker.ask, worker.answer):
        opened.send_multipart(frames)
    running.wait_until(lambda: running.count("malformed") >= 1)
    worker.vanish()
    assert_still_serves(running)


def test_a_client_whose_request_is_malformed_gets_a_failure(running: Running):
    client = running.client(zmq.DEALER)
    client.send(b"no empty frame")
    assert client.recv_multipart() == [b"", b""]
    client.send(b"")
    assert client.recv_multipart() == [b"", b""]


def test_malformed_traffic_does_not_flood_the_log(running: Running, caplog: pytest.LogCaptureFixture):
    client, worker = running.client(zmq.DEALER), running.worker(zmq.DEALER)
    with caplog.at_level(logging.DEBUG, "zmqbroker"):
        for _ in range(2000):
            client.send(b"nonsense")
            worker.ask.send(b"nonsense")
            worker.answer.send(b"")
        running.wait_for("malformed", 6000)
    assert 3 <= len(caplog.records) <= 20


def test_results_for_unknown_settled_and_stale_attempts_are_dropped(start: Start):
    running = start(timeout=1)  # in which a busy machine replies
    client, slow, quick = running.client(), running.worker(), running.worker()
    client.send(b"task")
    stale, _ = slow.take()
    slow.say(b"touch", stale[:-1] + b"\xff", b"99")
    settled, _ = quick.take()  # after the deadline of the first
    quick.reply(settled, b"good")
    assert client.recv() == b"good"
    slow.reply(stale, b"stale")
    quick.reply(settled, b"again")
    slow.reply(b"unknown", b"what?")
    running.wait_for("late", 2)
    running.wait_for("malformed", 2)
    client.send(b"next")
    quick.echo()
    assert client.recv() == b"next"


def test_a_worker_that_died_idle_costs_no_attempt_and_no_time(start: Start):
    running = start(tries=1, timeout=3600)
    with running.elsewhere() as peers:
        for _ in range(5):
            peers.open(zmq.REQ, running.addresses.ready).send(b"ready")
        running.wait_for("idle", 5)
    client, alive = running.client(), running.worker()
    running.let_the_broker_notice()
    alive.ready()
    client.send(b"task")
    attempt_id, _ = alive.receive()
    alive.reply(attempt_id, b"done")
    assert client.recv() == b"done"
    assert (running.count("attempts"), running.count("retried")) == (1, 0)


def test_a_worker_that_asks_again_gets_its_task_by_the_last_question(start: Start):
    running = start(timeout=0.2, tries=0)
    client = running.client(zmq.DEALER)
    eager = running.worker(req_relaxed=1, req_correlate=1)
    eager.ready()
    eager.ready()
    eager.ready()
    running.wait_for("idle", 1)
    client.send_multipart([b"", b"task"])
    attempt_id, body = eager.receive()  # the newest question is the one that is answered first
    eager.reply(attempt_id, *body)
    assert client.recv_multipart() == [b"", b"task"]
    eager.vanish()
    assert_still_serves(running)


def test_a_reply_to_a_client_that_has_vanished_is_counted(running: Running):
    worker = running.worker()
    with running.elsewhere() as peers:
        peers.open(zmq.REQ, running.addresses.requests).send(b"task")
        attempt_id, _ = worker.take()
    running.let_the_broker_notice()
    worker.reply(attempt_id, b"to nobody")
    running.wait_for("done", 1)
    running.wait_for("undeliverable", 1)
    assert_still_serves(running)


def test_a_client_that_never_reads_loses_only_its_own_replies(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zmqbroker.broker.sockets.UNREAD_REPLIES", 100)
    running = start()
    deaf = running.client(zmq.DEALER, rcvhwm=1, sndhwm=0)
    worker = running.worker()
    body = b"x" * 100_000
    sent = 0
    while not running.count("undeliverable"):
        deaf.send_multipart([b"", body])
        worker.echo()
        sent += 1
        assert sent < 5000
    assert_still_serves(running)


def test_a_task_that_silences_every_worker_fails_after_its_tries(start: Start):
    running = start(timeout=0.1, tries=2)
    client, one, two = running.client(), running.worker(), running.worker()
    client.send(b"task")
    one.take()
    two.take()
    assert client.recv() == b""
    assert (running.count("attempts"), running.count("retried"), running.count("failed")) == (2, 1, 1)
    assert_still_serves(running)


def test_a_restarted_peer_with_an_identity_of_its_own_is_heard(running: Running):
    for number in range(3):
        worker = running.worker(identity=b"worker")
        client = running.client(identity=b"client")
        client.send(b"%d" % number)
        worker.echo()
        assert client.recv() == b"%d" % number
        worker.vanish()
        client.close()
