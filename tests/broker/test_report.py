"""What the broker's log holds back, it tells when the interval ends, though nothing else happens."""

import logging
import re
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
import zmq
from conftest import Running

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.matching import FIRST_SILENCE
from zmqbroker.broker.refusals import Refusals, Stranger
from zmqbroker.broker.report import MOST_MOVES, Report
from zmqbroker.transport import limited_log
from zmqbroker.wire import EXPIRED, UNAVAILABLE, Announce, Header

LINE = "a request invalid: a request without an empty frame before its body"
Start = Callable[..., Running]


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    log, handler = logging.getLogger("zmqbroker"), Lines()
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


def send_malformed(running: Running, times: int) -> None:
    """Have so many requests answered that are malformed."""
    client = running.client(zmq.DEALER)
    for _ in range(times):
        client.send(b"malformed")
        client.recv_multipart()


def test_a_report_is_due_only_while_something_is_held_back(logged: list[str]):
    report = Report()
    assert report.due == inf
    report.undeliverable(10.0)
    assert report.due == inf
    report.undeliverable(11.0)
    report.no_descriptors(12.0)
    report.no_descriptors(13.0)
    assert report.due == 15.0
    report.flush(15.0)
    assert (len(logged), report.due) == (3, 17.0)
    report.flush(inf)
    assert (len(logged), report.due) == (4, inf)


def test_an_idle_broker_says_what_it_held_back_when_the_interval_ends(
    start: Start, logged: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limited_log, "INTERVAL", 1.0)
    running = start()
    send_malformed(running, 4)
    running.wait_until(lambda: len(logged) > 1)
    assert set(logged) <= {LINE, *(f"{LINE} ({number} more like this were not logged)" for number in (1, 2))}


def test_a_broker_that_ends_says_what_it_held_back(start: Start, logged: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limited_log, "INTERVAL", 3600.0)
    running = start()
    send_malformed(running, 4)
    assert logged == [LINE]
    running.stop()
    assert logged == [LINE, f"{LINE} (2 more like this were not logged)"]


def test_a_verbose_log_names_the_worker_of_an_attempt(logged: list[str]):
    core, report = Dispatcher(), Report()
    logging.getLogger("zmqbroker").setLevel(logging.DEBUG)
    try:
        core.announce(b"w", Announce(label="a\n", host="h", pid=7, serial=True), [], 0.0)
        core.ask(b"w", 2)
        for number in range(2):
            core.submit([b"c"], [b"task"], 0.0)
            pair = core.hand_out(0.0)
            assert pair is not None
            report.attempt(pair[1])
            assert logged[number] == rf"task {number + 1}: attempt 1 at a\n (h:7)"
    finally:
        logging.getLogger("zmqbroker").setLevel(logging.NOTSET)


def test_a_verbose_log_tells_of_a_failed_attempt_before_the_next_one(
    start: Start, logged: list[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "zmqbroker")
    running = start(tries=2)
    worker = running.worker(zmq.DEALER)
    running.client(zmq.DEALER).send_multipart([b"", b"task"])
    for number in range(2):
        worker.ready()
        worker.ready()
        attempt_id, _ = worker.receive()
        worker.say(b"fail", attempt_id, b"no %d" % number)
    running.wait_for("failed", 1)
    running.stop()
    assert logged[:3] == ["task 1: attempt 1", "task 1: attempt 1 failed: no 0; again", "task 1: attempt 2"]
    history = r"in the queue default after 2 attempts and [\d.]+ s, last at a plain worker"
    assert re.fullmatch(rf"task 1 failed {history}: no 1", logged[3])


@pytest.mark.parametrize("fields", [b"", b', "durable": true'])
def test_an_outcome_that_is_had_once_more_has_not_gone_wrong_once_more(
    start: Start, logged: list[str], tmp_path: Path, fields: bytes
):
    running = start(tries=1, store=tmp_path / "store")
    worker = running.worker()
    request = [b'ZB1 {"key": "mine"%s}' % fields, b"", b"task"]
    first, again = running.client(zmq.DEALER), running.client(zmq.DEALER)
    first.send_multipart(request)
    worker.say(b"reject", worker.take()[0], b"no")
    assert b"failed" in first.recv_multipart()[0]
    again.send_multipart(request)
    assert b"failed" in again.recv_multipart()[0]
    running.stop()
    assert len([line for line in logged if "(mine) failed" in line]) == 1


def told_of(core: Dispatcher, report: Report, now: float) -> None:
    """Tell of workers that have come or left, as the loop does."""
    for worker, has_come in core.moves:
        (report.came if has_come else report.left)(worker, now)
    core.moves.clear()


def hand_out(core: Dispatcher, now: float, key: str | None = None) -> bytes:
    """Have a task handed out, and return its attempt id."""
    core.submit([b"c"], [b"task"], now, Header(key=key))
    pair = core.hand_out(now)
    assert pair is not None
    return pair[1].attempt_id


def test_a_failure_is_told_with_queue_attempts_seconds_and_worker(logged: list[str]):
    core, report = Dispatcher(tries=2), Report()
    core.announce(b"w", Announce(("gpu",), label="resize", host="vm", pid=7, serial=True), [], 1.0)
    core.submit([b"c"], [b"task"], 1.5, Header(key="order 1", queue="gpu"))
    for now in (2.0, 3.0):
        core.ask(b"w", 1)
        pair = core.hand_out(now)
        assert pair is not None
        core.fail(pair[1].attempt_id, "bad\ninput", now + 0.25)
    core.submit([b"c"], [b"task"], 4.0, Header(key="never\nrun", expires=2.0))
    core.expire(6.0)
    core.refuse([b"c"], Header(key="later"), UNAVAILABLE, "no more may wait")
    for task in core.settled:
        report.failure(task, 6.0 if task.status == EXPIRED else 3.25)
    report.flush(inf)
    assert logged == [
        "task 1 (order 1) failed in the queue gpu after 2 attempts and 1.75 s, last at resize (vm:7): bad\\ninput",
        r"task 2 (never\nrun) expired in the queue default after 0 attempts and 2 s: no result within 2 s",
        "a request (later) unavailable: no more may wait",
    ]


def test_a_worker_has_the_same_name_in_each_line_whatever_else_is_escaped_there(logged: list[str]):
    core, report = Dispatcher(tries=1), Report()
    core.announce(b"w", Announce(label="größe\u202e", host="vm", pid=7, serial=True), [], 0.0)
    core.ask(b"w", 1)
    core.fail(hand_out(core, 0.0, "schlüssel\n"), "für\nnichts", 0.5)
    report.failure(core.settled[0], 0.5)
    assert logged == [
        r"task 1 (schlüssel\n) failed in the queue default after 1 attempt and 0.5 s, "
        r"last at größe\u202e (vm:7): für\nnichts"
    ]


def test_workers_that_come_and_go_are_told_of_with_what_they_were_at(logged: list[str]):
    core, report = Dispatcher(), Report()
    logging.getLogger("zmqbroker").setLevel(logging.INFO)
    try:
        resize = Announce(("gpu", "default"), label="resize\n", host="vm", pid=7, serial=True)
        core.announce(b"w", resize, [], 0.0)
        core.announce(b"w", resize, [], 0.0)  # again, which is nothing new
        core.ask(b"w", 3)
        core.announce(b"x", Announce(tuple(f"q{number}" for number in range(7)), host="vm", pid=8), [], 0.0)
        core.ready([b"plain"])
        hand_out(core, 0.0, "order 1")
        hand_out(core, 0.0)
        told_of(core, report, 0.0)
        for name in (b"w", b"x", b"plain"):
            core.lose_worker(name, 1.0)
        told_of(core, report, 1.0)
    finally:
        logging.getLogger("zmqbroker").setLevel(logging.NOTSET)
    assert logged == [
        r"resize\n (vm:7) has come: it asks from gpu, default",
        "vm:8 has come: it asks from q0, q1, q2, q3, q4 and 2 more",
        r"resize\n (vm:7) has left with task 1 (order 1) in hand",
        "vm:8 has left",
    ]


def test_a_worker_that_comes_back_is_told_of_after_it_was_lost(logged: list[str]):
    core = Dispatcher()
    announce = Announce(host="vm", pid=7, serial=True)
    core.announce(b"w", announce, [], 0.0)
    core.ask(b"w", 1)
    attempt_id = hand_out(core, 0.0)
    core.announce(b"x", announce, [attempt_id], 1.0)  # before anybody has noticed that the other one is gone
    assert [(move.worker.id, move.has_come) for move in core.moves] == [(b"w", True), (b"w", False), (b"x", True)]


def test_many_workers_that_come_at_once_do_not_flood_the_log(logged: list[str]):
    core, report = Dispatcher(), Report()
    logging.getLogger("zmqbroker").setLevel(logging.INFO)
    try:
        for number in range(10_000):
            core.announce(b"%d" % number, Announce(host="vm", pid=number), [], 0.0)
        told_of(core, report, 0.0)
        assert len(logged) == MOST_MOVES
        assert report.due == limited_log.INTERVAL
        report.flush(inf)
    finally:
        logging.getLogger("zmqbroker").setLevel(logging.NOTSET)
    more = 10_000 - MOST_MOVES - 1
    assert logged[-1] == f"vm:9999 has come: it asks from default ({more} more like this were not logged)"


def test_very_many_queues_that_no_worker_asks_from_are_a_few_lines(logged: list[str]):
    report, core = Report(), Dispatcher()
    for number in range(1000):
        core.submit([b"client"], [b"task"], 0.0, Header(queue=f"queue-{number}"))
    core.expire(FIRST_SILENCE)
    for queue in core.unserved:
        report.unserved(queue, FIRST_SILENCE)
    report.flush(inf)
    assert logged == [
        "no worker asks from the queue queue-0: 1 tasks wait there",
        "no worker asks from the queue queue-999: 1 tasks wait there (998 more like this were not logged)",
    ]


def test_one_who_is_refused_again_and_again_is_told_of_ever_more_rarely_and_hides_nobody_else(logged: list[str]):
    report, refusals = Report(), Refusals()
    eve, mallory = (Stranger("10.0.0.5", key * 40, "requests", "unknown") for key in ("e", "m"))
    told_at = []
    for second in range(0, 600, 4):
        before = len(logged)
        report.refused(refusals.note(eve, float(second)), float(second))
        report.flush(float(second))
        told_at += [second] * (len(logged) - before)
    assert told_at == [0, 4, 12, 24, 44, 84, 164, 324]
    report.refused(refusals.note(mallory, 600.0), 600.0)
    assert logged[-1] == f"refused at REQUESTS: 10.0.0.5 with the key {'m' * 40}: unknown"
    assert f"with the key {'e' * 40}, 82 times so far: unknown" in logged[-2]


def test_a_worker_that_comes_is_told_of_with_its_owner(logged: list[str]):
    core, report = Dispatcher(), Report()
    logging.getLogger("zmqbroker").setLevel(logging.INFO)
    try:
        core.announce(b"w", Announce(host="vm", pid=7), [], 0.0, "alice")
        told_of(core, report, 0.0)
    finally:
        logging.getLogger("zmqbroker").setLevel(logging.NOTSET)
    assert logged == ["vm:7 of alice has come: it asks from default"]
