"""Queues, groups, limits, expiry and back-off, with literal times."""

from collections.abc import Callable

import pytest
from core_support import PARALLEL, SERIAL, Core, due, entries, name

from zmqbroker.broker.matching import FIRST_SILENCE, LONGEST_SILENCE, SECOND_SILENCE
from zmqbroker.broker.queues import EMPTY_KEPT, STALE_KEPT, Queue
from zmqbroker.broker.task import BackOff, Task
from zmqbroker.wire import Announce, Header, announced

Settle = Callable[[Core, str], None]


def serving(*queues: str, serial: bool = True) -> Announce:
    return Announce(queues=queues, serial=serial)


def names(core: Core, number: int, worker: str = "worker", now: float = 0.0) -> str:
    """Have a worker ask for so many tasks, one after the other, and return which ones it got."""
    got = []
    for _ in range(number):
        core.ask(worker.encode(), 1)
        for _, task in core.take(now):
            got.append(name(task))
            core.done(worker, task.attempt_id, now)
    return " ".join(got)


# Queues


def test_a_worker_gets_tasks_of_its_queues_only():
    core = Core()
    core.tasks("cpu", queue="cpu")
    core.tasks("plain")
    core.join("gpu", 1, serving("gpu"))
    assert core.give() == []
    core.tasks("gpu", queue="gpu")
    assert core.give() == [("gpu", "gpu")]


def test_the_first_queue_of_a_list_comes_first():
    core = Core()
    core.tasks("a1", "a2", queue="a")
    core.tasks("b1", "b2", queue="b")
    core.join("worker", 0, serving("b", "a"))
    assert names(core, 4) == "b1 b2 a1 a2"


def test_plain_peers_use_the_default_queue():
    core = Core()
    core.tasks("named", queue="default")
    core.tasks("plain")
    core.tasks("other", queue="other")
    core.ready([b"worker"])
    core.ready([b"worker"])
    core.ready([b"worker"])
    assert core.give() == [("worker", "named"), ("worker", "plain")]


def test_workers_with_the_same_list_take_turns_and_so_do_lists():
    core = Core()
    for worker, queues in (("a", ["x"]), ("b", ["x"]), ("c", ["x", "y"])):
        core.join(worker, 2, serving(*queues))
    core.tasks("1", "2", "3", queue="x")
    assert sorted(core.give()) == [("a", "1"), ("b", "3"), ("c", "2")]


def test_an_idle_worker_of_another_list_comes_before_one_that_asks_ahead():
    core = Core()
    core.join("busy", 2, serving("x"))
    core.tasks("1", queue="x")
    core.give()
    core.join("free", 1, serving("y", "x"))
    core.tasks("2", queue="x")
    assert core.give() == [("free", "2")]


def test_a_retry_goes_to_a_worker_of_another_list_when_that_is_idle():
    core = Core()
    core.join("one", 2, serving("x", serial=False))
    core.tasks("task", queue="x")
    ((_, task),) = core.take()
    core.join("other", 1, serving("y", "x"))
    core.failed("one", task.attempt_id, 0.0, asks=1)
    assert core.give() == [("other", "task")]


def test_a_worker_that_announces_itself_anew_asks_from_other_queues():
    core = Core()
    core.join("worker", 1, serving("x"))
    core.tasks("y", queue="y")
    core.tasks("x", queue="x")
    core.announce(b"worker", serving("y"), [], 0.0)
    assert core.give() == [("worker", "y")]


def test_a_queue_with_nothing_to_know_of_it_is_forgotten():
    core = Core()
    for number in range(1000):
        queue = f"queue {number}"
        core.tasks("task", queue=queue)
        core.join(queue, 1, serving(queue, "default"))
        ((worker, task),) = core.take()
        core.done(worker, task.attempt_id, 0.0)
        core.lose_worker(worker.encode(), 0.0)
    assert [queue.name for queue in core._queues] == ["default"]
    assert len(core._workers._pools) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda core: core.queues.pause("queue"),
        lambda core: core.queues.set_limit("queue", 1),
        lambda core: core.queues.set_limit_waiting("queue", 1),
    ],
)
def test_a_queue_with_a_setting_is_kept_until_it_has_none(change: Callable[[Core], None]):
    core = Core()
    change(core)
    core.tasks("task", queue="queue")
    core.submit([b"task"], [b""], 0.0, Header(key="k", queue="queue"))
    assert "queue" in {queue.name for queue in core._queues}
    core.queues.resume("queue")
    core.queues.set_limit("queue", None)
    core.queues.set_limit_waiting("queue", None)
    core.abandon("the end", 0.0)
    assert len(core._queues) == 1


# Nobody asks


def test_tasks_that_nobody_asks_for_are_told_of_at_growing_intervals():
    core = Core()
    core.submit([b"client"], [b"task"], 100.0, Header(queue="gpu"))
    due, told = 100.0 + FIRST_SILENCE, []
    for _ in range(9):
        assert core.next_due() == due
        core.expire(due - 0.001)
        assert not core.unserved
        core.expire(due)
        assert [queue.name for queue in core.unserved] == ["gpu"]
        core.unserved.clear()
        following = core.next_due()
        assert following is not None
        told.append(following - due)
        due = following
    assert told == [min(SECOND_SILENCE * 2**number, LONGEST_SILENCE) for number in range(9)]


def test_nothing_is_told_when_a_worker_has_come():
    core = Core()
    core.tasks("task", queue="gpu")
    core.join("worker", 0, serving("gpu"))
    core.expire(FIRST_SILENCE)
    assert not core.unserved
    assert core.next_due() is None


def test_it_is_told_too_when_the_last_worker_has_left():
    core = Core()
    core.join("worker", 0, serving("gpu"))
    core.tasks("task", queue="gpu")
    core.lose_worker(b"worker", 7.0)
    core.expire(7.0 + FIRST_SILENCE)
    assert [queue.waiting for queue in core.unserved] == [1]


def test_a_plain_worker_between_two_tasks_is_no_reason_to_say_so():
    core = Core()
    for number in range(20):
        core.submit([b"client"], [b"task"], float(number))
        core.ready([b"worker"])
        ((_, task),) = core.take(float(number))
        core.result(task.attempt_id, [b"result"], float(number))
        core.expire(float(number))
    assert not core.unserved


def test_a_queue_that_is_empty_again_is_not_told_of_and_leaves_nothing_behind():
    core = Core()
    for number in range(10):
        core.submit([b"client"], [b"task"], 0.0, Header(key="key", queue=f"queue {number}"))
        core.submit([b"client"], [b""], 0.0, Header(key="key", cancel=True))
    core.expire(FIRST_SILENCE)
    assert not core.unserved
    core.expire(2 * FIRST_SILENCE)
    assert due(core, Queue) is None


def test_it_is_told_too_when_the_last_plain_worker_has_left_between_two_tasks():
    core = Core()
    core.ready([b"worker"])
    core.tasks("1", "2")
    ((_, task),) = core.take()
    core.result(task.attempt_id, [b"result"], 1.0)
    core.lose_worker(b"worker", 7.0)
    core.expire(7.0 + FIRST_SILENCE)
    assert [queue.waiting for queue in core.unserved] == [1]


def test_it_is_told_too_when_its_workers_ask_from_other_queues_now():
    core = Core()
    core.join("worker", 0, serving("gpu"))
    core.tasks("task", queue="gpu")
    core.announce(b"worker", serving("cpu"), [], 7.0)
    core.expire(7.0 + FIRST_SILENCE)
    assert [queue.name for queue in core.unserved] == ["gpu"]


# Groups


def test_groups_take_turns():
    core = Core()
    core.tasks("A1", "A2", "A3", "A4", group="A")
    core.tasks("B1", group="B")
    core.join("worker", 0)
    assert names(core, 5) == "A1 B1 A2 A3 A4"


def test_tasks_without_a_group_are_a_group():
    core = Core()
    core.tasks("1", "2", "3")
    core.tasks("A1", "A2", group="A")
    core.join("worker", 0)
    assert names(core, 5) == "1 A1 2 A2 3"


def test_a_group_has_no_turn_for_what_it_lacks():
    core = Core()
    core.join("worker", 0)
    core.tasks("A1", "A2", group="A")
    assert names(core, 1) == "A1"
    core.tasks("B1", "B2", "B3", group="B")
    assert names(core, 2) == "A2 B1"
    core.tasks("A3", "A4", group="A")
    assert names(core, 4) == "B2 A3 B3 A4"


def test_within_a_group_the_higher_priority_then_retries_then_arrival_come_first():
    core = Core()
    core.join("worker", 2, PARALLEL)
    core.tasks("retried", "first", group="A")
    pairs = core.take()
    core.tasks("second", "third", group="A")
    core.tasks("high", group="A", priority=1)
    core.tasks("other", group="B", priority=-1)
    core.failed("worker", pairs[0][1].attempt_id, 0.0)
    assert names(core, 5) == "high other retried second third"


def test_fair_clients_take_turns_by_connection():
    core = Core(is_fair=True)
    for body in (b"1", b"2", b"3"):
        core.submit([b"\x00busy"], [body], 0.0)
    core.submit([b"\x00other"], [b"4"], 0.0, Header(key="k"))
    core.submit([b"\x00other"], [b"5"], 0.0, Header(group="said"))
    core.join("worker", 0)
    assert names(core, 5) == "1 4 5 2 3"


def test_groups_come_and_go_without_a_trace():
    core = Core()
    core.join("worker", 0)
    for number in range(5 * EMPTY_KEPT):
        core.tasks("task", group=f"group {number}")
        names(core, 1)
        core.outcomes()
    assert len(core._queues.default._groups) <= EMPTY_KEPT + 1


def test_groups_whose_tasks_are_cancelled_leave_no_trace():
    core = Core()
    for number in range(5 * STALE_KEPT):
        core.tasks("task", group=f"group {number}", key="key")
        core.submit([b"client"], [b""], 0.0, Header(key="key", cancel=True))
        core.outcomes()
    assert entries(core) <= STALE_KEPT
    assert len(core._queues.default._groups) <= EMPTY_KEPT + 1
    assert len(core._queues.default._ring) <= EMPTY_KEPT + 1


def test_a_task_that_waits_again_after_its_group_was_forgotten_is_not_lost():
    core = Core()
    core.join("worker", 2)
    core.tasks("first")
    core.tasks("task", group="A")
    pairs = core.take()
    core.expire(0.01)  # it lies behind for too long, and waits again
    core.done("worker", pairs[0][1].attempt_id, 0.02)  # and runs, without having been taken from its line
    for number in range(3 * EMPTY_KEPT):
        core.tasks("other", group=f"group {number}")
        core.submit([b"c"], [b""], 0.02)
    core.failed("worker", pairs[1][1].attempt_id, 0.02)
    core.join("another", 1000)
    assert "task" in [task for _, task in core.give(0.02)]


# Limits


def test_no_more_tasks_run_than_the_limit_of_their_queue():
    core = Core()
    core.queues.set_limit("api", 2)
    core.join("many", 10, serving("api", serial=False))
    for number in range(5):
        core.join(f"worker {number}", 1, serving("api"))
    core.tasks("1", "2", "3", queue="api")
    pairs = core.take()
    assert [name(task) for _, task in pairs] == ["1", "2"]
    worker, task = pairs[0]
    core.done(worker, task.attempt_id, 0.0)
    assert [task for _, task in core.give()] == ["3"]


def test_a_limit_is_not_used_up_behind_another_task():
    core = Core()
    core.queues.set_limit("api", 2)
    core.join("worker", 5, serving("api", "other"))
    core.tasks("api 1", "api 2", queue="api")
    core.tasks("other", queue="other")
    assert core.give() == [("worker", "api 1"), ("worker", "other")]
    core.join("free", 1, serving("api"))
    assert core.give() == [("free", "api 2")]


def test_a_limit_that_is_raised_or_taken_away_counts_at_once():
    core = Core()
    core.queues.set_limit("api", 1)
    core.join("worker", 10, serving("api", serial=False))
    core.join("other", 10, serving("api", serial=False))
    core.join("third", 10, serving("api", serial=False))
    core.tasks("1", "2", "3", "4", queue="api")
    assert len(core.give()) == 1
    core.queues.set_limit("api", 2)
    assert len(core.give()) == 1
    core.queues.set_limit("api", None)
    assert len(core.give()) == 2


def test_a_limit_that_is_lowered_ends_nothing_that_runs():
    core = Core()
    core.join("worker", 10, serving("api", serial=False))
    core.tasks("1", "2", queue="api")
    pairs = core.take()
    core.queues.set_limit("api", 1)
    core.tasks("3", queue="api")
    core.done("worker", pairs[0][1].attempt_id, 0.0)
    assert core.give() == []
    core.done("worker", pairs[1][1].attempt_id, 0.0)
    assert len(core.give()) == 1


def test_a_queue_takes_no_more_than_may_wait_and_others_go_on():
    core = Core()
    core.queues.set_limit_waiting("api", 2)
    core.tasks("1", queue="api")
    core.tasks("2", queue="api", delay=60)
    core.tasks("3", queue="api")
    assert core.outcomes() == [("3", "unavailable", 0)]
    core.tasks("4", queue="other")
    core.tasks("5")
    assert core.outcomes() == []
    core.join("worker", 1, serving("api"))
    core.take()
    core.tasks("6", queue="api")
    assert core.outcomes() == []
    assert core.counters.refused == 1


def test_a_plain_request_that_may_not_wait_fails_at_once():
    core = Core()
    core.queues.set_limit_waiting("default", 1)
    core.tasks("1", "2")
    assert core.outcomes() == [("2", "failed", 0)]
    assert (core.counters.refused, core.counters.failed) == (1, 0)


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed():
    core = Core()
    core.join("worker", 5, serving("x", "y"))
    core.queues.pause("x")
    core.tasks("x", queue="x")
    core.tasks("y", queue="y")
    assert core.give() == [("worker", "y")]
    core.queues.resume("x")
    assert core.give() == [("worker", "x")]


# Expiry


def test_a_task_that_waits_expires():
    core = Core()
    core.tasks("task", expires=3.0)
    assert core.next_due() == 3.0
    core.expire(2.999)
    assert core.outcomes() == []
    core.expire(3.0)
    assert core.outcomes() == [("task", "expired", 0)]
    assert (core.counters.expired, core.unsettled) == (1, 0)
    core.join("worker", 1)
    assert core.give(3.0) == []


def test_a_task_that_runs_expires_and_its_worker_is_told():
    core = Core(timeout=10.0)
    core.join("worker", 1)
    core.tasks("task", expires=3.0)
    ((_, task),) = core.take(1.0)
    attempt_id = task.attempt_id
    core.expire(3.0)
    assert core.outcomes() == [("task", "expired", 1)]
    assert core.said() == [("worker", announced.CANCEL, attempt_id)]
    core.done("worker", attempt_id, 3.1)
    assert core.outcomes() == []
    assert core.counters.late == 1


def test_the_deadline_of_an_attempt_comes_first_if_it_is_earlier():
    core = Core(timeout=1.0, tries=0)
    core.join("worker", 5, PARALLEL)
    core.tasks("task", expires=2.5)
    core.take(0.0)
    core.expire(1.0)
    core.take(1.0)
    core.expire(2.0)
    core.take(2.0)
    assert core.outcomes() == []
    core.expire(2.5)
    assert core.outcomes() == [("task", "expired", 3)]
    assert due(core, Task) is None


def test_a_result_before_it_expires_counts():
    core = Core()
    core.join("worker", 1)
    core.tasks("task", expires=3.0)
    ((_, task),) = core.take(1.0)
    core.done("worker", task.attempt_id, 2.999)
    core.expire(3.0)
    assert core.outcomes() == [("task", "done", 1)]


def test_a_delayed_task_expires_after_its_delay():
    core = Core()
    core.tasks("task", delay=2.0, expires=3.0)
    core.expire(2.0)
    assert (core.waiting, core.next_due()) == (1, 3.0)
    core.expire(3.0)
    assert core.outcomes() == [("task", "expired", 0)]


def test_all_who_joined_hear_that_it_expired():
    core = Core()
    core.submit([b"one"], [b"task"], 0.0, Header(key="k", expires=3.0))
    core.submit([b"other"], [b"task"], 1.0, Header(key="k", expires=3.0))
    core.expire(3.0)
    ((task),) = core.settled
    assert [waiter.envelope for waiter in task.waiters] == [[b"one"], [b"other"]]
    assert task.reason == "no result within 3 s"


@pytest.mark.parametrize(
    ("expires", "within"), [(2.99991, "3"), (86399.9998, "86400"), (0.25, "0.25"), (0.001, "0.001")]
)
def test_the_reason_says_in_what_time_there_was_no_result_and_why(expires: float, within: str):
    core = Core(tries=0)
    core.join("worker", 1)
    core.tasks("task", expires=expires)
    ((_, task),) = core.take()
    core.failed("worker", task.attempt_id, 0.0)
    core.expire(expires)
    assert [task.reason for task in core.settled] == [f"no result within {within} s (no)"]


# Back-off


def test_the_time_between_attempts_grows_to_the_most():
    core = Core(tries=0, back_off=BackOff(1.0, 2.0, 5.0))
    core.join("worker", 1, SERIAL)
    core.tasks("task")
    now, pauses = 0.0, []
    for _ in range(6):
        ((_, task),) = core.take(now)
        core.failed("worker", task.attempt_id, now, asks=1)
        assert core.give(now) == []
        instant = due(core, Task)
        assert instant is not None
        pauses.append(instant - now)
        now = instant
        core.expire(now)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert [pause for _, pause in core.lost] == pauses


def test_a_client_may_want_it_otherwise():
    core = Core(tries=0, back_off=BackOff(1.0, 2.0, 5.0))
    core.join("worker", 1)
    core.tasks("task", retry_delay=0.5, retry_most=0.75)
    now, pauses = 0.0, []
    for _ in range(3):
        ((_, task),) = core.take(now)
        core.failed("worker", task.attempt_id, now, asks=1)
        instant = due(core, Task)
        assert instant is not None
        pauses.append(instant - now)
        now = instant
        core.expire(now)
    assert pauses == [0.5, 0.75, 0.75]


def test_a_client_may_want_it_without_a_most():
    core = Core(tries=0, back_off=BackOff(1.0, 2.0, 5.0))
    core.join("worker", 1)
    core.tasks("task", retry_delay=10, retry_most=0)
    ((_, task),) = core.take()
    core.failed("worker", task.attempt_id, 0.0, asks=1)
    assert [pause for _, pause in core.lost] == [10.0]


def test_after_very_many_attempts_it_does_not_grow_beyond_numbers():
    assert BackOff(1.0, 1000.0, 60.0).after(10**6) == 60.0
    assert BackOff(1.0, 1000.0).after(10**6) == 1e9
    assert BackOff(0.0, 2.0, 60.0).after(10) == 0.0


def test_what_is_given_back_waits_no_longer_for_that():
    core = Core(back_off=BackOff(1.0))
    core.join("worker", 2)
    core.tasks("task")
    ((_, task),) = core.take()
    core.answered(b"worker", task.attempt_id, 0, 0.0)
    core.release(task.attempt_id, 0.0)
    assert core.give() == [("worker", "task")]


def plight(core: Core, key: str) -> tuple[str, str]:
    """Ask where a task stands, and return that, and why it may wait for ever."""
    core.settled.clear()
    core.submit([b"asker"], [], 0.0, Header(key=key, fetch=0.0, id="?"))
    (answer,) = core.settled
    return answer.status, answer.reason


def test_who_asks_where_a_task_stands_is_told_why_it_may_wait_for_ever():
    core = Core()
    core.submit([b"client"], [b"task"], 0.0, Header(key="key", queue="gpu"))
    assert plight(core, "key") == ("waiting", "no worker asks from the queue gpu")
    core.join("worker", 0, serving("gpu"))
    assert plight(core, "key") == ("waiting", "")
    core.queues.pause("gpu")
    assert plight(core, "key") == ("waiting", "the queue gpu is paused")
    core.queues.resume("gpu")
    core.ask(b"worker", 1)
    core.take()
    assert plight(core, "key") == ("running", "")
