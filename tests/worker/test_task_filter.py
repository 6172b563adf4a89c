"""`TaskFilter`: log records tell which task they belong to."""

import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from library_support import working
from worker_support import BareBroker

from zmqbroker import Fail, Reject, TaskFilter

HOST = socket.gethostname()


class Kept(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    log, kept = logging.getLogger("test.pictures"), Kept()
    kept.addFilter(TaskFilter())
    log.addHandler(kept)
    yield kept
    log.removeHandler(kept)


@pytest.fixture
def bare() -> Iterator[BareBroker]:
    with BareBroker() as bare:
        yield bare


def test_a_record_tells_its_task_and_its_worker(bare: BareBroker, kept: Kept):
    log = logging.getLogger("test.pictures")

    with working(bare.ready, lambda _: log.warning("at it"), label="shrink"):
        worker = bare.met()
        bare.give(worker, b"id", b"task", number=17, key="order 1\n")
        bare.answer()
        bare.give(worker, b"id", b"task", number=18, key=None)
        bare.answer()
        bare.give(worker, b"plain", b"task")
        bare.answer()
    log.warning("at nothing")
    told = [(record.task, record.task_number, record.task_key, record.worker) for record in kept.records]
    name = f"shrink ({HOST}:{os.getpid()})"
    assert told == [
        (r"task 17 (order 1\n)", 17, "order 1\n", name),
        ("task 18", 18, None, name),
        ("a task", None, None, name),
        ("", None, None, ""),
    ]


def test_a_record_of_no_task_may_name_the_worker_all_the_same(kept: Kept):
    kept.addFilter(TaskFilter("shrink"))
    logging.getLogger("test.pictures").warning("at nothing")
    assert kept.records[0].worker == "shrink"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Fail("not\nnow"), r"task 17 (order 1): the handler failed in attempt 2: not\nnow"),
        (Reject("never"), "task 17 (order 1): the handler has rejected it in attempt 2: never"),
    ],
)
def test_a_verbose_log_tells_what_a_handler_has_said_on_purpose(
    bare: BareBroker, caplog: pytest.LogCaptureFixture, error: Exception, line: str
):
    def handle(_: bytes) -> None:
        raise error

    with working(bare.ready, handle):
        worker = bare.met()
        for level in (logging.INFO, logging.DEBUG):
            caplog.set_level(level, "zmqbroker.worker")
            bare.give(worker, b"id", b"task", number=17, key="order 1", attempt=2)
            bare.answer()
    assert caplog.messages == [line]
