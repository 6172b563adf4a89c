"""Workers that announce themselves, frame by frame on real sockets: part 3 of PROTOCOL.md."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from conftest import Running

from zmqbroker import __version__

Start = Callable[..., Running]
Socket = zmq.Socket[bytes]

WELCOME = [b'ZB1 {"role": "broker", "protocol": 1, "version": "%s"}' % __version__.encode(), b""]


def announced(running: Running, *attempt_ids: bytes, **fields: Any) -> Socket:
    """Return the socket of a worker that is welcome."""
    worker = running.open(zmq.DEALER, running.addresses.ready)
    announce(worker, *attempt_ids, **fields)
    assert worker.recv_multipart() == WELCOME
    return worker


def announce(worker: Socket, *attempt_ids: bytes, **fields: Any) -> None:
    header = {"role": "worker", "protocol": 1, "serial": True} | fields
    worker.send_multipart([b"ZB1 " + json.dumps(header).encode(), b"", *attempt_ids])


def say(worker: Socket, word: bytes, *argument: bytes) -> None:
    worker.send_multipart([b"", b"ZB1 " + word, *argument])


def task(worker: Socket) -> tuple[bytes, bytes]:
    """Wait for a task without a header: its attempt id and its body."""
    empty, attempt_id, body = worker.recv_multipart()
    assert empty == b""
    return attempt_id, body


def hears_nothing(running: Running, worker: Socket) -> bool:
    """Tell whether the broker, when it has done all that it was asked for, has sent nothing to a worker."""
    running.let_the_broker_notice()
    return not worker.poll(0)


def test_more_than_a_thousand_frames_after_any_word_do_not_end_the_broker(running: Running):
    worker = announced(running)
    for number, word in enumerate((b"done x", b"done 1", b"news", b"ready 1", b"done 1 made up"), 1):
        say(worker, word, *[b""] * 1200)
        running.wait_for("malformed", number)
    running.let_the_broker_notice()


def test_a_result_of_more_than_a_thousand_frames_fails_its_attempt(start: Start):
    running = start(tries=1)
    client, worker = running.client(), announced(running)
    client.send(b"task")
    say(worker, b"ready 1")
    attempt_id, _ = task(worker)
    say(worker, b"done 1 " + attempt_id, *[b""] * 1200)
    assert client.recv() == b""
    client.send(b"another")
    assert task(worker)[1] == b"another"  # that it has asked for


def test_a_word_that_is_not_known_asks_for_nothing(running: Running):
    worker, client = announced(running), running.client()
    client.send(b"task")
    for number, word in enumerate((b"news 1", b"", b"done" + b" " * 200), 1):
        say(worker, word)
        running.wait_for("malformed", number)
    assert hears_nothing(running, worker)
