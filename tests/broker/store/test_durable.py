"""What becomes of durable tasks, turn by turn, with literal times."""

from math import inf

import pytest
from simulated_store import SimulatedDisk
from storing_support import EPOCH, Died, Life

from zmqbroker.broker.dispatch import MOST_DEATHS
from zmqbroker.broker.store import outcomes
from zmqbroker.broker.store.gate import DAMAGED
from zmqbroker.broker.store.journal import STORE_FAILED
from zmqbroker.wire import Announce, announced

SERIAL = Announce(label="serial", serial=True)
PLAIN = [b"plain"]


@pytest.fixture
def disk():
    return SimulatedDisk()


@pytest.fixture
def life(disk):
    return Life(disk, tries=3)


def leave(life: Life, *keys: str, now: float = 0.0, **fields: object) -> None:
    """Have tasks left with a broker, and stored."""
    for key in keys:
        life.submit(f"who left {key}", key.encode(), key=key, detach=True, **fields)
    life.turn(now)


def run_one(life: Life, now: float = 0.0) -> bytes:
    """Have a plain worker come for one task; return the attempt's id."""
    life.dispatcher.ready(list(PLAIN))
    life.turn(now)
    return life.attempt_ids()[-1]


def finish(life: Life, *keys: str, now: float = 0.0) -> None:
    """Leave tasks and have them done."""
    for key in keys:
        leave(life, key, now=now)
        life.dispatcher.result(run_one(life, now), [b"result of " + key.encode()], now)
        life.turn(now)
    life.take_replies()


def fetch(life: Life, key: str, now: float = 0.0, **fields: object) -> tuple[str, bytes, str]:
    """Fetch an outcome: its status, body and reason."""
    life.submit("fetcher", key=key, **({"fetch": 0} | fields))
    life.turn(now)
    life.turn(now)
    ((_, reply),) = life.take_replies()
    return reply.status, bytes(reply.body[0]), reply.reason


# Acceptance


def test_a_detached_task_is_accepted_once_it_is_stored(life, disk):
    life.is_late = True
    leave(life, "a")
    assert life.answers() == []
    life.store.commit()
    life.turn()
    assert life.answers() == [("who left a", "accepted")]
    assert [task.body for task in disk.tasks.values()] == [[b"a"]]


def test_a_durable_task_is_answered_with_its_outcome_once_that_is_stored(life):
    life.submit("client", key="a", durable=True)
    attempt_id = run_one(life)
    life.is_late = True
    life.dispatcher.result(attempt_id, [b"result"], 0.0)
    life.turn()
    assert life.answers() == []
    life.store.commit()
    life.turn()
    assert life.answers() == [("client", "done")]


def test_who_leaves_a_task_again_is_told_that_it_is_there(life):
    leave(life, "a")
    leave(life, "a")
    finish(life, "b")
    life.submit("other", key="b", detach=True)
    life.turn()
    assert [status for _, status in life.answers()] == ["accepted"]
    assert life.dispatcher.counters.accepted == 2


def test_a_task_that_was_not_to_be_stored_is_not_joined_by_one_that_is(life):
    life.submit("client", key="a")
    leave(life, "a")
    assert life.answers() == [("who left a", "invalid")]


def test_what_is_kept_in_memory_only_does_not_answer_who_wants_a_task_stored(life):
    life.submit("client", b"first", key="a")
    life.dispatcher.result(run_one(life), [b"result of first"], 0.0)
    life.turn()
    leave(life, "a")
    assert life.answers() == [("client", "done"), ("who left a", "accepted")]
    life.dispatcher.result(run_one(life), [b"result of second"], 0.0)
    life.turn()
    assert fetch(life, "a", forget=True)[1] == b"result of second"
    assert fetch(life, "a")[0] == "unknown"


# Handing out


def test_a_hand_out_is_stored_before_it_is_sent(life, disk):
    life.is_late = True
    life.dispatcher.ready(list(PLAIN))
    leave(life, "a")
    assert life.given() == []
    life.store.commit()
    assert [task.state.status for task in disk.tasks.values()] == ["running"]
    life.turn()
    assert life.given() == [("plain", b"a")]


def test_time_runs_from_when_a_task_is_sent_and_no_attempt_is_charged_before(life):
    life.is_late = True
    life.dispatcher.ready(list(PLAIN))
    leave(life, "a", timeout=1.0)
    life.turn(5.0)
    assert life.dispatcher.counters.retried == 0
    life.store.commit()
    life.turn(6.0)
    assert life.given() == [("plain", b"a")]
    assert life.dispatcher.next_due() == 7.0


def test_a_task_cancelled_before_it_was_sent_leaves_its_worker_ready(life):
    life.is_late = True
    life.dispatcher.ready(list(PLAIN))
    leave(life, "a")
    life.submit("canceller", key="a", cancel=True)
    life.submit("client", b"plain task")
    life.turn()
    assert life.given() == [("plain", b"plain task")]
    while life.store.commit():
        pass
    life.turn()
    assert life.given() == []
    assert life.told == []


def test_what_follows_a_durable_task_to_its_worker_does_not_overtake_it(life):
    life.join("serial", 3, SERIAL)
    life.submit("client", b"1")
    life.submit("client", b"2", key="b", detach=True)
    life.submit("client", b"3")
    life.turn()
    assert life.given() == [("serial", b"1"), ("serial", b"2"), ("serial", b"3")]


def test_a_worker_that_is_gone_costs_no_attempt_and_the_next_turn_says_so(life, disk):
    life.dispatcher.ready(list(PLAIN))
    life.gone.add(b"plain")
    leave(life, "a")
    assert disk.tasks[1].state.attempts == 1
    life.turn()
    assert (disk.tasks[1].state.status, disk.tasks[1].state.attempts) == ("waiting", 0)


def test_what_lies_behind_is_stored_as_an_attempt_and_corrected_when_it_waits_again(life, disk):
    life.join("serial", 2, SERIAL)
    leave(life, "a", "b")
    assert [task.state.attempts for task in disk.tasks.values()] == [1, 1]
    life.turn(0.01)
    assert [(task.state.status, task.state.attempts) for task in disk.tasks.values()] == [
        ("running", 1),
        ("waiting", 0),
    ]


# Fetching, forgetting, cancelling


def test_an_outcome_is_fetched_as_often_as_somebody_likes_until_it_is_forgotten(life, disk):
    finish(life, "a")
    assert fetch(life, "a") == ("done", b"result of a", "")
    assert fetch(life, "a", body=False) == ("done", b"", "")
    assert fetch(life, "a", forget=True) == ("done", b"result of a", "")
    assert fetch(life, "a") == ("unknown", b"", "there is no task with this key, and no outcome of one")
    assert not disk.tasks


def test_who_fetches_too_early_is_told_where_the_task_stands(life):
    leave(life, "a", delay=10.0)
    leave(life, "b")
    life.take_replies()
    assert fetch(life, "a")[0] == "delayed"
    assert fetch(life, "b")[0] == "waiting"
    run_one(life)
    assert fetch(life, "b")[0] == "running"


def test_who_waits_for_an_outcome_gets_it_or_is_told_at_the_end_of_the_wait(life):
    leave(life, "a")
    life.take_replies()
    life.submit("short", key="a", fetch=1.0)
    life.submit("long", key="a", fetch=10.0)
    attempt_id = run_one(life)
    life.turn(1.0)
    assert life.answers() == [("short", "running")]
    life.dispatcher.result(attempt_id, [b"result"], 2.0)
    life.turn(2.0)
    assert life.answers() == [("long", "done")]
    life.turn(20.0)
    assert life.answers() == []


def test_that_an_outcome_is_forgotten_is_told_once_it_is_stored(life, disk):
    finish(life, "a")
    life.submit("client", key="a", forget=True)
    life.turn()
    life.is_late = True
    life.turn()
    assert life.answers() == []
    life.store.commit()
    assert not disk.tasks
    life.turn()
    assert life.answers() == [("client", "done")]


def test_two_who_forget_an_outcome_do_not_forget_the_next_one_with_its_key(life, disk):
    finish(life, "a")
    life.is_late = True
    for client in ("first", "second"):
        life.submit(client, key="a", forget=True)
        life.turn()
    life.store.commit()
    life.turn()  # the first is through
    finish_late(life)
    assert [task.state.status for task in disk.tasks.values()] == ["done"]
    assert fetch(life, "a")[:2] == ("done", b"result of the next")


def finish_late(life: Life) -> None:
    life.submit("client", key="a", detach=True)
    life.is_late = False
    life.dispatcher.result(run_one(life), [b"result of the next"], 0.0)
    life.turn()
    life.turn()
    life.take_replies()


def test_a_fetch_that_waits_and_forgets_leaves_nothing(life, disk):
    leave(life, "a")
    life.submit("fetcher", key="a", fetch=5.0, forget=True)
    life.dispatcher.result(run_one(life), [b"result"], 0.0)
    life.turn()
    assert life.answers() == [("who left a", "accepted"), ("fetcher", "done")]
    life.turn()  # not before it was sent
    assert not disk.tasks
    assert len(life.journal.outcomes) == 0


def test_where_a_task_stands_is_told_once_that_is_stored(life):
    life.is_late = True
    leave(life, "a")
    life.submit("fetcher", key="a", fetch=0)
    life.turn()
    assert life.answers() == []
    while life.store.commit():
        pass
    life.turn()
    assert life.answers() == [("who left a", "accepted"), ("fetcher", "waiting")]


def test_who_cancels_a_durable_task_is_told_so_and_so_is_who_waits(life, disk):
    life.submit("client", key="a", durable=True)
    life.submit("canceller", key="a", cancel=True)
    life.turn()
    assert sorted(life.answers()) == [("canceller", "cancelled"), ("client", "cancelled")]
    assert disk.tasks[1].state.status == "cancelled"
    assert fetch(life, "a")[0] == "cancelled"


def test_each_id_of_a_connection_is_answered(life):
    life.submit("client", key="a", id="1", durable=True)
    life.submit("client", key="a", id="2", durable=True)
    life.submit("client", key="a", id="2", durable=True)
    life.submit("other", key="a")
    life.dispatcher.result(run_one(life), [b"result"], 0.0)
    life.turn()
    assert sorted((client, reply.id) for client, reply in life.take_replies() if client == "client") == [
        ("client", "1"),
        ("client", "2"),
    ]


# How long outcomes are kept


def test_a_result_is_kept_for_a_while_and_a_failure_for_longer(disk):
    life = Life(disk, keep=5.0, keep_failed=20.0)
    finish(life, "a")
    leave(life, "b")
    life.dispatcher.reject(run_one(life), "no", 0.0)
    life.turn(4.9)
    assert len(disk.tasks) == 2
    life.turn(5.0)
    assert [task.request.key for task in disk.tasks.values()] == ["b"]
    life.turn(20.0)
    assert not disk.tasks


def test_a_client_says_how_long_its_outcome_is_kept_and_one_that_waited_needs_it_for_a_minute(disk):
    life = Life(disk, keep=500.0)
    for fields in ({"detach": True, "keep": 10.0}, {"durable": True}, {"detach": True}):
        life.submit("client", key=f"{fields}", **fields)
        life.dispatcher.result(run_one(life), [b"result"], 0.0)
        life.turn()
    assert [task.state.until for task in disk.tasks.values()] == [EPOCH + 10.0, EPOCH + 60.0, EPOCH + 500.0]


def test_so_many_outcomes_expire_in_a_turn_at_most(disk, monkeypatch):
    monkeypatch.setattr(outcomes, "MOST_EXPIRED", 2)
    monkeypatch.setattr("zmqbroker.broker.store.journal.MOST_EXPIRED", 2)
    life = Life(disk, keep=5.0)
    finish(life, "a", "b", "c", "d", "e")
    left = []
    for _ in range(3):
        life.turn(6.0)
        left.append(len(disk.tasks))
    assert left == [3, 1, 0]


def test_the_oldest_failures_make_room(disk):
    life = Life(disk)
    life.journal.outcomes = outcomes.Outcomes(most_failed=2)
    for key in ("a", "b", "c"):
        leave(life, key)
        life.dispatcher.reject(run_one(life), "no", 0.0)
        life.turn()
    assert [task.request.key for task in disk.tasks.values()] == ["b", "c"]
    assert life.journal.outcomes.dropped == 1


# The next life


def again(life: Life, now: float = 100.0, ends_well: bool = False, **options: object) -> Life:
    """Have the broker end, and begin anew."""
    if ends_well:
        life.end()
    else:
        life.store.die()
    return Life(life.disk, now, **({"tries": 3} | options))


def test_what_waits_is_there_in_the_next_life_in_its_order(life):
    leave(life, "a", "b")
    leave(life, "c", priority=1)
    after = again(life)
    for _ in range(3):
        after.dispatcher.ready(list(PLAIN))
    after.turn(100.0)
    assert [body for _, body in after.given()] == [b"c", b"a", b"b"]


def test_a_delay_goes_on_while_the_broker_is_away(life):
    leave(life, "a", delay=10.0)
    leave(life, "b", delay=200.0)
    after = again(life)
    after.dispatcher.ready(list(PLAIN))
    after.dispatcher.ready(list(PLAIN))
    after.turn(100.0)
    assert after.given() == [("plain", b"a")]
    after.turn(200.0)
    assert after.given() == [("plain", b"b")]


def test_what_expires_while_the_broker_is_away_has_expired(life):
    leave(life, "a", expires=50.0)
    life.store.die()
    after = Life(life.disk, 100.0)
    after.turn(100.0)
    assert fetch(after, "a", 100.0)[0] == "expired"


def test_an_outcome_is_there_in_the_next_life(life):
    finish(life, "a")
    assert fetch(again(life), "a", 100.0) == ("done", b"result of a", "")


def test_what_a_worker_names_again_has_its_whole_time_again(life):
    life.join("worker", 1, SERIAL)
    leave(life, "a", timeout=10.0)
    (attempt_id,) = life.attempt_ids()
    after = again(life)
    after.turn(100.0)
    after.join("again", 0, SERIAL, attempt_id)
    assert after.dispatcher.next_due() == 110.0
    after.done("again", attempt_id)
    after.turn(109.0)
    assert fetch(after, "a", 109.0)[:2] == ("done", b"result")


def test_what_lay_behind_is_no_attempt_once_its_worker_says_so(life, disk):
    life.join("worker", 2, SERIAL)
    leave(life, "a", "b")
    ids = life.attempt_ids()
    after = again(life)
    after.turn(100.0)
    after.join("again", 0, SERIAL, *ids)
    assert [task.attempts for task in after.dispatcher.ledger] == [1, 0]
    after.turn(100.0)
    assert [task.state.attempts for task in disk.tasks.values()] == [1, 1]  # as what lies behind is stored


def test_an_earlier_attempt_that_a_worker_names_goes_on(life):
    life.join("first", 1, SERIAL)
    leave(life, "a", timeout=1.0)
    (first,) = life.attempt_ids()
    life.turn(1.0)  # it waits again
    life.join("second", 1, SERIAL)
    life.turn(1.0)
    after = again(life, timeout=None)
    after.join("again", 0, SERIAL, first)
    assert [task.worker.id for task in after.dispatcher.ledger] == [b"again"]
    after.failed("again", first)
    assert [task.attempts for task in after.dispatcher.ledger] == [2]


@pytest.mark.parametrize(("timeout", "lost_at"), [(None, 130.0), (7.0, 107.0), (50.0, 130.0)])
def test_what_nobody_tells_of_is_lost_in_time(life, timeout, lost_at):
    leave(life, "a", timeout=timeout)
    run_one(life)
    after = again(life, reclaim=30.0)
    after.turn(lost_at - 0.1)
    assert after.dispatcher.running == 1
    after.turn(lost_at)
    assert after.dispatcher.waiting == 1


def test_a_plain_worker_touches_and_finishes_what_it_had_in_an_earlier_life(life):
    leave(life, "a")
    attempt_id = run_one(life)
    after = again(life, reclaim=30.0)
    after.turn(129.0)
    after.dispatcher.touch(attempt_id, None, 129.0)
    after.turn(158.0)
    assert after.dispatcher.running == 1
    after.dispatcher.result(attempt_id, [b"result"], 158.0)
    after.turn(158.0)
    assert fetch(after, "a", 158.0)[:2] == ("done", b"result")


def test_a_task_that_takes_the_broker_down_with_it_runs_out_of_tries(life):
    leave(life, "a", tries=2)
    for start in (100.0, 200.0):
        run_one(life, life.now)
        life = again(life, start, reclaim=30.0)
        life.turn(start)
        life.turn(start + 30.0)
    assert fetch(life, "a", 230.0) == ("failed", b"", "the broker ended while a worker had it (2 of 2 attempts)")


def test_a_task_without_a_limit_takes_the_broker_down_so_often_at_most(life):
    leave(life, "a", tries=0)
    for number in range(1, MOST_DEATHS + 1):
        run_one(life, life.now)
        life = again(life, 100.0 * number, reclaim=30.0)
        life.turn(100.0 * number)
        assert life.dispatcher.unsettled == 1
        life.turn(100.0 * number + 30.0)
    reason = f"the broker ended {MOST_DEATHS} times while a worker had it"
    assert fetch(life, "a", life.now) == ("failed", b"", reason)


def test_ends_that_were_meant_are_no_deaths(life):
    leave(life, "a", tries=0)
    run_one(life)
    after = again(life, ends_well=True)
    assert [task.deaths for task in after.dispatcher.ledger] == [0]


def test_a_key_names_no_new_task_in_the_next_life_either(life):
    finish(life, "a")
    leave(life, "b")
    after = again(life)
    after.submit("client", key="a", durable=True)
    after.submit("client", key="b", durable=True)
    after.turn(100.0)
    assert after.answers() == [("client", "done")]
    assert after.dispatcher.counters.accepted == 0


def test_a_broker_told_to_end_while_it_loads_calls_no_task_unknown(life):
    leave(life, "a", "b", "c")
    after = again(life, is_over=True)
    after.dispatcher.stop_accepting("the broker is shutting down")
    after.submit("fetcher", key="c", fetch=0)
    after.submit("canceller", key="c", cancel=True)
    after.submit("client", key="c", durable=True)
    after.turn(100.0)
    assert {status for _, status in after.answers()} == {"unavailable"}


def test_what_is_set_of_a_queue_is_set_in_the_next_life(life):
    life.dispatcher.queues.set_limit("gpu", 2)
    life.dispatcher.queues.pause("gpu")
    life.dispatcher.note_settings("gpu")
    life.turn()
    queue = again(life).dispatcher.queues.find("gpu")
    assert (queue.limit, queue.limit_waiting, queue.is_paused) == (2, None, True)


def test_a_clock_that_jumps_moves_no_deadline(life):
    leave(life, "a", delay=10.0)
    life.jump = 1000.0
    life.turn(2.0)
    assert life.journal.offset == EPOCH + 1000.0
    assert life.dispatcher.next_due() == 10.0
    leave(life, "b", now=2.0, delay=5.0)
    after = Life(life.disk, 3.0)
    assert {task.key: task.due for task in after.dispatcher.ledger} == {"a": 10.0, "b": 1007.0}


# What cannot be stored


def test_a_damaged_task_fails_for_who_asks_and_can_be_forgotten(life, disk):
    finish(life, "b")
    leave(life, "a")
    life.take_replies()
    disk.damaged = {1, 2}
    assert fetch(life, "b") == ("failed", b"", DAMAGED)
    after = again(life)
    assert after.dispatcher.unsettled == 0
    assert fetch(after, "a", 100.0) == ("failed", b"", DAMAGED)
    assert fetch(after, "a", 100.0, forget=True) == ("failed", b"", DAMAGED)
    assert fetch(after, "a", 100.0)[0] == "unknown"
    assert list(disk.tasks) == [1]


def test_a_task_that_a_full_disk_refuses_is_to_be_sent_again_and_its_worker_is_ready(life, disk):
    disk.is_full = True
    life.dispatcher.ready(list(PLAIN))
    life.submit("attached", key="a", durable=True)
    life.submit("other", key="a", detach=True)
    life.turn()
    assert sorted(life.answers()) == [("attached", "unavailable"), ("other", "unavailable")]
    assert life.given() == []
    assert life.dispatcher.unsettled == 0
    life.submit("client", b"plain task")
    life.turn()
    assert life.given() == [("plain", b"plain task")]


def test_nobody_is_told_that_a_refused_task_is_accepted_in_the_turns_that_follow(life, disk):
    life.is_late = True
    disk.is_full = True
    leave(life, "a")
    life.submit("other", key="a", detach=True)
    life.submit("canceller", key="a", cancel=True)
    life.turn()
    while life.store.commit():
        pass
    life.turn()
    assert sorted(life.answers()) == [
        ("canceller", "cancelled"),
        ("other", "unavailable"),
        ("who left a", "unavailable"),
    ]
    assert fetch_now(life, "a") == "unknown"


def fetch_now(life: Life, key: str) -> str:
    life.is_late = False
    return fetch(life, key)[0]


def test_a_result_that_does_not_fit_is_a_failure_for_all(life, disk):
    life.submit("attached", key="a", durable=True)
    attempt_id = run_one(life)
    disk.room = 5
    life.dispatcher.result(attempt_id, [b"a large result"], 0.0)
    life.turn()
    reason = "the result (14 bytes) does not fit on the store's disk"
    assert [(reply.status, reply.reason) for _, reply in life.take_replies()] == [("failed", reason)]
    assert fetch(life, "a") == ("failed", b"", reason)
    assert (life.dispatcher.counters.done, life.dispatcher.counters.failed) == (0, 1)
    assert disk.tasks[1].body == [b"body"]


def test_a_disk_that_is_nearly_full_takes_no_new_tasks_and_all_else_goes_on(life):
    leave(life, "a")
    life.store.floor = 1
    life.turn(1.0)
    leave(life, "b", now=1.0)
    life.dispatcher.result(run_one(life, 1.0), [b"result"], 1.0)
    life.turn(1.0)
    assert life.answers() == [("who left a", "accepted"), ("who left b", "unavailable")]
    assert fetch(life, "a", 1.0)[0] == "done"


# The end


def test_at_the_end_who_waits_is_told_and_the_store_is_as_it_was(life, disk):
    life.submit("attached", key="a", durable=True)
    leave(life, "b")
    life.submit("fetcher", key="b", fetch=10.0)
    run_one(life)
    before = dict(disk.tasks)
    life.take_replies()
    life.end()
    assert sorted(life.answers()) == [("attached", "unavailable"), ("fetcher", "unavailable")]
    assert disk.tasks == before
    assert [task.key for task in again(life).dispatcher.ledger] == ["a", "b"]


def test_what_is_decided_last_is_stored_and_told_before_the_end(life, disk):
    finish(life, "a")
    life.submit("client", key="a", forget=True)
    life.turn()
    life.end()
    assert life.answers() == [("client", "done")]
    assert not disk.tasks


def test_a_store_that_fails_has_everybody_send_again_who_is_not_told_yet(life):
    life.submit("attached", key="a", durable=True)
    leave(life, "b")
    life.take_replies()
    life.store.die()
    leave(life, "c")
    life.submit("fetcher", key="b", fetch=0)
    life.turn()
    life.dispatcher.abandon(STORE_FAILED, 0.0)
    life.turn()
    assert life.storing.failure is not None
    assert {reply.reason for _, reply in life.replies} == {STORE_FAILED}
    assert sorted(life.answers()) == [
        ("attached", "unavailable"),
        ("fetcher", "unavailable"),
        ("who left c", "unavailable"),
    ]


@pytest.mark.parametrize("fuse", range(12))
def test_a_broker_that_dies_at_any_step_loses_nothing_that_was_accepted(disk, fuse):
    life = Life(disk)
    life.dispatcher.ready(list(PLAIN))
    life.submit("client", key="a", detach=True)
    life.fuse = fuse
    try:
        life.turn()
        life.fuse = None if fuse > 10 else fuse
        for attempt_id in life.attempt_ids():
            life.dispatcher.result(attempt_id, [b"result"], 0.0)
        life.turn()
    except Died:
        life.store.die()
    was_accepted = ("client", "accepted") in life.answers()
    after = again(life) if disk.tasks else Life(disk, 100.0)
    assert disk.room == inf
    assert len(disk.tasks) == 1 or not was_accepted
    assert after.dispatcher.unsettled + len(after.journal.outcomes) == len(disk.tasks)


def test_a_cancel_reaches_the_worker(life):
    life.join("worker", 1, SERIAL)
    leave(life, "a")
    (attempt_id,) = life.attempt_ids()
    life.submit("canceller", key="a", cancel=True)
    life.turn()
    assert life.told == [(b"worker", announced.CANCEL, attempt_id)]
