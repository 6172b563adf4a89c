"""The core with literal times: workers that announce themselves, and what order tells of what they have in hand."""

import pytest
from core_support import PARALLEL, SERIAL, Core

from zmqbroker.broker.dispatch import GRACE, HELD
from zmqbroker.wire import announced


def test_a_serial_worker_gets_as_many_tasks_as_it_asked_for_in_order():
    core = Core()
    core.tasks("a", "b", "c")
    core.join("worker", 2)
    assert core.give() == [("worker", "a"), ("worker", "b")]
    assert (core.waiting, core.running, core.idle) == (1, 2, 0)


def test_an_outcome_asks_for_more():
    core = Core()
    core.tasks("a", "b", "c", "d")
    core.join("worker", 1)
    ((_, task),) = core.take()
    core.done("worker", task.attempt_id, 0.001, asks=2)
    assert core.give(0.001) == [("worker", "b"), ("worker", "c")]


def test_workers_with_nothing_come_first():
    core = Core()
    core.join("busy", 3)
    core.tasks("a")
    core.give()
    core.join("free", 1)
    core.tasks("b", "c")
    assert core.give() == [("free", "b"), ("busy", "c")]


def test_a_worker_that_has_done_all_is_free_again():
    core = Core()
    core.join("one", 2)
    core.join("two", 2)
    core.tasks("a", "b")
    (_, first), (_, _) = core.take()
    core.done("one", first.attempt_id, 0.001, asks=1)
    core.tasks("c", "d")
    assert core.give(0.001) == [("one", "c"), ("two", "d")]


def test_only_the_first_of_a_lost_workers_tasks_is_charged_and_the_others_run_elsewhere():
    core = Core(tries=1)
    names = [str(number) for number in range(40)]
    core.tasks(*names)
    core.join("killed", 40)
    assert [task for _, task in core.give()] == names
    core.lose_worker(b"killed", 0.005)
    assert (core.counters.lost, core.counters.taken_back) == (1, 39)
    core.join("other", 64)
    assert [task for _, task in core.give(0.005)] == names[1:]
    core.expire(0.005 + GRACE)
    assert core.outcomes() == [("0", "failed", 1)]


def test_time_behind_another_task_does_not_count():
    core = Core(tries=1, timeout=1.0)
    core.tasks(*map(str, range(60)))
    core.join("worker", 32)
    now = 0.0
    while core.unsettled:
        core.give(now)
        core.expire(now + HELD)  # those behind wait again
        now += 0.1
        core.expire(now)
        core.done("worker", attempts_of(core)[0], now, asks=1)
    outcomes = core.outcomes()
    assert len(outcomes) == 60
    assert {(status, attempts) for _, status, attempts in outcomes} == {("done", 1)}


def attempts_of(core: Core, worker: str = "worker") -> list[bytes]:
    """Return the ids of what a worker has, the first first."""
    found = core._workers.find(worker.encode())
    return list(found.held) if found is not None else []


def test_the_deadline_of_the_next_one_counts_from_the_outcome_before_it():
    core = Core(tries=1, timeout=1.0)
    core.tasks("a", "b")
    core.join("worker", 2)
    (_, first), (_, _) = core.take()
    assert core.next_due() == HELD
    core.done("worker", first.attempt_id, 0.009)
    core.expire(1.008)
    assert core.outcomes() == [("a", "done", 1)]
    core.expire(1.009)
    assert core.outcomes() == [("b", "failed", 1)]


def test_those_behind_a_task_that_takes_long_wait_again_first_in_line_and_run_elsewhere():
    core = Core()
    core.tasks("long", "b", "c")
    core.join("stuck", 5)
    ids = [task.attempt_id for _, task in core.take()]
    core.tasks("d")
    core.expire(HELD - 0.001)
    assert (core.waiting, core.running) == (1, 3)
    core.expire(HELD)
    assert (core.waiting, core.running, core.idle) == (3, 1, 0)
    core.join("free", 3)
    assert core.give(HELD) == [("free", "b"), ("free", "c"), ("free", "d")]
    assert core.said() == [("stuck", announced.DROP, attempt_id) for attempt_id in ids[1:]]


def test_a_task_that_still_waits_when_its_worker_comes_to_it_runs_there_and_is_charged_once():
    core = Core(tries=2, timeout=1.0)
    core.tasks("long", "b")
    core.join("worker", 2)
    first, second = [task.attempt_id for _, task in core.take()]
    core.expire(HELD)
    assert (core.waiting, core.running) == (1, 1)
    core.done("worker", first, 0.5)
    assert (core.waiting, core.running) == (0, 1)
    core.expire(1.499)
    assert core.running == 1
    core.done("worker", second, 1.499)
    assert core.outcomes() == [("long", "done", 1), ("b", "done", 1)]
    assert core.said() == []


def test_a_result_of_a_task_that_was_taken_back_and_waits_counts():
    core = Core()
    core.tasks("long", "b")
    core.join("worker", 2)
    _, second = [task.attempt_id for _, task in core.take()]
    core.expire(HELD)
    core.done("worker", second, 0.5)
    assert core.outcomes() == [("b", "done", 0)]
    assert core.waiting == 0


def test_the_first_result_counts_and_the_other_one_is_told_that_nobody_wants_it():
    core = Core()
    core.tasks("long", "b")
    core.join("slow", 2)
    first, second = [task.attempt_id for _, task in core.take()]
    core.expire(HELD)
    core.join("quick", 1)
    (again,) = [task.attempt_id for _, task in core.take(HELD)]
    core.done("slow", first, 0.02)  # it has begun the second one before it read `drop`
    core.done("slow", second, 0.03)
    assert core.said() == [("slow", announced.DROP, second), ("quick", announced.CANCEL, again)]
    core.done("quick", again, 0.04)
    assert core.outcomes() == [("long", "done", 1), ("b", "done", 1)]
    assert core.counters.late == 1


def test_a_worker_that_is_stuck_gets_nothing_before_it_is_done():
    core = Core()
    core.tasks("long", "b")
    core.join("worker", 4)
    first, _ = [task.attempt_id for _, task in core.take()]
    core.expire(HELD)
    core.tasks("c")
    assert core.give(HELD) == []
    core.done("worker", first, 0.5, asks=1)
    assert core.give(0.5) == [("worker", "c")]


def test_a_worker_is_not_given_anew_what_lies_behind_there_already():
    core = Core()
    core.tasks("a", "b", "c")
    core.join("worker", 5)
    (_, first), (_, second), (_, third) = core.take()
    attempt_ids = [second.attempt_id, third.attempt_id]
    core.expire(HELD)
    assert core.waiting == 2
    core.done("worker", first.attempt_id, 0.02)
    assert core.give(0.02) == []
    assert (core.waiting, core.running, core.idle) == (0, 2, 1)
    assert [second.attempt_id, third.attempt_id] == attempt_ids
    core.tasks("d")
    assert core.give(0.02) == [("worker", "d")]
    core.expire(0.02 + HELD)  # as before: those behind the second wait again
    assert (core.waiting, core.running) == (2, 1)
    assert core.said() == []


def test_a_dropped_task_is_given_back_uncharged_and_asks_for_another():
    core = Core()
    core.tasks("long", "b")
    core.join("slow", 2)
    first, second = [task.attempt_id for _, task in core.take()]
    core.expire(HELD)
    core.join("quick", 1)
    core.give(HELD)
    core.done("slow", first, 0.5)
    core.answered(b"slow", second, 1, 0.5)
    core.release(second, 0.0)
    core.tasks("c")
    assert core.give(0.5) == [("slow", "c")]
    assert core.counters.late == 1  # the word for an attempt that was taken back


def test_a_withdrawal_is_confirmed_and_takes_back_what_was_asked_for():
    core = Core()
    core.join("worker", 3)
    core.withdraw(b"worker", 2)
    core.tasks("a", "b")
    assert core.give() == [("worker", "a")]
    assert core.said() == [("worker", announced.WITHDRAWN, b"2")]


def test_a_task_that_its_client_cancels_is_called_off_at_its_worker():
    core = Core()
    core.tasks("a", key="k")
    core.tasks("b", key="l")
    core.join("worker", 2)
    first, second = [task.attempt_id for _, task in core.take()]
    core.tasks("b", key="l", cancel=True)
    core.tasks("a", key="k", cancel=True)
    assert core.said() == [("worker", announced.DROP, second), ("worker", announced.CANCEL, first)]


def test_a_parallel_worker_has_all_in_hand():
    core = Core(tries=1, timeout=1.0)
    core.tasks("a", "b")
    core.join("worker", 2, PARALLEL)
    core.give()
    core.expire(1.0)
    assert core.outcomes() == [("a", "failed", 1), ("b", "failed", 1)]


def test_a_hung_worker_loses_its_task_at_the_deadline_and_its_late_result_counts():
    core = Core(tries=2, timeout=1.0)
    core.tasks("a")
    core.join("hung", 1)
    ((_, task),) = core.take()
    attempt_id = task.attempt_id
    core.join("other", 1)
    core.expire(1.0)
    assert core.give(1.0) == [("other", "a")]
    core.done("hung", attempt_id, 1.5)
    assert core.outcomes() == [("a", "done", 2)]
    assert core.said() == [("other", announced.CANCEL, attempts_of(core, "other")[0])]


# Back again


def test_what_a_worker_names_when_it_is_back_in_time_goes_on_with_its_deadline():
    core = Core(tries=1, timeout=1.0)
    core.tasks("a")
    core.join("before", 1)
    ((_, task),) = core.take()
    core.lose_worker(b"before", 0.5)
    core.join("after", 0, ids=(task.attempt_id,))
    core.expire(0.999)
    assert core.running == 1
    core.expire(1.0)
    assert core.outcomes() == [("a", "failed", 1)]


def test_what_waits_again_runs_where_it_is_named_and_is_not_charged_anew():
    core = Core(tries=2)
    core.tasks("a", "b")
    core.join("before", 2)
    ids = tuple(task.attempt_id for _, task in core.take())
    core.lose_worker(b"before", 0.5)
    core.expire(0.5 + GRACE)
    assert core.waiting == 2
    core.join("after", 0, ids=ids)
    assert (core.waiting, core.running) == (0, 2)
    core.done("after", ids[0], 1.0)
    core.done("after", ids[1], 1.0)
    assert core.outcomes() == [("a", "done", 1), ("b", "done", 1)]


def test_what_runs_elsewhere_by_now_runs_twice_and_the_first_result_counts():
    core = Core()
    core.tasks("a")
    core.join("before", 1)
    ((_, task),) = core.take()
    named = task.attempt_id
    core.lose_worker(b"before", 0.5)
    core.expire(0.5 + GRACE)
    core.join("other", 1)
    core.give(1.0)
    core.join("after", 0, ids=(named,))
    core.done("after", named, 1.5)
    assert core.outcomes() == [("a", "done", 2)]
    assert core.said() == [("other", announced.CANCEL, attempts_of(core, "other")[0])]


def test_what_is_settled_or_unknown_is_called_off():
    core = Core(run=b"run")
    core.tasks("a")
    core.join("one", 1)
    ((_, task),) = core.take()
    named = task.attempt_id
    core.done("one", named, 0.5)
    core.join("one again", 0, ids=(named, b"nonsense"))
    assert core.said() == [("one again", announced.CANCEL, named), ("one again", announced.CANCEL, b"nonsense")]


def test_what_lies_behind_an_attempt_that_is_over_is_not_in_hand():
    core = Core(tries=1, timeout=1.0)
    core.tasks("a", "b")
    core.join("before", 2)
    first, second = [task.attempt_id for _, task in core.take()]
    core.lose_worker(b"before", 0.001)
    core.result(first, [b"by another connection"], 0.002)
    core.join("after", 0, ids=(first, second))
    core.expire(HELD)
    assert (core.waiting, core.running) == (1, 0)
    core.done("after", first, 2.0)
    core.done("after", second, 2.999)
    assert core.outcomes() == [("a", "done", 1), ("b", "done", 1)]
    assert core.counters.late == 2  # the name, and the result


def test_what_was_counted_before_its_worker_said_that_it_is_serial_is_not_taken_back():
    core = Core(tries=1)
    core.tasks("a", "b")
    core.join("worker", 2, PARALLEL)
    core.give()
    core.join("worker", 0, SERIAL)
    core.expire(HELD)
    assert (core.waiting, core.running) == (0, 2)


def test_who_names_an_attempt_by_another_connection_has_lost_the_earlier_one():
    core = Core(tries=1, timeout=1.0)
    core.tasks("a", "b", "on its way")
    core.join("before", 4)
    ids = [task.attempt_id for _, task in core.take()]
    core.join("after", 0, ids=(ids[0], ids[1]))
    assert (core.waiting, core.running, core.idle) == (1, 2, 0)
    assert core.counters.lost == 1
    core.lose_worker(b"before", 0.005)
    core.expire(0.005 + GRACE)
    assert core.counters.lost == 1
    core.done("after", ids[0], 0.5)
    core.done("after", ids[1], 0.5)
    assert core.outcomes() == [("a", "done", 1), ("b", "done", 1)]


def test_what_was_taken_back_and_is_named_again_is_not_lost_with_the_earlier_connection():
    core = Core(tries=1)
    core.tasks("long", "b")
    core.join("before", 2)
    ids = [task.attempt_id for _, task in core.take()]
    core.expire(HELD)
    core.join("after", 0, ids=(ids[1],))
    core.lose_worker(b"before", 0.5)
    core.expire(0.5 + GRACE)
    assert core.outcomes() == [("long", "failed", 1)]
    core.lose_worker(b"after", 1.0)
    core.expire(1.0 + GRACE)
    assert core.outcomes() == [("b", "failed", 1)]  # and counted, as it was in hand


@pytest.mark.parametrize("verb", ["fail", "reject", "release", "touch"])
def test_a_made_up_attempt_id_does_nothing(verb: str):
    core = Core(random_bytes=lambda count: b"secretly" * (count // 8))
    core.tasks("a")
    core.join("worker", 1)
    ((_, task),) = core.take()
    forged = task.attempt_id[:-8] + b"12345678"
    core.answered(b"other", forged, 1, 0.1)
    {
        "fail": lambda: core.fail(forged, "no", 0.1),
        "reject": lambda: core.reject(forged, "no", 0.1),
        "release": lambda: core.release(forged, 0.0),
        "touch": lambda: core.touch(forged, 5.0, 0.1),
    }[verb]()
    assert (core.running, core.counters.malformed, core.outcomes()) == (1, 1, [])


def test_what_waited_again_goes_back_to_who_has_it_already():
    core = Core()
    core.join("worker", 3)
    core.tasks("a", "b", "c", "d")
    pairs = core.take()
    core.expire(HELD)
    assert (core.waiting, core.running) == (3, 1)
    core.done("worker", pairs[0][1].attempt_id, 0.5, asks=1)
    assert core.give(0.5) == [("worker", "d")]
    assert core.said() == []
    assert (core.waiting, core.running, core.counters.attempts) == (0, 3, 4)
    for _, task in pairs[1:]:
        core.done("worker", task.attempt_id, 0.501)
    assert core.outcomes() == [("a", "done", 1), ("b", "done", 1), ("c", "done", 1)]


def test_what_went_back_to_who_has_it_waits_again_when_the_next_one_takes_long_too():
    core = Core()
    core.join("worker", 3)
    core.tasks("a", "b", "c")
    pairs = core.take()
    core.expire(HELD)
    core.done("worker", pairs[0][1].attempt_id, 0.5, asks=1)
    core.give(0.5)
    core.expire(0.5 + HELD)
    core.join("other", 1)
    assert core.give(0.5 + HELD) == [("other", "c")]


def test_what_seemed_to_lie_behind_at_a_lost_worker_counts_when_its_failure_is_told():
    core = Core(tries=2)
    core.join("worker", 2)
    core.tasks("done", "killer")
    (_, done), (_, killer) = core.take()
    attempt_id = killer.attempt_id
    core.lose_worker(b"worker", 0.0)
    assert (done.attempts, killer.attempts) == (1, 0)
    core.fail(attempt_id, "killed by SIGSEGV", 0.01)
    core.fail(attempt_id, "killed by SIGSEGV", 0.01)  # once
    assert (killer.attempts, core.waiting, core.counters.late) == (1, 1, 1)
    core.join("other", 2)
    ((_, killer),) = core.take(0.02)
    core.lose_worker(b"other", 0.03)
    core.expire(0.03 + GRACE)
    assert core.outcomes() == [("killer", "failed", 2)]
