"""Workers that fail where others succeed, with literal times: how they are found out, and held back."""

from collections import Counter

import pytest
from core_support import PARALLEL, Core

from zmqbroker.broker.records import FIRST_DOUBT, FIRST_PAUSE, LONGEST_PAUSE, MOST_BLAMED, SHORTEST_DOUBT
from zmqbroker.broker.task import MARKS, Task
from zmqbroker.wire import Announce, Header

GOOD = Announce(label="good", serial=True)
BAD = Announce(label="bad", serial=True)


class Workshop(Core):
    """A good worker that takes its time for a task, and bad ones that fail at once."""

    def __init__(self, *bad: str, tries: int = 3) -> None:
        super().__init__(tries=tries)
        self.now = 0.0
        self.given: list[tuple[str, float]] = []  # to bad workers, and when
        self._at: tuple[bytes, float] | None = None  # what the good one has, and when that is done
        for worker in bad:
            self.join(worker, 1, Announce(label=worker, serial=True))

    def work(self, until: float, spent: float = 0.01) -> None:
        """Let time pass in steps of a millisecond; a task takes the good one so many seconds."""
        while self.now < until:
            self.expire(self.now)
            if self._at is not None and self.now >= self._at[1]:
                self.done("good", self._at[0], self.now, asks=1)
                self._at = None
            while pairs := self.take(self.now):
                self._do(pairs, spent)
            self.now += 0.001

    def _do(self, pairs: list[tuple[str, Task]], spent: float) -> None:
        for worker, task in pairs:
            if worker == "good":
                self._at = task.attempt_id, self.now + spent
            else:
                self.given.append((worker, self.now))
                self.failed(worker, task.attempt_id, self.now, asks=1)

    def statuses(self) -> Counter[str]:
        return Counter(status for _, status, _ in self.outcomes())


def many(number: int) -> list[str]:
    return [f"task {each}" for each in range(number)]


@pytest.mark.parametrize("spent", [0.001, 0.01, 0.3])
@pytest.mark.parametrize("bad", [("bad",), ("bad", "worse"), ("bad", "worse", "worst")])
def test_bad_workers_beside_a_good_one_take_hardly_a_task_along(bad: tuple[str, ...], spent: float):
    shop = Workshop(*bad)
    shop.join("good", 1, GOOD)
    shop.tasks(*many(200))
    shop.work(until=300 * spent + 2, spent=spent)
    statuses = shop.statuses()
    assert statuses["done"] >= 0.95 * 200
    assert sum(statuses.values()) == 200


def test_a_worker_that_breaks_later_is_found_out_too():
    shop = Workshop()
    shop.join("good", 1, GOOD)
    shop.join("bad", 1, BAD)
    shop.tasks("first", "second")
    for worker, task in shop.take():
        shop.done(worker, task.attempt_id, 0.001, asks=1)
    assert shop.statuses() == {"done": 2}
    shop.tasks(*many(200))
    shop.work(until=10.0)
    assert shop.statuses()["done"] >= 0.95 * 200


def test_what_fails_everywhere_marks_nobody_and_is_as_fast_as_ever():
    shop = Workshop("one", "other")
    shop.tasks(*many(1000))
    shop.work(until=0.001)
    assert shop.statuses() == {"failed": 1000}
    assert len(shop.given) == 3000
    assert shop.counters.held_back == 0


def test_a_worker_alone_is_never_held_back():
    shop = Workshop("bad")
    shop.tasks(*many(100))
    shop.work(until=0.001)
    assert shop.statuses() == {"failed": 100}


def test_with_marks_it_gets_one_task_at_a_time_after_pauses_that_double():
    shop = Workshop("bad")
    shop.join("good", 1, GOOD)
    shop.tasks(*many(20))
    shop.work(until=0.05)
    shop.tasks(*many(10_000))  # what has failed there waits for the good one
    shop.work(until=90.0)
    (first, *others) = [when for _, when in shop.given if when > 0.05]
    pauses = [later - earlier for earlier, later in zip([first, *others], others, strict=False)]
    doubled = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(1, len(pauses) + 1)]
    assert pauses == pytest.approx(doubled, abs=0.003)
    assert len(pauses) >= 8
    assert shop.counters.held_back == len(others) + 2
    assert [record.worker.name for record in shop.held_back] == ["bad"] * shop.counters.held_back


def marked() -> tuple[Workshop, float]:
    """Return a workshop whose good worker has left and whose bad one is held back, and until when; nothing is to do."""
    shop = Workshop("bad")
    shop.join("good", 1, GOOD)
    shop.tasks(*many(3 * MARKS))
    shop.work(until=FIRST_PAUSE / 2, spent=0.001)
    assert [record.worker.name for record in shop.held_back] == ["bad"]
    assert shop.unsettled == 0
    shop.lose_worker(b"good", shop.now)
    due = shop.next_due()
    assert due is not None
    return shop, due


def test_a_success_has_it_trusted_again_at_once():
    shop, due = marked()
    shop.tasks("a", "b", "c")
    assert shop.give(shop.now) == []
    shop.expire(due)
    ((_, task),) = shop.take(due)
    shop.ask(b"bad", 1)
    assert shop.give(due) == []  # one at a time
    shop.done("bad", task.attempt_id, due, asks=1)
    assert shop.give(due) == [("bad", "b"), ("bad", "c")]


def test_a_worker_that_is_held_back_is_so_when_it_comes_back_too():
    shop, _ = marked()
    shop.lose_worker(b"bad", shop.now)
    shop.expire(LONGEST_PAUSE)
    shop.announce(b"another", Announce(label="bad", serial=True), [], LONGEST_PAUSE)
    shop.tasks("a", "b")
    shop.ask(b"another", 1)
    assert shop.give(LONGEST_PAUSE) == []
    assert shop.next_due() == LONGEST_PAUSE + FIRST_PAUSE
    shop.expire(LONGEST_PAUSE + FIRST_PAUSE)
    assert shop.give(LONGEST_PAUSE + FIRST_PAUSE) == [("another", "a")]


def test_nobody_is_held_back_for_a_worker_of_another_name_that_has_announced_itself_alike():
    shop, _ = marked()
    shop.lose_worker(b"bad", shop.now)
    shop.announce(b"another", Announce(label="bad", serial=True), [], shop.now, "bob")
    shop.tasks("a")
    shop.ask(b"another", 1)
    assert shop.give(shop.now) == [("another", "a")]


@pytest.mark.parametrize(("proven", "doubt"), [(False, FIRST_DOUBT), (True, SHORTEST_DOUBT)])
def test_without_evidence_a_task_waits_no_longer_for_another_worker_than_two_take(proven: bool, doubt: float):
    core = Core()
    core.join("slow", 1, GOOD)
    if proven:
        core.tasks("quick")
        ((_, task),) = core.take()
        core.done("slow", task.attempt_id, 0.1, asks=1)
    core.tasks("long")
    core.take()
    core.join("bad", 1, BAD)
    core.tasks("a")
    ((_, task),) = core.take(1.0)
    core.failed("bad", task.attempt_id, 1.0, asks=1)
    assert core.give(1.0) == []
    assert (core.waiting, core.delayed) == (1, 0)
    core.expire(1.0 + doubt)
    assert core.give(1.0 + doubt) == [("bad", "a")]
    core.failed("bad", task.attempt_id, 1.0 + doubt, asks=1)
    assert core.give(1.0 + doubt) == [("bad", "a")]  # there is doubt no more


def test_a_task_that_waits_for_another_worker_gets_the_first_that_is_idle():
    core = Core()
    core.join("slow", 1, GOOD)
    core.tasks("long")
    ((_, long),) = core.take()
    core.join("bad", 1, BAD)
    core.tasks("a", "b")
    ((_, task),) = core.take()
    core.failed("bad", task.attempt_id, 0.0, asks=1)
    ((_, task),) = core.take()
    core.failed("bad", task.attempt_id, 0.0, asks=1)
    core.done("slow", long.attempt_id, 0.5, asks=1)
    core.tasks("c")
    assert core.give(0.5) == [("slow", "a"), ("bad", "c")]


def test_a_task_that_waits_for_another_worker_can_be_cancelled():
    core = Core()
    core.join("slow", 1, GOOD)
    core.tasks("long")
    core.take()
    core.join("bad", 1, BAD)
    core.tasks("a", key="key")
    ((_, task),) = core.take()
    core.failed("bad", task.attempt_id, 0.0, asks=1)
    core.give(0.0)
    core.submit([b"client"], [b""], 0.0, Header(key="key", cancel=True))
    assert [status for _, status, _ in core.outcomes()] == ["cancelled", "cancelled"]
    core.expire(FIRST_DOUBT)
    assert core.give(FIRST_DOUBT) == []
    assert core.unsettled == 1


@pytest.mark.parametrize("fails", [True, False])
def test_a_task_waits_no_longer_when_the_other_worker_fails_too_or_leaves(fails: bool):
    core = Core()
    core.join("other", 1, GOOD)
    core.tasks("long")
    ((_, long),) = core.take()
    core.join("bad", 1, BAD)
    core.tasks("a")
    ((_, task),) = core.take()
    core.failed("bad", task.attempt_id, 0.0, asks=1)
    assert core.give(0.0) == []
    if fails:
        core.failed("other", long.attempt_id, 0.5, asks=1)
        assert sorted(core.give(0.5)) == [("bad", "long"), ("other", "a")]
    else:
        core.lose_worker(b"other", 0.5)
        assert core.give(0.5) == [("bad", "a")]


def test_a_success_after_its_connection_was_lost_ends_the_doubt_for_the_next_one_too():
    core = Core()
    core.join("bad", 3, Announce(label="bad"))
    core.tasks("one", "two")
    (_, failing), (_, succeeding) = core.take()
    core.failed("bad", failing.attempt_id, 0.0)
    core.join("good", 1, GOOD)
    ((_, again),) = core.take()
    core.done("good", again.attempt_id, 0.0)  # a mark
    core.lose_worker(b"bad", 0.0)
    core.result(succeeding.attempt_id, [b"by the other socket"], 0.05)
    core.join("bad again", 1, Announce(label="bad"))
    assert sum(pool.doubted for pool in core._workers._pools.values()) == 0


def test_who_failed_at_a_task_that_is_tried_for_ever_is_not_kept_for_ever():
    core = Core(tries=0)
    core.tasks("task")
    for number in range(10 * MOST_BLAMED):
        worker = str(number % (2 * MOST_BLAMED))
        core.join(worker, 1)
        ((_, task),) = core.take()
        core.failed(worker, task.attempt_id, 0.0)
        core.lose_worker(worker.encode(), 0.0)
    assert task.failed_at is not None
    assert len(task.failed_at) == MOST_BLAMED


def test_a_task_that_waits_for_a_plain_worker_goes_to_one_in_doubt_when_that_has_left():
    core = Core()
    core.join("bad", 5, Announce(label="bad"))
    core.tasks("task")
    ((_, task),) = core.take()
    core.tasks("other")
    core.ready([b"plain"])
    ((_, other),) = core.take()
    core.failed("bad", task.attempt_id, 0.0)
    assert core.give() == []
    core.result(other.attempt_id, [b"result"], 0.0)
    assert core.give() == []  # it is between two tasks, perhaps
    core.lose_worker(b"plain", 0.0)
    assert core.give() == [("bad", "task")]


def test_who_is_in_doubt_is_not_passed_over_one_by_one():
    core = Core(tries=0)
    bad = [f"bad {number}" for number in range(100)]
    for worker in bad:
        core.join(worker, 2, Announce(label=worker))
    core.tasks(*many(100))
    pairs = core.take()
    core.join("good", 0, GOOD)
    for worker, task in pairs:
        core.failed(worker, task.attempt_id, 0.0)
    places = [core._workers._workers[worker.encode()].ticket for worker in bad]
    assert core.give() == []  # all wait for the good one
    assert [core._workers._workers[worker.encode()].ticket for worker in bad] == places
    core.ask(b"good", 1)
    assert core.give() == [("good", "task 0")]


def test_the_first_of_a_line_is_the_first_in_doubt_or_not():
    core = Core(tries=0)
    core.join("bad", 1, Announce(label="bad"))
    core.join("good", 0, GOOD)
    core.tasks("failed")
    ((_, task),) = core.take()
    core.failed("bad", task.attempt_id, 0.0, asks=2)
    core.ask(b"good", 2)
    core.tasks("1", "2")
    assert core.give() == [("good", "failed"), ("bad", "1"), ("good", "2")]


def test_a_worker_that_never_tells_what_became_of_tasks_gets_another_one_after_its_pause():
    core = Core(tries=5, timeout=1.0)
    core.join("bad", 10, PARALLEL)
    now = 0.0
    for number in range(MARKS):
        core.tasks(f"task {number}")
        assert [worker for worker, _ in core.take(now)] == ["bad"]
        core.join("good", 1, GOOD)
        now += 1.0
        core.expire(now)  # it is given up there, and done elsewhere
        ((worker, task),) = core.take(now)
        assert worker == "good"
        core.done("good", task.attempt_id, now)
        core.lose_worker(b"good", now)
    core.tasks("the next")
    assert core.take(now) == []
    now += FIRST_PAUSE
    core.expire(now)
    assert [worker for worker, _ in core.take(now)] == ["bad"]
    core.tasks("and one more")
    assert core.take(now) == []  # one at a time
