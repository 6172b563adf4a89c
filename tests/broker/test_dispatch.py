"""The core with literal times: what becomes of a task."""

from typing import Any

import pytest
from core_support import due, entries, places

from zmqbroker.broker.dispatch import GRACE, Dispatcher
from zmqbroker.broker.queues import STALE_KEPT
from zmqbroker.broker.task import BackOff, Task
from zmqbroker.wire import Header


def submit(dispatcher: Dispatcher, *names: str, now: float = 0.0, **fields: Any) -> None:
    """Submit tasks that say their name; with fields, they are those of a header."""
    header = Header(**fields) if fields else None
    for name in names:
        dispatcher.submit([b"client " + name.encode()], [name.encode()], now, header)


def ready(dispatcher: Dispatcher, *workers: str) -> None:
    for worker in workers:
        dispatcher.ready([worker.encode()])


def hand_out(dispatcher: Dispatcher, now: float) -> list[tuple[str, str]]:
    """Hand out all that can be, as pairs of a worker and a task's name."""
    return [(worker, bytes(task.body[0]).decode()) for worker, task in take(dispatcher, now)]


def take(dispatcher: Dispatcher, now: float) -> list[tuple[str, Task]]:
    """Hand out all that can be, as pairs of a worker and a task."""
    pairs = []
    while (pair := dispatcher.hand_out(now)) is not None:
        envelope, task = pair
        pairs.append((bytes(envelope[0]).decode(), task))
    return pairs


def run(dispatcher: Dispatcher, name: str, *workers: str, **fields: Any) -> Task:
    """Submit a task at 0.0 and hand it to the first of these workers; the others stay idle."""
    submit(dispatcher, name, **fields)
    ready(dispatcher, *workers)
    ((_, task),) = take(dispatcher, now=0.0)
    return task


def outcomes(dispatcher: Dispatcher) -> list[tuple[str, list[bytes], str]]:
    """Take what was settled: status, body and reason of each."""
    settled = [(task.status, task.body, task.reason) for task in dispatcher.settled]
    dispatcher.settled.clear()
    return settled


def replies(dispatcher: Dispatcher) -> list[tuple[bytes, str]]:
    """Return the connection and the status of each reply that is to be sent."""
    return [(bytes(waiter.envelope[0]), task.status) for task in dispatcher.settled for waiter in task.waiters]


def test_a_task_goes_to_the_worker_that_has_been_idle_longest():
    dispatcher = Dispatcher()
    ready(dispatcher, "first", "second")
    submit(dispatcher, "a", "b")
    assert hand_out(dispatcher, now=0.0) == [("first", "a"), ("second", "b")]


def test_a_task_waits_until_a_worker_is_ready():
    dispatcher = Dispatcher()
    submit(dispatcher, "a")
    assert hand_out(dispatcher, now=0.0) == []
    ready(dispatcher, "worker")
    assert hand_out(dispatcher, now=9.0) == [("worker", "a")]


def test_each_ready_message_is_worth_one_task():
    dispatcher = Dispatcher()
    ready(dispatcher, "twice", "twice")
    submit(dispatcher, "a", "b", "c")
    assert hand_out(dispatcher, now=0.0) == [("twice", "a"), ("twice", "b")]
    assert dispatcher.waiting == 1


def test_workers_with_many_slots_take_turns():
    dispatcher = Dispatcher()
    ready(dispatcher, "left", "left", "left", "right", "right")
    submit(dispatcher, "a", "b", "c", "d", "e")
    workers = [worker for worker, _ in hand_out(dispatcher, now=0.0)]
    assert workers == ["left", "right", "left", "right", "left"]


def test_a_result_is_the_reply():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "worker")
    dispatcher.result(task.attempt_id, [b"re", b"sult"], now=0.5)
    assert outcomes(dispatcher) == [("done", [b"re", b"sult"], "")]
    assert task.envelope == [b"client a"]
    assert dispatcher.unsettled == 0


def test_a_silent_worker_loses_its_task_at_the_deadline():
    dispatcher = Dispatcher(tries=2, timeout=5.0)
    ready(dispatcher, "slow", "spare")
    submit(dispatcher, "a")
    assert hand_out(dispatcher, now=0.0) == [("slow", "a")]
    dispatcher.expire(now=4.9)
    assert hand_out(dispatcher, now=4.9) == []
    dispatcher.expire(now=5.0)
    assert hand_out(dispatcher, now=5.0) == [("spare", "a")]


def test_time_in_the_queue_does_not_count():
    dispatcher = Dispatcher(timeout=5.0)
    submit(dispatcher, "a")
    dispatcher.expire(now=100.0)
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=100.0)
    assert due(dispatcher) == 105.0


def test_the_client_gets_a_failure_after_the_last_attempt():
    dispatcher = Dispatcher(tries=2, timeout=1.5)
    ready(dispatcher, "one", "two", "three")
    submit(dispatcher, "a")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.5)
    hand_out(dispatcher, now=1.5)
    assert outcomes(dispatcher) == []
    dispatcher.expire(now=3.0)
    assert outcomes(dispatcher) == [("failed", [], "timed out after 1.5 s (2 of 2 attempts)")]
    assert hand_out(dispatcher, now=3.0) == []


def test_no_limit_on_tries_tries_again_for_ever():
    dispatcher = Dispatcher(tries=0, timeout=1.0)
    submit(dispatcher, "a")
    for now in range(1000):
        dispatcher.expire(now=float(now))
        ready(dispatcher, f"worker {now}")
        assert len(hand_out(dispatcher, now=float(now))) == 1


def test_no_timeout_waits_for_ever():
    dispatcher = Dispatcher()
    submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    assert due(dispatcher) is None
    dispatcher.expire(now=1e12)
    assert dispatcher.running == 1


def test_retries_go_first_in_the_order_in_which_they_were_lost():
    dispatcher = Dispatcher(timeout=1.0)
    submit(dispatcher, "a", "b", "c")
    ready(dispatcher, "one", "two")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.0)
    ready(dispatcher, "three", "four", "five")
    assert [name for _, name in hand_out(dispatcher, now=1.0)] == ["a", "b", "c"]


def test_a_retry_goes_to_another_worker_than_the_one_that_lost_it():
    dispatcher = Dispatcher(timeout=1.0)
    submit(dispatcher, "a")
    ready(dispatcher, "loser", "loser", "other")
    assert hand_out(dispatcher, now=0.0) == [("loser", "a")]
    ready(dispatcher, "loser")
    dispatcher.ready([b"spare"])
    submit(dispatcher, "b")
    assert hand_out(dispatcher, now=0.5) == [("other", "b")]
    dispatcher.expire(now=1.0)
    assert hand_out(dispatcher, now=1.0) == [("spare", "a")]


def test_a_retry_goes_to_the_same_worker_when_no_other_is_idle():
    dispatcher = Dispatcher(timeout=1.0)
    submit(dispatcher, "a")
    ready(dispatcher, "only", "only")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.0)
    assert hand_out(dispatcher, now=1.0) == [("only", "a")]


def test_a_retry_delay_holds_the_task_back():
    dispatcher = Dispatcher(timeout=1.0, back_off=BackOff(10.0))
    submit(dispatcher, "a")
    ready(dispatcher, "one", "two")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.0)
    assert (dispatcher.waiting, dispatcher.delayed, due(dispatcher)) == (0, 1, 11.0)
    dispatcher.expire(now=10.9)
    assert hand_out(dispatcher, now=10.9) == []
    dispatcher.expire(now=11.0)
    assert hand_out(dispatcher, now=11.0) == [("two", "a")]


@pytest.mark.parametrize("retry_delay", [0.0, 60.0])
def test_a_late_result_counts_while_the_task_waits_for_its_retry(retry_delay: float):
    dispatcher = Dispatcher(timeout=1.0, back_off=BackOff(retry_delay))
    task = run(dispatcher, "a", "worker")
    first_attempt = task.attempt_id
    dispatcher.expire(now=1.0)
    dispatcher.result(first_attempt, [b"late but good"], now=0.5)
    assert outcomes(dispatcher) == [("done", [b"late but good"], "timed out after 1 s (1 of 3 attempts)")]
    ready(dispatcher, "worker")
    dispatcher.expire(now=100.0)
    assert hand_out(dispatcher, now=100.0) == []
    assert dispatcher.unsettled == 0


def test_the_first_result_of_two_attempts_counts_and_the_second_is_dropped():
    dispatcher = Dispatcher(timeout=1.0)
    task = run(dispatcher, "a", "slow", "quick")
    first = task.attempt_id
    dispatcher.expire(now=1.0)
    hand_out(dispatcher, now=1.0)
    second = task.attempt_id
    dispatcher.result(first, [b"first"], now=0.5)
    dispatcher.result(second, [b"second"], now=0.5)
    assert [body for _, body, _ in outcomes(dispatcher)] == [[b"first"]]
    assert dispatcher.counters.late == 1


def test_a_failed_attempt_is_tried_again_at_once():
    dispatcher = Dispatcher(tries=2)
    task = run(dispatcher, "a", "one", "two", "three")
    dispatcher.fail(task.attempt_id, "ValueError: bad input", now=0.1)
    assert hand_out(dispatcher, now=0.1) == [("two", "a")]
    dispatcher.fail(task.attempt_id, "ValueError: bad again", now=0.2)
    assert outcomes(dispatcher) == [("failed", [], "ValueError: bad again")]


def test_a_rejected_task_is_not_tried_again():
    dispatcher = Dispatcher(tries=0)
    task = run(dispatcher, "a", "one", "two")
    dispatcher.reject(task.attempt_id, "no such file", now=0.5)
    assert outcomes(dispatcher) == [("failed", [], "no such file")]
    assert hand_out(dispatcher, now=0.0) == []


def test_a_released_task_goes_to_another_worker_and_is_not_charged():
    dispatcher = Dispatcher(tries=1)
    task = run(dispatcher, "a", "leaving", "staying")
    before = task.attempt_id
    dispatcher.release(task.attempt_id, 0.0)
    assert hand_out(dispatcher, now=0.0) == [("staying", "a")]
    assert task.attempts == 1
    assert task.attempt_id != before


def test_a_touch_moves_the_deadline():
    dispatcher = Dispatcher(timeout=5.0)
    task = run(dispatcher, "a", "worker")
    dispatcher.touch(task.attempt_id, None, now=3.0)
    assert due(dispatcher) == 8.0
    dispatcher.touch(task.attempt_id, 60.0, now=4.0)
    assert due(dispatcher) == 64.0
    dispatcher.expire(now=63.9)
    assert dispatcher.running == 1
    dispatcher.touch(task.attempt_id, 0.5, now=63.9)
    assert due(dispatcher) == 64.4


def test_a_touch_without_seconds_changes_nothing_where_there_is_no_timeout():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "worker")
    dispatcher.touch(task.attempt_id, None, now=3.0)
    assert due(dispatcher) is None


def test_what_a_worker_says_of_an_attempt_it_lost_changes_nothing():
    dispatcher = Dispatcher(timeout=1.0)
    task = run(dispatcher, "a", "slow", "other")
    lost = task.attempt_id
    dispatcher.expire(now=1.0)
    hand_out(dispatcher, now=1.0)
    dispatcher.fail(lost, "too late", now=1.5)
    dispatcher.reject(lost, "too late", now=0.5)
    dispatcher.release(lost, 0.0)
    dispatcher.touch(lost, 100.0, now=1.5)
    assert (dispatcher.running, due(dispatcher), dispatcher.counters.late) == (1, 2.0, 4)


def test_an_idle_worker_that_is_gone_costs_nothing():
    dispatcher = Dispatcher(tries=1)
    submit(dispatcher, "a")
    ready(dispatcher, "gone", "gone", "alive")
    _, task = dispatcher.hand_out(now=0.0)
    dispatcher.take_back(task, now=0.0)
    assert hand_out(dispatcher, now=0.0) == [("alive", "a")]
    assert (task.attempts, dispatcher.idle, dispatcher.counters.attempts) == (1, 0, 1)
    assert (dispatcher.counters.gone, dispatcher.counters.taken_back) == (1, 0)


def test_a_worker_found_gone_loses_what_it_was_running():
    dispatcher = Dispatcher()
    submit(dispatcher, "a", "b")
    ready(dispatcher, "gone", "gone")
    dispatcher.hand_out(now=0.0)
    _, second = dispatcher.hand_out(now=1.0)
    dispatcher.take_back(second, now=1.0)
    assert (dispatcher.running, due(dispatcher), dispatcher.counters.lost) == (1, 1.0 + GRACE, 1)


def test_a_task_taken_back_is_still_the_first_in_the_queue():
    dispatcher = Dispatcher()
    submit(dispatcher, "a", "b")
    ready(dispatcher, "gone")
    _, first = dispatcher.hand_out(now=0.0)
    dispatcher.take_back(first, now=0.0)
    ready(dispatcher, "one", "two")
    assert [name for _, name in hand_out(dispatcher, now=0.0)] == ["a", "b"]


def test_ids_of_an_earlier_run_match_nothing():
    dispatcher = Dispatcher(run=b"new run!")
    run(dispatcher, "a", "worker")
    task = run(Dispatcher(run=b"old run!"), "a", "worker")
    dispatcher.result(task.attempt_id, [b"stale"], now=0.5)
    assert outcomes(dispatcher) == []
    assert (dispatcher.running, dispatcher.counters.late) == (1, 1)


@pytest.mark.parametrize("attempt_id", [b"", b"x", b"x" * 15, b"x" * 16, b"x" * 1000, memoryview(bytes(16))])
def test_a_made_up_attempt_id_is_counted_and_changes_nothing(attempt_id: bytes):
    dispatcher = Dispatcher()
    submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    dispatcher.result(attempt_id, [b"forged"], now=0.5)
    assert dispatcher.running == 1
    assert dispatcher.counters.late + dispatcher.counters.malformed == 1


def test_abandoning_fails_every_task_once():
    dispatcher = Dispatcher(timeout=1.0, back_off=BackOff(60.0))
    submit(dispatcher, "delayed", "running", "waiting")
    ready(dispatcher, "one")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.0)
    ready(dispatcher, "two")
    hand_out(dispatcher, now=1.0)
    assert (dispatcher.waiting, dispatcher.delayed, dispatcher.running) == (1, 1, 1)
    dispatcher.abandon("the broker was shut down", now=9.0)
    dispatcher.abandon("the broker was shut down", now=9.0)
    assert outcomes(dispatcher) == [("failed", [], "the broker was shut down")] * 3
    assert dispatcher.unsettled == 0


def test_a_task_with_a_header_that_is_abandoned_is_unavailable_and_its_key_is_free():
    dispatcher = Dispatcher()
    run(dispatcher, "running", "worker", key="k")
    submit(dispatcher, "waiting", tries=2)
    submit(dispatcher, "plain")
    dispatcher.abandon("the broker was shut down", now=1.0)
    assert sorted(outcomes(dispatcher)) == [
        ("failed", [], "the broker was shut down"),
        ("unavailable", [], "the broker was shut down"),
        ("unavailable", [], "the broker was shut down"),
    ]
    assert (dispatcher.counters.failed, dispatcher.counters.unfinished) == (1, 2)
    submit(dispatcher, "again", key="k", now=2.0)
    assert (dispatcher.waiting, dispatcher.counters.joined) == (1, 0)


def test_who_accepts_no_more_refuses_new_tasks_and_heeds_what_is_said_of_known_ones():
    dispatcher = Dispatcher()
    task = run(dispatcher, "joined", "worker", key="k")
    submit(dispatcher, "cancelled", key="l")
    dispatcher.stop_accepting("the broker is shutting down")
    submit(dispatcher, "plain")
    submit(dispatcher, "new", key="m")
    submit(dispatcher, "nameless", tries=1)
    assert outcomes(dispatcher) == [
        ("failed", [], "the broker is shutting down"),
        ("unavailable", [], "the broker is shutting down"),
        ("unavailable", [], "the broker is shutting down"),
    ]
    assert dispatcher.counters.refused == 3
    dispatcher.submit([b"other"], [b"joined"], 1.0, Header(key="k"))
    dispatcher.submit([b"client cancelled"], [b""], 1.0, Header(key="l", cancel=True))
    dispatcher.result(task.attempt_id, [b"result"], now=1.0)
    assert replies(dispatcher) == [
        (b"client cancelled", "cancelled"),
        (b"client joined", "done"),
        (b"other", "done"),
    ]


def test_deadlines_of_settled_tasks_do_not_pile_up():
    dispatcher = Dispatcher(timeout=3600.0)
    for number in range(5 * STALE_KEPT):
        submit(dispatcher, "a")
        ready(dispatcher, "worker")
        ((_, task),) = take(dispatcher, now=float(number))
        dispatcher.result(task.attempt_id, [b"x"], now=0.5)
        dispatcher.settled.clear()
        assert due(dispatcher) is None
    assert len(dispatcher._timers._heap) <= STALE_KEPT + 3


def test_deadlines_of_a_burst_do_not_outlive_it():
    dispatcher = Dispatcher(timeout=3600.0)
    submit(dispatcher, *["a"] * 5 * STALE_KEPT)
    ready(dispatcher, *["worker"] * 5 * STALE_KEPT)
    _, *others = [task for _, task in take(dispatcher, now=0.0)]
    for task in others:
        dispatcher.result(task.attempt_id, [b"x"], now=1.0)
    assert due(dispatcher) == 3600.0
    assert len(dispatcher._timers._heap) <= STALE_KEPT + 2


def test_a_result_for_an_attempt_that_never_was_is_counted_and_changes_nothing():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "worker")
    for number in (0, 2, 99):
        forged = task.attempt_id[:-16] + number.to_bytes(8, "big") + task.attempt_id[-8:]
        dispatcher.result(forged, [b"forged"], now=0.5)
    assert (dispatcher.running, dispatcher.counters.malformed) == (1, 3)


def test_forgotten_workers_do_not_pile_up():
    dispatcher = Dispatcher()
    for number in range(5 * STALE_KEPT):
        ready(dispatcher, f"worker {number}")
        dispatcher.lose_worker(f"worker {number}".encode(), now=0.0)
    assert dispatcher.idle == 0
    assert places(dispatcher) <= STALE_KEPT + 1


def test_withdrawn_retries_do_not_pile_up():
    dispatcher = Dispatcher(timeout=1.0)
    for number in range(5 * STALE_KEPT):
        submit(dispatcher, "a")
        ready(dispatcher, "worker")
        ((_, task),) = take(dispatcher, now=2.0 * number)
        attempt_id = task.attempt_id
        dispatcher.expire(now=2.0 * number + 1)
        dispatcher.result(attempt_id, [b"late"], now=0.5)
        dispatcher.settled.clear()
    assert dispatcher.waiting == 0
    assert entries(dispatcher) <= STALE_KEPT + 1


def test_a_task_offered_to_many_workers_that_are_gone_leaves_no_pile_of_deadlines():
    dispatcher = Dispatcher(timeout=60.0)
    for number in range(5 * STALE_KEPT):
        ready(dispatcher, f"worker {number}")
    submit(dispatcher, "a")
    while (pair := dispatcher.hand_out(now=0.0)) is not None:
        _, task = pair
        dispatcher.take_back(task, now=0.0)
    assert (task.attempts, dispatcher.idle, dispatcher.waiting) == (0, 0, 1)
    assert due(dispatcher) is None
    assert len(dispatcher._timers._heap) <= STALE_KEPT + 3


# What a header asks for


def test_a_higher_priority_goes_first_and_equal_ones_as_they_came():
    dispatcher = Dispatcher()
    submit(dispatcher, "plain")
    submit(dispatcher, "low", priority=-5)
    submit(dispatcher, "high one", "high two", priority=7)
    submit(dispatcher, "none", priority=0)
    ready(dispatcher, *["worker"] * 5)
    order = [name for _, name in hand_out(dispatcher, now=0.0)]
    assert order == ["high one", "high two", "plain", "none", "low"]


def test_a_retry_goes_first_among_its_equals_only():
    dispatcher = Dispatcher(timeout=1.0)
    run(dispatcher, "retried", "worker")
    submit(dispatcher, "later")
    submit(dispatcher, "urgent", priority=1)
    dispatcher.expire(now=1.0)
    ready(dispatcher, *["worker"] * 3)
    assert [name for _, name in hand_out(dispatcher, now=1.0)] == ["urgent", "retried", "later"]


def test_a_delayed_task_waits_for_its_instant_and_then_its_turn():
    dispatcher = Dispatcher()
    submit(dispatcher, "delayed", now=1.0, delay=5.0)
    ready(dispatcher, "one", "two")
    assert hand_out(dispatcher, now=1.0) == []
    assert due(dispatcher) == 6.0
    submit(dispatcher, "earlier", now=6.0)
    dispatcher.expire(now=6.0)
    assert [name for _, name in hand_out(dispatcher, now=6.0)] == ["earlier", "delayed"]


def test_a_task_may_have_a_timeout_and_tries_of_its_own():
    dispatcher = Dispatcher(tries=5, timeout=60.0)
    task = run(dispatcher, "a", "worker", timeout=2.0, tries=1)
    assert due(dispatcher) == 2.0
    dispatcher.expire(now=2.0)
    assert outcomes(dispatcher) == [("failed", [], "timed out after 2 s (1 of 1 attempts)")]
    assert task.attempts == 1


def test_zero_in_a_header_takes_the_brokers_limit_away():
    dispatcher = Dispatcher(tries=1, timeout=1.0)
    task = run(dispatcher, "a", "one", "two", timeout=0, tries=0)
    assert due(dispatcher) is None
    dispatcher.fail(task.attempt_id, "no", now=1.0)
    assert hand_out(dispatcher, now=1.0) == [("two", "a")]


def test_all_who_join_a_task_get_its_outcome_each_connection_once():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "one", "two", key="k")
    for name in ("a again", "a", "a again"):
        submit(dispatcher, name, key="k")
    assert hand_out(dispatcher, now=0.0) == []
    dispatcher.result(task.attempt_id, [b"x"], now=0.5)
    assert replies(dispatcher) == [(b"client a", "done"), (b"client a again", "done")]
    assert (dispatcher.counters.accepted, dispatcher.counters.joined) == (1, 3)
    submit(dispatcher, "later", key="k", now=1.0)
    assert replies(dispatcher)[-1] == (b"client later", "done")


def test_a_client_that_comes_back_over_another_connection_gets_the_reply_that_was_kept():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "one", "two", key="k")
    dispatcher.result(task.attempt_id, [b"x"], now=0.5)
    outcomes(dispatcher)
    submit(dispatcher, "came back", now=60.4, key="k")
    assert hand_out(dispatcher, now=60.4) == []
    assert [reply.envelope for reply in dispatcher.settled] == [[b"client came back"]]
    assert outcomes(dispatcher) == [("done", [b"x"], "")]


def test_a_reply_is_not_kept_for_more_than_a_minute():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "one", "two", key="k")
    dispatcher.result(task.attempt_id, [b"x"], now=0.5)
    outcomes(dispatcher)
    assert due(dispatcher) == 60.5
    submit(dispatcher, "too late", now=60.5, key="k")
    assert hand_out(dispatcher, now=60.5) == [("two", "too late")]


def test_a_key_used_again_by_the_connection_that_had_its_reply_is_a_new_task():
    dispatcher = Dispatcher()
    for _ in range(2):
        task = run(dispatcher, "a", "worker", key="k")
        dispatcher.result(task.attempt_id, [b"x"], now=0.5)
    assert dispatcher.counters.done == 2


def test_a_reply_that_could_not_be_sent_is_for_whoever_comes_back():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "worker", key="k")
    dispatcher.result(task.attempt_id, [b"x"], now=0.5)
    outcomes(dispatcher)
    dispatcher.undelivered(task, task.envelope[0])
    submit(dispatcher, "a", now=1.0, key="k")
    assert outcomes(dispatcher) == [("done", [b"x"], "")]


@pytest.mark.parametrize("state", ["waiting", "delayed"])
def test_a_cancelled_task_that_waits_is_gone_at_once(state: str):
    dispatcher = Dispatcher()
    submit(dispatcher, "a", key="k", delay=9.0 if state == "delayed" else 0.0)
    submit(dispatcher, "a", key="k", cancel=True)
    assert outcomes(dispatcher) == [("cancelled", [], "cancelled by its client")]
    ready(dispatcher, "worker")
    dispatcher.expire(now=9.0)
    assert hand_out(dispatcher, now=9.0) == []
    assert (dispatcher.unsettled, dispatcher.counters.cancelled) == (0, 1)


def test_the_result_of_a_cancelled_task_is_dropped_and_its_touch_needs_no_answer():
    dispatcher = Dispatcher(timeout=5.0)
    task = run(dispatcher, "a", "worker", key="k")
    attempt_id = task.attempt_id
    submit(dispatcher, "a", key="k", cancel=True)
    assert outcomes(dispatcher) == [("cancelled", [], "cancelled by its client")]
    dispatcher.touch(attempt_id, None, now=1.0)
    dispatcher.result(attempt_id, [b"x"], now=1.0)
    assert outcomes(dispatcher) == []
    assert (dispatcher.running, dispatcher.counters.late) == (0, 2)


def test_whoever_cancels_from_elsewhere_is_answered_as_well_as_the_one_who_waits():
    dispatcher = Dispatcher()
    submit(dispatcher, "a", key="k")
    submit(dispatcher, "canceller", key="k", cancel=True)
    assert [(task.envelope, task.status) for task in dispatcher.settled] == [
        ([b"client a"], "cancelled"),
        ([b"client canceller"], "cancelled"),
    ]
    assert dispatcher.counters.cancelled == 1


def test_cancelling_what_is_not_there_is_answered_as_invalid():
    dispatcher = Dispatcher()
    submit(dispatcher, "a", key="k", cancel=True)
    assert outcomes(dispatcher) == [("invalid", [], "there is no unsettled task with this key")]
    assert (dispatcher.counters.accepted, dispatcher.counters.refused) == (0, 1)


# Workers whose connection has dropped


def test_a_lost_worker_loses_its_attempt_after_a_grace():
    dispatcher = Dispatcher(tries=2, timeout=60.0)
    run(dispatcher, "a", "lost", "other")
    dispatcher.lose_worker(b"lost", now=1.0)
    dispatcher.expire(now=1.0)
    assert hand_out(dispatcher, now=1.0) == []
    assert due(dispatcher) == 1.0 + GRACE
    dispatcher.expire(now=1.0 + GRACE)
    assert hand_out(dispatcher, now=1.0 + GRACE) == [("other", "a")]
    dispatcher.lose_worker(b"other", now=2.0)
    dispatcher.expire(now=3.0)
    assert outcomes(dispatcher) == [("failed", [], "the worker was lost")]


def test_a_result_that_was_on_its_way_when_its_worker_was_lost_counts():
    dispatcher = Dispatcher(tries=1)
    task = run(dispatcher, "a", "worker")
    dispatcher.lose_worker(b"worker", now=1.0)
    dispatcher.result(task.attempt_id, [b"x"], now=1.05)
    dispatcher.expire(now=2.0)
    assert outcomes(dispatcher) == [("done", [b"x"], "")]
    assert (dispatcher.counters.retried, dispatcher.counters.failed) == (0, 0)


def test_a_lost_worker_is_not_idle_any_more():
    dispatcher = Dispatcher()
    ready(dispatcher, "lost", "lost", "other")
    dispatcher.lose_worker(b"lost", now=0.0)
    submit(dispatcher, "a")
    assert hand_out(dispatcher, now=0.0) == [("other", "a")]


def test_the_deadline_comes_first_if_it_is_nearer_than_the_grace():
    dispatcher = Dispatcher(timeout=1.0)
    run(dispatcher, "a", "worker")
    dispatcher.lose_worker(b"worker", now=0.95)
    assert due(dispatcher) == 1.0


def test_a_lost_worker_cannot_put_off_the_loss():
    dispatcher = Dispatcher()
    task = run(dispatcher, "a", "worker")
    dispatcher.lose_worker(b"worker", now=1.0)
    dispatcher.touch(task.attempt_id, 60.0, now=1.01)
    dispatcher.lose_worker(b"worker", now=1.05)
    assert due(dispatcher) == 1.0 + GRACE


def test_all_tasks_of_a_lost_worker_are_lost_and_no_others():
    dispatcher = Dispatcher()
    submit(dispatcher, "a", "b", "c")
    ready(dispatcher, "lost", "lost", "other")
    hand_out(dispatcher, now=0.0)
    dispatcher.lose_worker(b"lost", now=1.0)
    dispatcher.expire(now=2.0)
    assert (dispatcher.waiting, dispatcher.running, dispatcher.counters.lost) == (2, 1, 2)
