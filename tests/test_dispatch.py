"""The core with literal times: what becomes of a task."""

import pytest

from zmqbroker.dispatch import STALE_ENTRIES_KEPT, Dispatcher, Task


def submit(dispatcher: Dispatcher, *names: str) -> list[Task]:
    return [dispatcher.submit([b"client " + name.encode()], [name.encode()]) for name in names]


def ready(dispatcher: Dispatcher, *workers: str) -> None:
    for worker in workers:
        dispatcher.ready([worker.encode()])


def hand_out(dispatcher: Dispatcher, now: float) -> list[tuple[str, str]]:
    """Hand out all that can be, as pairs of a worker and a task's body."""
    pairs = []
    while (pair := dispatcher.hand_out(now)) is not None:
        envelope, task = pair
        pairs.append((bytes(envelope[0]).decode(), bytes(task.body[0]).decode()))
    return pairs


def outcomes(dispatcher: Dispatcher) -> list[tuple[str, list[bytes], str]]:
    """Take what was settled: status, body and reason of each."""
    settled = [(task.status, task.body, task.reason) for task in dispatcher.settled]
    dispatcher.settled.clear()
    return settled


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
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    dispatcher.result(task.attempt_id, [b"re", b"sult"])
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
    assert dispatcher.next_due() == 105.0


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
    assert dispatcher.next_due() is None
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
    dispatcher = Dispatcher(timeout=1.0, retry_delay=10.0)
    submit(dispatcher, "a")
    ready(dispatcher, "one", "two")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.0)
    assert (dispatcher.waiting, dispatcher.delayed, dispatcher.next_due()) == (0, 1, 11.0)
    dispatcher.expire(now=10.9)
    assert hand_out(dispatcher, now=10.9) == []
    dispatcher.expire(now=11.0)
    assert hand_out(dispatcher, now=11.0) == [("two", "a")]


@pytest.mark.parametrize("retry_delay", [0.0, 60.0])
def test_a_late_result_counts_while_the_task_waits_for_its_retry(retry_delay: float):
    dispatcher = Dispatcher(timeout=1.0, retry_delay=retry_delay)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    first_attempt = task.attempt_id
    dispatcher.expire(now=1.0)
    dispatcher.result(first_attempt, [b"late but good"])
    assert outcomes(dispatcher) == [("done", [b"late but good"], "timed out after 1 s (1 of 3 attempts)")]
    ready(dispatcher, "worker")
    dispatcher.expire(now=100.0)
    assert hand_out(dispatcher, now=100.0) == []
    assert dispatcher.unsettled == 0


def test_the_first_result_of_two_attempts_counts_and_the_second_is_dropped():
    dispatcher = Dispatcher(timeout=1.0)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "slow", "quick")
    hand_out(dispatcher, now=0.0)
    first = task.attempt_id
    dispatcher.expire(now=1.0)
    hand_out(dispatcher, now=1.0)
    second = task.attempt_id
    dispatcher.result(first, [b"first"])
    dispatcher.result(second, [b"second"])
    assert [body for _, body, _ in outcomes(dispatcher)] == [[b"first"]]
    assert dispatcher.counters.late == 1


def test_a_failed_attempt_is_tried_again_at_once():
    dispatcher = Dispatcher(tries=2)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "one", "two", "three")
    hand_out(dispatcher, now=0.0)
    dispatcher.fail(task.attempt_id, "ValueError: bad input", now=0.1)
    assert hand_out(dispatcher, now=0.1) == [("two", "a")]
    dispatcher.fail(task.attempt_id, "ValueError: bad again", now=0.2)
    assert outcomes(dispatcher) == [("failed", [], "ValueError: bad again")]


def test_a_rejected_task_is_not_tried_again():
    dispatcher = Dispatcher(tries=0)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "one", "two")
    hand_out(dispatcher, now=0.0)
    dispatcher.reject(task.attempt_id, "no such file")
    assert outcomes(dispatcher) == [("failed", [], "no such file")]
    assert hand_out(dispatcher, now=0.0) == []


def test_a_released_task_goes_to_another_worker_and_is_not_charged():
    dispatcher = Dispatcher(tries=1)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "leaving", "staying")
    hand_out(dispatcher, now=0.0)
    before = task.attempt_id
    dispatcher.release(task.attempt_id)
    assert hand_out(dispatcher, now=0.0) == [("staying", "a")]
    assert task.attempts == 1
    assert task.attempt_id != before


def test_a_touch_moves_the_deadline():
    dispatcher = Dispatcher(timeout=5.0)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    dispatcher.touch(task.attempt_id, None, now=3.0)
    assert dispatcher.next_due() == 8.0
    dispatcher.touch(task.attempt_id, 60.0, now=4.0)
    assert dispatcher.next_due() == 64.0
    dispatcher.expire(now=63.9)
    assert dispatcher.running == 1
    dispatcher.touch(task.attempt_id, 0.5, now=63.9)
    assert dispatcher.next_due() == 64.4


def test_a_touch_without_seconds_changes_nothing_where_there_is_no_timeout():
    dispatcher = Dispatcher()
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    dispatcher.touch(task.attempt_id, None, now=3.0)
    assert dispatcher.next_due() is None


def test_what_a_worker_says_of_an_attempt_it_lost_changes_nothing():
    dispatcher = Dispatcher(timeout=1.0)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "slow", "other")
    hand_out(dispatcher, now=0.0)
    lost = task.attempt_id
    dispatcher.expire(now=1.0)
    hand_out(dispatcher, now=1.0)
    dispatcher.fail(lost, "too late", now=1.5)
    dispatcher.reject(lost, "too late")
    dispatcher.release(lost)
    dispatcher.touch(lost, 100.0, now=1.5)
    assert (dispatcher.running, dispatcher.next_due(), dispatcher.counters.late) == (1, 2.0, 4)


def test_an_idle_worker_that_is_gone_costs_nothing():
    dispatcher = Dispatcher(tries=1)
    (task,) = submit(dispatcher, "a")
    ready(dispatcher, "gone", "gone", "alive")
    dispatcher.hand_out(now=0.0)
    dispatcher.take_back(task)
    assert hand_out(dispatcher, now=0.0) == [("alive", "a")]
    assert (task.attempts, dispatcher.idle, dispatcher.counters.attempts) == (1, 0, 1)


def test_a_task_taken_back_is_still_the_first_in_the_queue():
    dispatcher = Dispatcher()
    first, _ = submit(dispatcher, "a", "b")
    ready(dispatcher, "gone")
    dispatcher.hand_out(now=0.0)
    dispatcher.take_back(first)
    ready(dispatcher, "one", "two")
    assert [name for _, name in hand_out(dispatcher, now=0.0)] == ["a", "b"]


def test_ids_of_an_earlier_run_match_nothing():
    dispatcher = Dispatcher(run=b"new run!")
    submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    earlier = Dispatcher(run=b"old run!")
    (task,) = submit(earlier, "a")
    ready(earlier, "worker")
    hand_out(earlier, now=0.0)
    dispatcher.result(task.attempt_id, [b"stale"])
    assert outcomes(dispatcher) == []
    assert (dispatcher.running, dispatcher.counters.late) == (1, 1)


@pytest.mark.parametrize("attempt_id", [b"", b"x", b"x" * 15, b"x" * 16, b"x" * 1000, bytearray(16)])
def test_a_made_up_attempt_id_is_counted_and_changes_nothing(attempt_id: bytes):
    dispatcher = Dispatcher()
    submit(dispatcher, "a")
    ready(dispatcher, "worker")
    hand_out(dispatcher, now=0.0)
    dispatcher.result(attempt_id, [b"forged"])
    assert dispatcher.running == 1
    assert dispatcher.counters.late + dispatcher.counters.malformed == 1


def test_abandoning_fails_every_task_once():
    dispatcher = Dispatcher(timeout=1.0, retry_delay=60.0)
    submit(dispatcher, "delayed", "running", "waiting")
    ready(dispatcher, "one")
    hand_out(dispatcher, now=0.0)
    dispatcher.expire(now=1.0)
    ready(dispatcher, "two")
    hand_out(dispatcher, now=1.0)
    assert (dispatcher.waiting, dispatcher.delayed, dispatcher.running) == (1, 1, 1)
    dispatcher.abandon("the broker was shut down")
    dispatcher.abandon("the broker was shut down")
    assert outcomes(dispatcher) == [("failed", [], "the broker was shut down")] * 3
    assert dispatcher.unsettled == 0


def test_deadlines_of_settled_tasks_do_not_pile_up():
    dispatcher = Dispatcher(timeout=3600.0)
    for number in range(5 * STALE_ENTRIES_KEPT):
        (task,) = submit(dispatcher, "a")
        ready(dispatcher, "worker")
        hand_out(dispatcher, now=float(number))
        dispatcher.result(task.attempt_id, [b"x"])
        dispatcher.settled.clear()
    assert len(dispatcher._timers) <= STALE_ENTRIES_KEPT + 3


def test_forgotten_workers_do_not_pile_up():
    dispatcher = Dispatcher()
    for number in range(5 * STALE_ENTRIES_KEPT):
        ready(dispatcher, f"worker {number}")
        dispatcher.forget_worker(f"worker {number}".encode())
    assert dispatcher.idle == 0
    assert len(dispatcher._idle) <= STALE_ENTRIES_KEPT + 1


def test_withdrawn_retries_do_not_pile_up():
    dispatcher = Dispatcher(timeout=1.0)
    for number in range(5 * STALE_ENTRIES_KEPT):
        (task,) = submit(dispatcher, "a")
        ready(dispatcher, "worker")
        hand_out(dispatcher, now=2.0 * number)
        attempt_id = task.attempt_id
        dispatcher.expire(now=2.0 * number + 1)
        dispatcher.result(attempt_id, [b"late"])
        dispatcher.settled.clear()
    assert dispatcher.waiting == 0
    assert len(dispatcher._retries) <= STALE_ENTRIES_KEPT + 1


def test_a_task_offered_to_many_workers_that_are_gone_leaves_no_pile_of_deadlines():
    dispatcher = Dispatcher(timeout=60.0)
    for number in range(5 * STALE_ENTRIES_KEPT):
        ready(dispatcher, f"worker {number}")
    (task,) = submit(dispatcher, "a")
    while dispatcher.hand_out(now=0.0) is not None:
        dispatcher.take_back(task)
    assert (task.attempts, dispatcher.idle, dispatcher.waiting) == (0, 0, 1)
    assert len(dispatcher._timers) <= STALE_ENTRIES_KEPT + 3
