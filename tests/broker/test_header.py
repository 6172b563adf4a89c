"""The header on real sockets: what a DEALER that sends one gets."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from conftest import Running

Start = Callable[..., Running]


def request(client: zmq.Socket[bytes], body: bytes, *envelope: bytes, **fields: Any) -> None:
    client.send_multipart([*envelope, b"ZB1 " + json.dumps(fields).encode(), b"", body])


def reply(client: zmq.Socket[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Wait for a reply to a request whose envelope is its header alone: the fields and the body."""
    header, empty, *body = client.recv_multipart()
    assert (header[:4], empty) == (b"ZB1 ", b"")
    fields = json.loads(header[4:])
    assert fields.pop("number", 1) >= 1
    return fields, body


def test_a_reply_has_the_number_of_its_task_and_the_id_of_its_request(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker()
    for number in (1, 2):
        request(client, b"task", key=str(number), id=f"request {number}")
        worker.echo()
        header = json.loads(client.recv_multipart()[0][4:])
        assert (header["number"], header["id"]) == (number, f"request {number}")
    request(client, b"task", key="1", id="once more", cancel=True)
    assert "number" not in (refused := json.loads(client.recv_multipart()[0][4:]))
    assert refused["id"] == "once more"


def test_a_reply_says_what_became_of_the_task(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker()
    request(client, b"task", key="k")
    attempt_id, _ = worker.take()
    worker.reply(attempt_id, b"")
    assert reply(client) == ({"key": "k", "status": "done", "attempts": 1}, [b""])


def test_who_asks_is_told_which_worker_had_the_task_last_and_nobody_else(running: Running):
    client, other, worker = running.client(zmq.DEALER), running.client(zmq.DEALER), running.worker()
    request(client, b"task", key="k", worker=True)
    attempt_id, _ = worker.take()
    request(other, b"task", key="k")
    running.wait_for("joined", 1)
    worker.reply(attempt_id, b"result")
    assert reply(client) == ({"key": "k", "status": "done", "attempts": 1, "worker": ""}, [b"result"])
    assert reply(other) == ({"key": "k", "status": "done", "attempts": 1}, [b"result"])
    request(running.client(zmq.DEALER), b"task", key="nobody", worker=True)
    running.wait_for("accepted", 2)
    request(client, b"", key="nobody", cancel=True, worker=True)
    assert "worker" not in reply(client)[0]


def test_the_rest_of_the_envelope_is_echoed_before_the_header(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker()
    request(client, b"task", b"hop", b"ZB1 not last")
    worker.echo()
    assert client.recv_multipart() == [
        b"hop",
        b"ZB1 not last",
        b'ZB1 {"status": "done", "attempts": 1, "number": 1}',
        b"",
        b"task",
    ]


def test_a_failure_comes_with_the_reason_of_the_worker(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker()
    request(client, b"task", key="k", tries=1)
    attempt_id, _ = worker.take()
    worker.say(b"fail", attempt_id, b"ValueError: bad input")
    assert reply(client) == ({"key": "k", "status": "failed", "attempts": 1, "reason": "ValueError: bad input"}, [b""])


def test_a_timeout_and_tries_of_its_own(running: Running):
    client, one, two = running.client(zmq.DEALER), running.worker(), running.worker()
    request(client, b"task", timeout=0.05, tries=2)
    one.take()
    two.take()
    assert reply(client)[0] == {
        "status": "failed",
        "attempts": 2,
        "reason": "timed out after 0.05 s (2 of 2 attempts)",
    }


def test_priorities_and_delays(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker()
    request(client, b"delayed", delay=0.2)
    request(client, b"low", priority=-1)
    client.send_multipart([b"", b"plain"])
    request(client, b"high", priority=1)
    running.wait_for("accepted", 4)
    assert [worker.echo() for _ in range(4)] == [[b"high"], [b"plain"], [b"low"], [b"delayed"]]


@pytest.mark.parametrize("is_running", [False, True])
def test_a_cancelled_task_is_settled_at_once(running: Running, is_running: bool):
    client, worker = running.client(zmq.DEALER), running.worker()
    request(client, b"task", key="k")
    if is_running:
        attempt_id, _ = worker.take()
    request(client, b"", key="k", cancel=True)
    expected = {"key": "k", "status": "cancelled", "attempts": int(is_running), "reason": "cancelled by its client"}
    assert reply(client) == (expected, [b""])
    if is_running:
        worker.say(b"touch", attempt_id)
        worker.reply(attempt_id, b"too late")
        running.wait_for("late", 2)
    request(client, b"next")
    assert worker.echo() == [b"next"]
    assert reply(client)[1] == [b"next"]


def test_cancelling_what_is_not_there_is_invalid(running: Running):
    client = running.client(zmq.DEALER)
    request(client, b"", key="k", cancel=True)
    fields, body = reply(client)
    assert (fields["key"], fields["status"], body) == ("k", "invalid", [b""])


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b'{"tries": "many"}', b'{"colour": 1}', b"x" * 70_000])
def test_a_bad_header_is_answered_and_becomes_no_task(running: Running, header: bytes):
    client = running.client(zmq.DEALER)
    client.send_multipart([b"ZB1 " + header, b"", b"task"])
    fields, body = reply(client)
    assert (fields["status"], body) == ("invalid", [b""])
    assert fields["reason"].startswith("a bad header: ")
    assert running.count("accepted") == 0


def test_a_client_that_comes_back_joins_its_task(running: Running):
    first, second, worker = running.client(zmq.DEALER), running.client(zmq.DEALER), running.worker()
    request(first, b"task", key="k")
    attempt_id, _ = worker.take()
    request(second, b"task", key="k")
    running.wait_for("joined", 1)
    worker.reply(attempt_id, b"result")
    for client in (first, second):
        assert reply(client) == ({"key": "k", "status": "done", "attempts": 1}, [b"result"])
    assert running.count("attempts") == 1


def test_a_client_that_comes_back_later_gets_the_reply_that_it_missed(running: Running):
    worker, second = running.worker(), running.client(zmq.DEALER)
    with running.elsewhere() as peers:
        request(peers.open(zmq.DEALER, running.addresses.requests), b"task", key="k")
        attempt_id, _ = worker.take()
    running.let_the_broker_notice()
    worker.reply(attempt_id, b"result")
    running.wait_for("undeliverable", 1)
    request(second, b"task", key="k")
    assert reply(second)[1] == [b"result"]
    assert running.count("attempts") == 1


def test_a_reply_that_was_sent_and_lost_with_its_connection_is_kept_as_well(running: Running):
    worker, second = running.worker(), running.client(zmq.DEALER)
    with running.elsewhere() as peers:
        first = peers.open(zmq.DEALER, running.addresses.requests)
        request(first, b"task", key="k")
        worker.echo()
        assert first.poll()  # sent, and never read
    request(second, b"task", key="k")
    assert reply(second)[1] == [b"task"]
    assert running.count("attempts") == 1


def test_a_task_too_large_and_a_request_without_a_body_say_why(start: Start):
    running = start(max_size=10)
    client = running.client(zmq.DEALER)
    request(client, b"x" * 11, key="k")
    assert reply(client)[0] == {
        "key": "k",
        "status": "failed",
        "attempts": 0,
        "reason": "a task of 11 bytes was refused: the limit is 10 bytes",
    }
    client.send_multipart([b'ZB1 {"key": "l"}', b""])
    fields, _ = reply(client)
    assert (fields["key"], fields["status"], fields["reason"]) == ("l", "invalid", "a request without a body")


def test_shutdown_says_why(start: Start):
    running = start()
    client = running.client(zmq.DEALER)
    request(client, b"task", key="k")
    running.wait_for("accepted", 1)
    running.stop()
    reason = "the broker was shut down"
    assert reply(client)[0] == {"key": "k", "status": "unavailable", "attempts": 0, "reason": reason}
