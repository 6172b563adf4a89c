"""What a process writes into its slot, and what its supervisor reads there."""

import os
from collections.abc import Iterator
from math import inf
from time import monotonic

import pytest

from zmqbroker.wire.announced import task_header
from zmqbroker.wire.requests import LONGEST_KEY
from zmqbroker.worker.limits import InHand
from zmqbroker.worker.slot import SIZE, Slot, anonymous_file

BROOM = "\N{BROOM}"
HEADER = task_header(7, "key", "default", 1, 3, 2.5)


@pytest.fixture
def slot() -> Iterator[Slot]:
    descriptor = anonymous_file(bytes(SIZE))
    slot = Slot(descriptor)
    os.close(descriptor)
    yield slot
    slot.close()


def test_what_one_side_has_written_the_other_one_reads_even_when_the_first_is_gone():
    descriptor = anonymous_file(bytes(SIZE))
    writer, reader = Slot(descriptor), Slot(descriptor)
    os.close(descriptor)
    writer.write_counts(9, 3)
    writer.begin(b"attempt", HEADER, 100.0)
    writer.close()
    assert reader.counts() == (9, 3)
    assert reader.in_hand() == InHand(100.0, 102.5, b"attempt", "task 7 (key)")
    reader.close()


def test_there_is_no_task_in_hand_before_the_first_and_between_two(slot: Slot):
    assert slot.in_hand() is None
    slot.begin(b"one", HEADER, 100.0)
    slot.end()
    assert slot.in_hand() is None
    slot.begin(b"two", b"", 101.0)
    assert slot.in_hand() == InHand(101.0, inf, b"two")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"", "a task"),
        (task_header(7, None, "default", 1, 3, None), "task 7"),
        (b"ZB1 {", "a task"),
        (b'ZB1 {"timeout": "soon", "key": []}', "a task ([])"),
    ],
)
def test_a_task_that_tells_no_timeout_has_no_deadline(slot: Slot, header: bytes, name: str):
    slot.begin(b"attempt", header, 100.0)
    assert slot.in_hand() == InHand(100.0, inf, b"attempt", name)


def test_the_longest_key_hides_no_deadline(slot: Slot):
    slot.begin(bytes(32), task_header(7, BROOM * LONGEST_KEY, "default", 1, 3, 2.5), 100.0)
    assert slot.in_hand() == InHand(100.0, 102.5, bytes(32), f"task 7 ({BROOM * LONGEST_KEY})")


def test_a_touch_moves_the_deadline_to_so_many_seconds_from_now_or_to_the_timeout_once_more(slot: Slot):
    for seconds, more in ((30.0, 30.0), (None, 2.5)):
        slot.begin(b"attempt", HEADER, 100.0)
        before = monotonic()
        slot.touch(seconds)
        after = monotonic()
        task = slot.in_hand()
        assert task is not None
        assert task.began == 100.0
        assert before + more <= task.deadline <= after + more


def test_a_touch_without_seconds_gives_a_task_without_a_timeout_no_deadline(slot: Slot):
    slot.begin(b"attempt", b"", 100.0)
    slot.touch(None)
    assert slot.in_hand() == InHand(100.0, inf, b"attempt")


def test_the_touches_of_one_task_are_not_those_of_the_next(slot: Slot):
    slot.begin(b"one", HEADER, 100.0)
    slot.touch(1000.0)
    slot.end()
    slot.begin(b"two", HEADER, 200.0)
    assert slot.in_hand() == InHand(200.0, 202.5, b"two", "task 7 (key)")


def test_a_header_of_any_length_leaves_the_rest_of_the_slot_alone(slot: Slot):
    slot.write_counts(9, 3)
    slot.begin(b"attempt", task_header(7, "k" * 100_000, "default", 1, 3, 2.5), 100.0)
    assert slot.in_hand() == InHand(100.0, inf, b"attempt")  # the timeout stands at its end
    assert slot.counts() == (9, 3)
