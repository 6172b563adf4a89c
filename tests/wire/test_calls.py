"""Calls of functions and their results, as frames."""

import pytest

from zmqbroker.wire import MalformedError
from zmqbroker.wire.calls import (
    CALL,
    RAISED,
    RETURNED,
    Python,
    first_frame,
    is_for_calls,
    is_marked,
    parse_call,
    parse_raised,
    raised_body,
)

OWN = Python("CPython 3.12", "3.1.0")
FIRST = b'ZB1 call {"python": "CPython 3.12", "cloudpickle": "3.1.0"}'


def test_a_call_says_who_has_pickled_it():
    assert first_frame(CALL, OWN) == FIRST
    assert parse_call([FIRST, b"pickle", b"buffer"]) == (OWN, [b"pickle", b"buffer"])
    assert parse_call([memoryview(FIRST)]) == (OWN, [])  # type: ignore[list-item]


def test_fields_that_are_not_known_are_ignored():
    more = b'ZB1 call {"python":"CPython 3.12","cloudpickle":"3.1.0","more":[1]}'
    assert parse_call([more, b"pickle"]) == (OWN, [b"pickle"])


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"task",
        b"ZB1 call",
        b"ZB1 call ",
        b"ZB1 call 5",
        b"ZB1 call {}",
        b"ZB1 call " + b"[" * 10_000,
        b"ZB1 chunk [1]",
    ],
)
def test_what_is_no_call_is_told_apart(first):
    with pytest.raises(MalformedError):
        parse_call([first, b"pickle"])


def test_results_are_told_apart_by_their_marks():
    for mark in (RETURNED, RAISED):
        body = [first_frame(mark, OWN), b"pickle"]
        assert [is_marked(body, each) for each in (CALL, RETURNED, RAISED)] == [False, mark == RETURNED, mark == RAISED]


def test_what_was_raised_has_its_traceback_as_text():
    body = raised_body(first_frame(RAISED, OWN), "Zeile ä \udcff", [b"pickle", b"buffer"])
    assert parse_raised(body) == ("Zeile ä ?", [b"pickle", b"buffer"])
    assert parse_raised(body[:1]) == ("", [])


@pytest.mark.parametrize(
    ("queue", "expected"),
    [("python", True), ("python.gpu", True), ("python.", False), ("pythons", False), ("default", False), (None, False)],
)
def test_queues_for_calls_have_names_of_their_own(queue, expected):
    assert is_for_calls(queue) is expected
