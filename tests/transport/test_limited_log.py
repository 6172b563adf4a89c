"""The limited log: what it says, and when, in literal seconds."""

import logging
from collections.abc import Iterator
from math import inf

import pytest

from zmqbroker.transport.limited_log import INTERVAL, LimitedLog, log_safely, task_name

BAD = "ignored"


class Kept(logging.Handler):
    """Keeps the lines, and perhaps raises."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is not None:
            raise self.error
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    log, kept = logging.getLogger("test.limited"), Kept()
    log.addHandler(kept)
    log.propagate = False
    yield kept
    log.removeHandler(kept)


@pytest.fixture
def limited(kept: Kept) -> LimitedLog:
    return LimitedLog(logging.getLogger("test.limited"))


def test_a_second_line_of_a_kind_is_held_back_until_the_interval_ends(limited: LimitedLog, kept: Kept):
    limited.tell(BAD, "one", 10.0)
    assert limited.next_due() == inf
    limited.tell(BAD, "two", 11.0)
    assert kept.lines == ["one"]
    assert limited.next_due() == 10.0 + INTERVAL
    limited.flush(14.9)
    assert kept.lines == ["one"]
    limited.flush(15.0)
    assert kept.lines == ["one", "two"]
    assert limited.next_due() == inf


def test_the_end_of_the_interval_says_how_many_were_held_back(limited: LimitedLog, kept: Kept):
    for second in range(5):
        limited.tell(BAD, f"at {second}", float(second))
    limited.flush(5.0)
    assert kept.lines == ["at 0", "at 4 (3 more like this were not logged)"]
    limited.tell(BAD, "at 6", 6.0)  # a line was just written
    limited.flush(10.0)
    assert kept.lines[2:] == ["at 6"]


def test_what_comes_after_the_interval_tells_of_what_nobody_flushed(limited: LimitedLog, kept: Kept):
    for second in (0.0, 1.0, 2.0, 7.0):
        limited.tell(BAD, f"at {second:g}", second)
    assert kept.lines == ["at 0", "at 7 (2 more like this were not logged)"]
    limited.flush(inf)
    assert len(kept.lines) == 2


def test_kinds_do_not_hold_each_other_back(limited: LimitedLog, kept: Kept):
    for second in (0.0, 1.0):
        limited.tell(BAD, "bad", second)
        limited.tell("worse", "worse", second + 0.5)
    assert kept.lines == ["bad", "worse"]
    assert limited.next_due() == 5.0
    limited.flush(5.0)
    assert kept.lines == ["bad", "worse", "bad"]
    assert limited.next_due() == 5.5


def test_at_the_end_all_is_said(limited: LimitedLog, kept: Kept):
    for text in ("one", "two", "three"):
        limited.tell(BAD, text, 1.0)
    limited.flush(inf)
    assert kept.lines == ["one", "three (1 more like this were not logged)"]


def test_a_line_moves_no_cursor_and_its_error_has_a_traceback(limited: LimitedLog, kept: Kept):
    limited.tell(BAD, "a\nb", 1.0, ValueError("why"))
    assert kept.lines == ["a\\nb\nValueError: why"]


@pytest.mark.parametrize(
    "error", [ValueError("I/O operation on closed file"), OSError(5, "gone"), RuntimeError(), SystemExit(3)]
)
def test_a_log_that_raises_is_no_reason_to_end(limited: LimitedLog, kept: Kept, error: BaseException):
    kept.error = error
    limited.tell(BAD, "one", 1.0)
    limited.tell(BAD, "two", 2.0)
    limited.flush(inf)
    log_safely(logging.getLogger("test.limited").warning, "three")
    assert kept.lines == []


def test_a_kind_that_is_to_be_rarer_is_logged_at_intervals_that_double(kept: Kept):
    limited = LimitedLog(logging.getLogger("test.limited"), ["a port scan"])
    for second in range(3600):
        limited.tell("a port scan", str(second), float(second))
        limited.flush(float(second))
    assert [line.split(" ")[0] for line in kept.lines] == [
        "0",
        "5",
        "15",
        "35",
        "75",
        "155",
        "315",
        "635",
        "1235",
        "1835",
        "2435",
        "3035",
    ]


def test_a_log_of_several_lines_holds_back_what_is_more(kept: Kept):
    limited = LimitedLog(logging.getLogger("test.limited"), lines=2)
    for second in range(4):
        limited.tell(BAD, str(second), float(second))
    limited.flush(5.0)
    for second in range(6, 12):
        limited.tell(BAD, str(second), float(second))
    assert kept.lines == [
        "0",
        "1",
        "3 (1 more like this were not logged)",
        "6",
        "10 (3 more like this were not logged)",
        "11",
    ]


def test_what_is_held_back_and_replaced_is_not_put_into_words(limited: LimitedLog, kept: Kept):
    said = []
    for number in range(4):
        limited.tell(BAD, lambda number=number: said.append(number) or str(number), float(number))  # type: ignore[misc]
    limited.flush(inf)
    assert kept.lines == ["0", "3 (2 more like this were not logged)"]
    assert said == [0, 3]


def test_lines_of_another_level_are_no_warnings(kept: Kept):
    kept.setLevel(logging.WARNING)
    log = logging.getLogger("test.limited")
    log.setLevel(logging.INFO)
    LimitedLog(log, level=logging.INFO).tell(BAD, "one", 0.0)
    assert kept.lines == []
    kept.setLevel(logging.INFO)
    LimitedLog(log, level=logging.INFO).tell(BAD, "two", 0.0)
    assert kept.lines == ["two"]


@pytest.mark.parametrize(
    ("number", "key", "name"),
    [
        (17, "order 1", "task 17 (order 1)"),
        (17, None, "task 17"),
        (None, "a\nb", r"a request (a\nb)"),
        (0, None, "a request"),
    ],
)
def test_a_task_is_called_by_number_and_key(number: int | None, key: str | None, name: str):
    assert task_name(number, key) == name
