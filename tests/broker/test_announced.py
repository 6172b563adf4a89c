"""Workers that announce themselves, frame by frame on real sockets: part 3 of PROTOCOL.md."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from conftest import Running

from zmqbroker import __version__
from zmqbroker.wire.announced import LONGEST_NAME, parse_announce

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


# Announces


def test_an_announce_that_does_not_fit_is_refused_and_says_why(running: Running):
    worker = running.open(zmq.DEALER, running.addresses.ready)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"protocol": 2}, "an announce of protocol 2: this broker speaks 1"),
        ({"queues": []}, "queues must be a list of 1 to 64 names, not []"),
        ({"queues": "gpu"}, "queues must be a list of 1 to 64 names, not 'gpu'"),
        ({"queues": ["a b"]}, "a queue has a name of 1 to 128 of the characters A-Z a-z 0-9 . _ / -, not 'a b'"),
        ({"pid": "1"}, "pid of an announce must be of type int, not '1'"),
        (
            {"role": "client"},
            "this is the address for workers (READY): a client belongs to the one for clients (REQUESTS)",
        ),
        ({"label": "x" * 65536}, "a bad header: it is larger than 65536 bytes"),
    ]
    for number, (fields, reason) in enumerate(refused, 1):
        announce(worker, **fields)
        header, *rest = worker.recv_multipart()
        told = {"status": "invalid", "attempts": 0, "reason": reason} | ({"at": "READY"} if "role" in fields else {})
        assert (header[:4], json.loads(header[4:]), rest) == (b"ZB1 ", told, [b"", b""])
        running.wait_for("malformed", number)


def test_an_announce_with_an_envelope_of_its_own_is_refused_with_it(running: Running):
    worker = running.open(zmq.DEALER, running.addresses.ready)
    worker.send_multipart([b"mine", b'ZB1 {"role": "worker", "protocol": 1}', b""])
    envelope, header, *rest = worker.recv_multipart()
    assert (envelope, b"an envelope of its own" in header, rest) == (b"mine", True, [b"", b""])


def test_fields_of_an_announce_that_are_not_known_are_ignored(running: Running):
    announced(running, colour="red", version="9", queues=["default", "other"], label="l", host="h", pid=1)


def test_of_a_label_and_a_host_that_are_long_the_beginning_is_kept():
    fields = {"role": "worker", "protocol": 1, "label": "\u05d0" * 10_000, "host": "h" * 1000}
    kept, _ = parse_announce([b"id", b"ZB1 " + json.dumps(fields).encode(), b""])
    assert (kept.label, kept.host) == ("\u05d0" * LONGEST_NAME, "h" * LONGEST_NAME)


def test_who_has_not_announced_itself_speaks_for_an_attempt_and_asks_for_nothing(running: Running):
    client, worker = running.client(), running.worker(zmq.DEALER)
    client.send(b"task")
    attempt_id, _ = worker.take()
    for word in (b"ready 1", b"withdraw 1", b"done 1 " + attempt_id):
        say(worker.ask, word, b"result")
    assert client.recv() == b"result"
    client.send(b"another")
    assert hears_nothing(running, worker.ask)
    say(worker.ask, b"news")  # is no word, and so says that a plain worker is ready
    assert worker.receive()[1] == [b"another"]


# Tasks


def test_a_task_tells_about_itself_to_who_wants_that(start: Start):
    running = start(tries=5, timeout=60.0)
    client, worker = running.client(zmq.DEALER), announced(running, headers=True)
    say(worker, b"ready 2")
    client.send_multipart([b'ZB1 {"key": "k", "tries": 0, "timeout": 0}', b"", b"one", b"two"])
    client.send_multipart([b"", b"plain"])
    about = [{"number": 1, "key": "k", "queue": "default", "attempt": 1, "tries": 0, "timeout": None}]
    about += [{"number": 2, "key": None, "queue": "default", "attempt": 1, "tries": 5, "timeout": 60}]
    for fields, body in zip(about, ([b"one", b"two"], [b"plain"]), strict=True):
        header, empty, attempt_id, *frames = worker.recv_multipart()
        assert (header[:4], json.loads(header[4:])) == (b"ZB1 ", fields)
        assert (empty, len(attempt_id), frames) == (b"", 32, body)


def test_an_announced_worker_may_say_ready_as_a_plain_one_does(running: Running):
    client, worker = running.client(), announced(running, headers=True)
    worker.send_multipart([b"hop", b"", b"ready"])
    client.send(b"task")
    envelope, header, empty, _, body = worker.recv_multipart()
    assert (envelope, header[:4], empty, body) == (b"hop", b"ZB1 ", b"", b"task")


@pytest.mark.parametrize(
    ("word", "argument", "reply", "counter"),
    [
        (b"done", [b"a", b"b"], [b"a", b"b"], "done"),
        (b"done", [], [b""], "done"),
        (b"fail", [b"reason"], [b""], "failed"),
        (b"fail", [], [b""], "failed"),
        (b"reject", [b"reason"], [b""], "failed"),
    ],
)
def test_each_outcome_settles_the_task_and_asks_for_more(
    start: Start, word: bytes, argument: list[bytes], reply: list[bytes], counter: str
):
    running = start(tries=1)
    client, worker = running.client(), announced(running)
    say(worker, b"ready 1")
    client.send(b"task")
    attempt_id, _ = task(worker)
    say(worker, word + b" 1 " + attempt_id, *argument)
    assert client.recv_multipart() == reply
    assert running.count(counter) == 1
    client.send(b"another")
    assert task(worker)[1] == b"another"


def test_what_is_released_waits_again_and_was_no_attempt(running: Running):
    client, worker = running.client(zmq.DEALER), announced(running)
    say(worker, b"ready 1")
    client.send_multipart([b"ZB1 {}", b"", b"task"])
    first, _ = task(worker)
    say(worker, b"release 1 " + first)
    second, _ = task(worker)
    assert (first != second, running.count("released")) == (True, 1)
    say(worker, b"done 0 " + second, b"result")
    assert json.loads(client.recv_multipart()[0][4:])["attempts"] == 1


def test_words_that_do_not_fit_are_counted_and_change_nothing(running: Running):
    client, worker = running.client(), announced(running)
    say(worker, b"ready 1")
    client.send(b"task")
    attempt_id, _ = task(worker)
    malformed = [
        (b"ready",),
        (b"ready 65",),
        (b"ready 1 more",),
        (b"withdraw x",),
        (b"done 1",),
        (b"done -1 " + attempt_id, b"result"),
        (b"done 1 made up", b"result"),
        (b"done 1 " + attempt_id[:-1] + bytes([attempt_id[-1] ^ 1]), b"result"),
        (b"touch",),
        (b"touch " + attempt_id, b"soon"),
        (b"progress " + attempt_id,),
        (b"progress " + attempt_id, b"x" * 4097),
    ]
    for number, word in enumerate(malformed, 1):
        say(worker, *word)
        running.wait_for("malformed", number)
    running.let_the_broker_notice()
    assert running.count("malformed") == len(malformed) + 2  # of which two are its own
    assert running.count("running") == 1
    say(worker, b"done 0 " + attempt_id, b"result")
    assert client.recv() == b"result"
    say(worker, b"done 0 " + attempt_id, b"result")
    running.wait_for("late", 1)


def test_what_is_withdrawn_is_not_handed_out(running: Running):
    client, worker = running.client(), announced(running)
    say(worker, b"ready 5")
    say(worker, b"withdraw 64")
    assert worker.recv_multipart() == [b"ZB1 withdrawn 64", b""]
    client.send(b"task")
    assert hears_nothing(running, worker)
    say(worker, b"ready 1")
    assert task(worker)[1] == b"task"


def test_a_touch_sets_the_deadline_of_a_task_in_hand(start: Start):
    running = start(tries=1)
    client, worker = running.client(), announced(running)
    say(worker, b"ready 1")
    client.send(b"task")
    attempt_id, _ = task(worker)
    say(worker, b"touch " + attempt_id)  # there is no timeout to be had once more
    say(worker, b"touch " + attempt_id, b"0.001")
    assert client.recv() == b""


def test_progress_reaches_all_who_asked_for_it_as_it_was_said(running: Running):
    worker = announced(running)
    clients = [running.client(zmq.DEALER) for _ in range(3)]
    for number, (client, wanted) in enumerate(zip(clients, (b"true", b"false", b"true"), strict=True)):
        client.send_multipart([b'ZB1 {"key": "k", "id": "%d", "progress": %s}' % (number, wanted), b"", b"task"])
        running.wait_for("accepted" if number == 0 else "joined", max(number, 1))
    say(worker, b"ready 1")
    attempt_id, _ = task(worker)
    say(worker, b"progress " + attempt_id, b"whatever")
    running.let_the_broker_notice()
    say(worker, b"done 0 " + attempt_id, b"result")
    for number, client in enumerate(clients):
        if number != 1:
            about = {"status": "progress", "attempts": 1, "key": "k", "number": 1, "id": str(number)}
            header, empty, said = client.recv_multipart()
            assert (json.loads(header[4:]), empty, said) == (about, b"", b"whatever")
        header, _, body = client.recv_multipart()
        assert (json.loads(header[4:])["status"], body) == ("done", b"result")


# Order


def test_what_lies_behind_for_too_long_runs_elsewhere_and_is_dropped(running: Running):
    client, stuck = running.client(zmq.DEALER), announced(running)
    say(stuck, b"ready 2")
    client.send_multipart([b"", b"long"])
    client.send_multipart([b"", b"short"])
    (first, _), (second, _) = task(stuck), task(stuck)
    other = announced(running)
    say(other, b"ready 1")
    again, body = task(other)
    assert (body, again != second, running.count("taken_back")) == (b"short", True, 1)
    assert stuck.recv_multipart() == [b"ZB1 drop " + second, b""]
    say(stuck, b"release 0 " + second)
    running.wait_for("late", 1)
    say(other, b"done 0 " + again, b"short")
    say(stuck, b"done 0 " + first, b"long")
    assert sorted(client.recv_multipart()[1] for _ in range(2)) == [b"long", b"short"]
    assert (running.count("attempts"), running.count("released")) == (3, 0)


def test_a_worker_is_told_to_cancel_what_it_has_in_hand_and_to_drop_what_lies_behind(running: Running):
    client, worker = running.client(zmq.DEALER), announced(running)
    say(worker, b"ready 2")
    for key in (b"1", b"2"):
        client.send_multipart([b'ZB1 {"key": "%s"}' % key, b"", b"task"])
    (first, _), (second, _) = task(worker), task(worker)
    for key, told in ((b"1", b"cancel " + first), (b"2", b"drop " + second)):
        client.send_multipart([b'ZB1 {"key": "%s", "cancel": true}' % key, b"", b""])
        assert worker.recv_multipart() == [b"ZB1 " + told, b""]
        assert json.loads(client.recv_multipart()[0][4:])["status"] == "cancelled"


# A connection after another


def test_an_attempt_that_is_named_goes_on_and_one_that_nobody_knows_is_called_off(running: Running):
    client = running.client()
    client.send(b"task")
    with running.elsewhere() as peers:
        lost = peers.open(zmq.DEALER, running.addresses.ready)
        announce(lost)
        say(lost, b"ready 1")
        assert lost.recv_multipart() == WELCOME
        attempt_id, _ = task(lost)
        never_was = attempt_id[:23] + b"\x09" + attempt_id[24:]
        worker = announced(running, attempt_id, b"nonsense", never_was)
        for unknown in (b"nonsense", never_was):
            assert worker.recv_multipart() == [b"ZB1 cancel " + unknown, b""]
    running.let_the_broker_notice()
    assert not client.poll(300)  # longer than what a lost worker is given
    say(worker, b"done 0 " + attempt_id, b"result")
    assert client.recv() == b"result"
    assert (running.count("attempts"), running.count("lost")) == (1, 1)


def test_what_lies_behind_at_a_worker_that_is_lost_waits_again_at_once(running: Running):
    client = running.client(zmq.DEALER)
    with running.elsewhere() as peers:
        lost = peers.open(zmq.DEALER, running.addresses.ready)
        announce(lost, serial=True)
        say(lost, b"ready 2")
        for body in (b"1", b"2"):
            client.send_multipart([b"", body])
        assert lost.recv_multipart() == WELCOME
        task(lost), task(lost)
    worker = announced(running)
    say(worker, b"ready 1")
    for body in (b"2", b"1"):
        attempt_id, given = task(worker)
        assert given == body
        say(worker, b"done 1 " + attempt_id, body)
    counts = {name: running.count(name) for name in ("lost", "taken_back", "retried")}
    assert counts == {"lost": 1, "taken_back": 1, "retried": 1}


def test_a_second_announce_takes_the_place_of_the_first_and_what_was_asked_for_stands(running: Running):
    worker = announced(running)
    say(worker, b"ready 1")
    announce(worker, headers=True)
    assert worker.recv_multipart() == WELCOME
    running.client().send(b"task")
    header, empty, _, body = worker.recv_multipart()
    assert (header[:4], empty, body) == (b"ZB1 ", b"", b"task")


def test_a_result_by_the_other_socket_counts_and_is_no_outcome(running: Running):
    client, worker = running.client(), announced(running)
    say(worker, b"ready 1")
    client.send(b"task")
    attempt_id, _ = task(worker)
    running.open(zmq.PUSH, running.addresses.results).send_multipart([attempt_id, b"result"])
    assert client.recv() == b"result"
    assert worker.recv_multipart() == [b"ZB1 cancel " + attempt_id, b""]
