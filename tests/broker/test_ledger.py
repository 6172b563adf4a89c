"""What the control socket's answers stand on: all tasks by number, how long things took, and who has waited longest."""

import time

import pytest
from core_support import PARALLEL, Core

from zmqbroker.broker import tasks
from zmqbroker.broker.ledger import MOST_NUMBERS, SELDOM, Ledger
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.statistics import BOUNDS, BUCKETS, Times
from zmqbroker.broker.task import Task
from zmqbroker.wire import Announce, Header


def task(number: int) -> Task:
    return Task([], [], Queue("default"), number=number)


def ledger(*numbers: int) -> Ledger:
    made = Ledger()
    for number in numbers:
        made.add(number, task(number))
    return made


def page(kept: Ledger, number: int) -> tuple[list[int], int | None]:
    found, cursor = kept.after(number)
    return [one.number for one in found], cursor


# Pages of the ledger


def test_an_empty_ledger_has_an_empty_page():
    assert page(Ledger(), 0) == ([], None)


def test_a_page_begins_after_a_number_that_need_not_be_there():
    kept = ledger(1, 2, 4)
    assert [page(kept, number)[0] for number in range(5)] == [[1, 2, 4], [2, 4], [4], [4], []]


def test_a_gap_of_any_length_is_passed_over():
    kept = ledger(1, 10**12, 10**12 + 1)
    assert page(kept, 0) == ([1, 10**12, 10**12 + 1], None)
    assert page(kept, 10**12) == ([10**12 + 1], None)
    assert page(kept, 10**18) == ([], None)


def test_what_is_removed_is_in_no_page():
    kept = ledger(1, 2, 5000, 9000)
    for number in (1, 5000):
        kept.remove(number)
    assert page(kept, 0)[0] == [2, 9000]
    assert kept.get(1) is None
    assert len(kept) == 2


def test_pages_have_so_many_steps_and_all_tasks_are_in_one():
    kept = ledger(*range(1, 3 * MOST_NUMBERS + 2))
    for number in range(2, 2 * MOST_NUMBERS + 1):
        kept.remove(number)
    pages, cursor = [], 0
    while cursor is not None:
        found, cursor = page(kept, cursor)
        pages.append(found)
    assert [len(page) for page in pages] == [1, 0, MOST_NUMBERS, 1]
    assert [number for page in pages for number in page] == [1, *range(2 * MOST_NUMBERS + 1, 3 * MOST_NUMBERS + 2)]


def test_the_last_page_of_just_so_many_steps_is_the_last():
    assert ledger(*range(1, MOST_NUMBERS + 1)).after(0)[1] is None


def test_the_last_page_of_very_many_tasks_takes_no_longer_than_the_first():
    kept, one = Ledger(), task(1)
    for number in range(1, 1_000_001):
        kept.add(number, one)
    began = time.thread_time()
    for _ in range(100):
        page(kept, 999_990)
    assert time.thread_time() - began < 0.1  # seconds; a walk to the last ones takes more


def test_numbers_of_settled_tasks_are_forgotten():
    kept = ledger(1)
    for number in range(2, 10 * SELDOM):
        kept.add(number, task(number))
        kept.remove(number)
    assert len(kept._numbers) <= 2 * len(kept) + SELDOM


# Buckets of times


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (63e-6, 0),
        (65e-6, 1),
        (255e-6, 1),
        (257e-6, 2),
        (1.0, 7),
        (1.1, 8),
        (17_000.0, 14),
        (18_000.0, 15),
        (1e9, 15),
        (1e14, 15),
    ],
)
def test_a_time_is_counted_in_the_bucket_that_it_belongs_to(seconds: float, bucket: int):
    times = Times()
    times.add(seconds)
    assert times.counts.index(1) == bucket
    assert times.total == seconds


@pytest.mark.parametrize("bucket", range(BUCKETS - 1))
def test_the_bounds_are_those_of_the_buckets(bucket: int):
    times = Times()
    times.add(0.99 * BOUNDS[bucket])
    times.add(1.01 * BOUNDS[bucket])
    assert [times.counts[bucket], times.counts[bucket + 1]] == [1, 1]


# What comes too late


def late(core: Core, queue: str) -> int:
    return core.queues.find(queue).statistics.late


def test_a_result_for_a_task_that_is_settled_is_late_at_its_queue():
    core = Core(tries=1)
    core.tasks("a", "b", queue="gpu")
    core.join("worker", 2, Announce(label="worker", queues=("gpu",)))
    for _, task in core.take():
        attempt_id = task.attempt_id
        core.reject(attempt_id, "no", 1.0)
        core.result(attempt_id, [b"result"], 2.0)
    assert (late(core, "gpu"), late(core, "default"), core.counters.late) == (2, 0, 2)


def test_the_result_of_an_earlier_attempt_is_late_when_a_later_one_was_first():
    core = Core(timeout=1.0)
    core.tasks("a")
    core.join("slow", 1)
    ((_, task),) = core.take()
    slow = task.attempt_id
    core.expire(1.0)
    core.join("spare", 1)
    ((_, task),) = core.take(1.0)
    core.fail(slow, "no", 1.5)  # a verb for an attempt that does not run
    core.done("spare", task.attempt_id, 2.0)
    core.done("slow", slow, 3.0)
    assert late(core, "default") == core.counters.late == 2


def test_the_result_of_another_run_of_the_broker_is_late_at_no_queue():
    core, other = Core(run=b"12345678"), Core(run=b"87654321")
    for one in (core, other):
        one.tasks("a")
        one.join("worker", 1)
        ((_, task),) = one.take()
        attempt_id = task.attempt_id
        one.reject(attempt_id, "no", 1.0)
    core.result(attempt_id, [b"result"], 2.0)
    assert (late(core, "default"), core.counters.late) == (0, 1)


def test_tasks_that_may_have_a_late_result_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(tasks, "MOST_OUTLIVED", 3)
    core = Core()
    core.join("worker", 10, PARALLEL)
    core.tasks(*"abcde")
    for _, task in core.take():
        core.cancel(task, "no", 1.0)
    assert list(core._outlived) == [3, 4, 5]


# The oldest waiting task


STEPS_OF_A_LOOK = 100


def oldest(core: Core) -> str | None:
    found = core.queues.default.oldest(STEPS_OF_A_LOOK)
    return None if found is None else bytes(found.body[0]).decode()


def submit(core: Core, name: str, now: float, **fields: object) -> None:
    core.submit([name.encode()], [name.encode()], now, Header(key=name, **fields))  # type: ignore[arg-type]


def test_of_no_waiting_tasks_none_is_the_oldest():
    assert oldest(Core()) is None


def test_the_oldest_task_is_found_in_any_group_and_behind_any_priority():
    core = Core()
    submit(core, "a", 3.0, group="one")
    submit(core, "b", 2.0, group="two")
    submit(core, "c", 1.0, priority=-5, group="one")
    submit(core, "d", 4.0, priority=5, group="two")
    assert oldest(core) == "c"


def test_a_task_that_waits_no_more_is_not_the_oldest():
    core = Core()
    for name, now in (("a", 0.0), ("b", 1.0), ("c", 2.0)):
        submit(core, name, now)
    core.cancel(core.known_by("a"), "no", 3.0)  # type: ignore[arg-type]
    assert oldest(core) == "b"
    core.join("worker", 1)
    assert core.give() == [("worker", "b")]
    assert oldest(core) == "c"


def test_a_task_that_waits_again_is_the_oldest_by_its_acceptance():
    core = Core()
    submit(core, "a", 0.0)
    submit(core, "b", 1.0)
    core.join("worker", 1)
    ((_, first),) = core.take(2.0)
    core.failed("worker", first.attempt_id, 3.0)
    assert oldest(core) == "a"


def test_a_look_for_the_oldest_takes_so_many_steps_and_the_next_one_goes_on():
    core = Core()
    for number in range(2 * STEPS_OF_A_LOOK + 10):
        submit(core, f"{number}", float(number))
    for number in range(2 * STEPS_OF_A_LOOK):  # those at the front, which leave stale entries
        core.cancel(core.known_by(f"{number}"), "no", 1000.0)  # type: ignore[arg-type]
    assert [oldest(core) for _ in range(3)] == [None, None, f"{2 * STEPS_OF_A_LOOK}"]


def test_what_a_look_for_the_oldest_drops_does_not_disturb_the_order():
    core = Core()
    for name in "abcd":
        submit(core, name, 0.0)
    for name in "ac":
        core.cancel(core.known_by(name), "no", 1.0)  # type: ignore[arg-type]
    assert oldest(core) == "b"
    core.join("worker", 4, PARALLEL)
    assert [name for _, name in core.give()] == ["b", "d"]


# Older ones that come later, and pages from the end


def test_an_older_task_that_comes_later_is_in_its_place_and_once():
    kept = ledger(2, 4, 6)
    kept.remove(4)
    for number in (4, 1, 7):
        kept.insert(number, task(number))
    assert page(kept, 0) == ([1, 2, 4, 6, 7], None)
    kept.add(8, task(8))
    assert page(kept, 6) == ([7, 8], None)


def test_pages_from_the_end_have_all_tasks_once_too():
    kept = ledger(*range(1, 2 * MOST_NUMBERS + 2))
    kept.remove(MOST_NUMBERS)
    pages, cursor = [], 10**12
    while cursor is not None:
        found, cursor = kept.before(cursor)
        pages.append([one.number for one in found])
    assert [len(page) for page in pages] == [MOST_NUMBERS, MOST_NUMBERS - 1, 1]
    assert [number for page in pages for number in page] == [
        number for number in range(2 * MOST_NUMBERS + 1, 0, -1) if number != MOST_NUMBERS
    ]
