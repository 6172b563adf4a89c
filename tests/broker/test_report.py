"""What the broker's log holds back, it tells when the interval ends, though nothing else happens."""

import logging
from collections.abc import Callable, Iterator
from math import inf

import pytest
import zmq
from conftest import Running

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.matching import FIRST_SILENCE
from zmqbroker.broker.report import Report
from zmqbroker.transport import limited_log
from zmqbroker.wire import Announce, Header

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
    assert logged[:4] == [
        "task 1: attempt 1",
        "task 1: attempt 1 failed: no 0; again",
        "task 1: attempt 2",
        "task 1 failed: no 1",
    ]


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
