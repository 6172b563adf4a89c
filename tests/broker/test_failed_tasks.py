"""Control of tasks that have failed and are in the store: a dispatcher, its journal, and a store that is slow."""

from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from conftest import Peers
from core_support import SERIAL, Core
from stored_support import StoredCore

from zmqbroker.broker import desk, stored
from zmqbroker.broker.about import MOST_SHOWN, Answer
from zmqbroker.broker.control import Control
from zmqbroker.broker.ledger import MOST_NUMBERS
from zmqbroker.broker.questions import Later, RefusedError
from zmqbroker.broker.shutdown import Shutdown
from zmqbroker.broker.store.gate import StoreError
from zmqbroker.broker.store.journal import STORE_FAILED
from zmqbroker.broker.store.outcomes import FailedTask
from zmqbroker.broker.store.rows import State
from zmqbroker.broker.traffic import Traffic
from zmqbroker.wire import Header
from zmqbroker.wire.control import parse_answer, question_message


@pytest.fixture
def core() -> StoredCore:
    return StoredCore()


def failed(core: StoredCore, *keys: str, reason: str = "no", **fields: Any) -> None:
    """Have tasks fail."""
    for key in keys:
        core.leave(key, **fields)
        core.fail_next(reason)


def numbers(answer: Answer) -> list[int]:
    return [task["number"] for task in answer["failed"]]


# Lists


def test_failed_tasks_are_listed_with_what_is_known_of_them(core: StoredCore):
    core.leave("key", b"12345", queue="default")
    core.fail_next("bad input", now=3.0)
    answer = core.inquire("failed", now=4.0)
    assert (answer["total"], answer["cursor"]) == (1, None)
    assert answer["failed"] == [
        {
            "number": 1,
            "key": "key",
            "owner": None,
            "queue": "default",
            "status": "failed",
            "reason": "bad input",
            "worker": SERIAL.name,
            "attempts": 1,
            "bytes": 5,
            "kept": 604_799.0,
        }
    ]


def test_failed_tasks_are_listed_by_queue_by_reason_and_from_either_end(core: StoredCore):
    core.announce(b"worker", core.workers.announced(b"worker").announce._replace(queues=("default", "gpu")), [], 0.0)
    failed(core, "a", "b", reason="timed out after 5 s (3 of 3 attempts)")
    failed(core, "c", reason="Timed out")
    assert numbers(core.inquire("failed")) == [1, 2, 3]
    assert numbers(core.inquire("failed", order="newest")) == [3, 2, 1]
    assert numbers(core.inquire("failed", reason="timed out*")) == [1, 2]
    assert numbers(core.inquire("failed", reason="timed out")) == []
    assert numbers(core.inquire("failed", queue="gpu")) == []
    assert numbers(core.inquire("failed", queue="default", reason="*[Tt]imed out*", after=1)) == [2, 3]


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_failed_tasks_come_in_pages_and_a_page_looks_at_so_many(core: StoredCore, order: str):
    many = 2 * MOST_NUMBERS + 10
    for number in range(1, many + 1):
        state = State("failed", reason="rare" if number in (1, many) else "often", until=inf)
        core.journal.outcomes.add_failed(FailedTask(number, f"key {number}", "default", state, 0, 1e9))
    pages, found, cursor = 0, [], 0
    while cursor is not None:
        page = core.inquire("failed", reason="rare", order=order, after=cursor)
        found += numbers(page)
        cursor = page["cursor"]
        pages += 1
    assert (pages, sorted(found)) == (3, [1, many])
    found, cursor = [], 0
    while cursor is not None:
        page = core.inquire("failed", order=order, after=cursor, most=50)
        found += numbers(page)
        cursor = page["cursor"]
    assert found == sorted(range(1, many + 1), reverse=order == "newest")


# One of them


def test_a_failed_task_is_shown_by_key_and_by_number_with_the_beginning_of_its_body(core: StoredCore):
    core.submit([b"client"], [b"x\xff\n", b"second"], 0.0, Header(key="key", detach=True, group="us", priority=2))
    core.fail_next("bad input")
    by_key, by_number = core.inquire("task", key="key", now=2.0), core.inquire("task", number=1, now=2.0)
    assert by_key == by_number
    shown = by_key["stored"]
    assert (shown["number"], shown["reason"], shown["attempts"], shown["age"]) == (1, "bad input", 1, 2.0)
    assert (shown["group"], shown["priority"], shown["hand_outs"]) == ("us", 2, 1)
    assert (shown["frames"], shown["bytes"], shown["body"]) == (2, 9, "x\\xff\nsecond")


def test_of_a_large_body_the_beginning_is_shown_and_of_a_huge_one_nothing(core: StoredCore, monkeypatch):
    core.leave("large", b"x" * 1000)
    core.fail_next()
    assert core.inquire("task", key="large")["stored"]["body"] == "x" * MOST_SHOWN
    monkeypatch.setattr(stored, "LARGEST_READ", 999)
    shown = core.inquire("task", key="large")["stored"]
    assert (shown["body"], shown["frames"], shown["bytes"]) == (None, None, 1000)


def test_of_a_task_that_is_done_its_kept_outcome_is_shown(core: StoredCore):
    core.leave("key")
    core.do_next()
    for which in ({"key": "key"}, {"number": 1}):
        shown = core.inquire("task", **which)["stored"]
        assert (shown["status"], shown["body"], shown["attempts"]) == ("done", "result", 1)


def test_what_is_in_no_store_is_shown_as_without_one(core: StoredCore):
    core.tasks("plain", key="plain")
    core.turn()
    with pytest.raises(RefusedError, match="there is no unsettled task with the number 17"):
        core.inquire("task", number=17)
    assert core.inquire("task", key="plain")["task"]["number"] == 1
    core.reject(core.known_by("plain").attempt_id, "no", 0.0)
    assert core.inquire("task", key="plain")["failure"]["reason"] == "no"
    assert core.inquire("task", number=1)["failure"]["reason"] == "no"


def test_a_damaged_task_is_named_so_and_can_only_be_forgotten(core: StoredCore):
    failed(core, "key")
    core.store.disk.damaged.add(1)
    for is_found_at_the_start in (False, True):
        if is_found_at_the_start:
            core = core.begin_anew()
        for ask in ("task", "retry"):
            with pytest.raises(RefusedError, match=r"^task 1 is damaged in the store: forget it to be rid of it$"):
                core.inquire(ask, key="key")
    assert core.inquire("retry", all=True)["retried"] == 0
    assert core.inquire("forget", key="key") == {"forgotten": 1, "cursor": None}
    assert core.store.disk.tasks == {}


# Retries


def test_a_failed_task_that_is_retried_waits_again_under_its_key_and_number(core: StoredCore):
    core.leave("key", b"body", tries=2)
    before = core.fail_next()
    core.inquire("retry", key="key", now=10.0)
    core.turn(10.0)
    task = core.sent.pop().task
    assert (task.number, task.key, task.attempts, task.hand_outs, task.tries) == (1, "key", 1, 2, 2)
    assert (task.body, task.token, task.accepted) == ([b"body"], before.token, 10.0)
    assert task.attempt_id != before.attempt_id
    core.done("worker", task.attempt_id, 11.0)
    core.turn(11.0)
    state = core.store.disk.tasks[1].state
    assert (state.status, state.attempts, state.hand_outs) == ("done", 1, 2)
    assert (core.counters.accepted, core.counters.failed, core.counters.done) == (2, 1, 1)
    assert core.inquire("queues")["queues"][0]["accepted"] == 2


def test_a_retry_is_stored_before_it_is_handed_out_or_told(core: StoredCore):
    failed(core, "key")
    later = core.control.answer({"ask": "retry", "number": 1}, 0.0)
    told: list[object] = []
    assert isinstance(later, Later)
    later.then = told.append
    core.storing.turn(0.0)
    core.store.commit()
    core.storing.turn(0.0)  # it is read, and waits
    assert core.give() == [("worker", "body")]
    core.storing.turn(0.0)
    assert (told, core.sent, core.store.disk.tasks[1].state.status) == ([], [], "failed")
    core.store.commit()
    core.storing.turn(0.0)
    assert told == [{"retried": 1, "left": 0, "cursor": None}]
    assert core.store.disk.tasks[1].state[:5] == ("running", None, 2, 1, 0)


def test_a_task_that_was_retried_is_as_it_was_after_the_broker_has_begun_anew(core: StoredCore):
    failed(core, "key")
    core.queues.pause("default")
    core.inquire("retry", key="key")
    again = core.begin_anew()
    assert again.unsettled == 1
    assert again.known_by("key").attempts == 0
    assert again.do_next().hand_outs == 2


def test_an_expired_task_that_is_retried_has_all_its_time_again(core: StoredCore):
    core.withdraw(b"worker", 1)
    core.leave("key", expires=5.0)
    core.expire(5.0)
    core.turn(5.0)
    assert core.inquire("failed")["failed"][0]["status"] == "expired"
    core.inquire("retry", key="key", now=100.0)
    core.expire(104.0)
    assert core.unsettled == 1
    again = core.begin_anew()
    assert again.known_by("key").expires_at == pytest.approx(105.0, abs=50.0)
    core.expire(105.0)
    assert core.unsettled == 0


def test_who_asks_for_a_task_that_was_retried_joins_it(core: StoredCore):
    failed(core, "key")
    core.inquire("retry", key="key")
    core.turn()
    core.settled.clear()
    core.submit([b"other"], [], 0.0, Header(key="key", fetch=10.0))
    core.done("worker", core.sent.pop().attempt_id, 1.0)
    core.turn(1.0)
    assert [(task.status, task.body) for task in core.settled] == [("done", [b"result"])]


def test_the_result_of_an_attempt_before_the_retry_counts(core: StoredCore):
    core.leave("key")
    before = core.fail_next()
    first = core._ids.make(1, 1, before.token)
    core.inquire("retry", key="key")
    core.result(first, [b"late"], 1.0)
    core.turn(1.0)
    assert core.store.disk.tasks[1].body == [b"late"]


def test_a_task_that_was_forgotten_meanwhile_is_not_retried(core: StoredCore):
    failed(core, "key")
    later = core.control.answer({"ask": "retry", "key": "key"}, 0.0)
    told: list[Any] = []
    later.then = told.append  # type: ignore[union-attr]
    core.storing.turn(0.0)
    core.journal.forget("key", 1)
    core.leave("key", b"another")
    core.turn()
    assert str(told[0]) == "it was retried or forgotten just now"
    assert [task.body for task in core.store.disk.tasks.values()] == [[b"another"]]


def test_a_task_is_retried_once_however_many_ask(core: StoredCore):
    failed(core, "key")
    told: list[Any] = []
    for _ in range(2):
        core.control.answer({"ask": "retry", "key": "key"}, 0.0).then = told.append  # type: ignore[union-attr]
    core.turn()
    core.turn()
    assert sorted(map(str, told)) == [
        "it was retried or forgotten just now",
        str({"retried": 1, "left": 0, "cursor": None}),
    ]
    assert (len(core.sent), core.unsettled) == (1, 1)


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ("running", "^task 1 is running, and not settled$"),
        ("done", "^task 1 has not failed$"),
        ("nothing", "^there is no failed task with the key key in the store$"),
    ],
)
def test_only_what_has_failed_is_retried(core: StoredCore, state: str, refusal: str):
    if state != "nothing":
        core.leave("key")
        core.turn()
    if state == "done":
        core.done("worker", core.sent.pop().attempt_id, 0.0)
    with pytest.raises(RefusedError, match=refusal):
        core.inquire("retry", key="key")


def test_all_failed_tasks_of_a_kind_are_retried_in_pieces(core: StoredCore, monkeypatch):
    monkeypatch.setattr(stored, "MOST_RETRIED", 3)
    failed(core, *"abcdefgh", reason="timed out")
    failed(core, "other", reason="no")
    cursor, retried = 0, []
    while cursor is not None:
        answer = core.inquire("retry", all=True, reason="timed*", after=cursor)
        retried.append(answer["retried"])
        cursor = answer["cursor"]
    assert retried == [3, 3, 2]
    assert numbers(core.inquire("failed")) == [9]
    assert [task["number"] for task in core.inquire("tasks")["tasks"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert core.inquire("retry", all=True, reason="timed*") == {"retried": 0, "left": 0, "cursor": None}


def test_a_piece_has_so_many_bytes_or_one_task(core: StoredCore, monkeypatch):
    monkeypatch.setattr(stored, "MOST_RETRIED_BYTES", 10)
    failed(core, "a", "b", body=b"123456")
    failed(core, "large", body=b"x" * 100)
    failed(core, "c", "d", body=b"1234")
    cursor, retried = 0, []
    while cursor is not None:
        answer = core.inquire("retry", all=True, after=cursor)
        retried.append(answer["retried"])
        cursor = answer["cursor"]
    assert retried == [1, 1, 1, 2]


def test_older_tasks_that_come_back_are_in_the_pages_of_tasks_in_their_place(core: StoredCore):
    failed(core, "first")
    for number in range(2, 6):
        core.leave(f"key {number}")
    core.turn()
    core.inquire("retry", key="first")
    assert [task["number"] for task in core.inquire("tasks")["tasks"]] == [1, 2, 3, 4, 5]
    core.leave("last")
    assert [task["number"] for task in core.inquire("tasks", after=1)["tasks"]] == [2, 3, 4, 5, 6]


# Forgotten ones


@pytest.mark.parametrize("which", [{"key": "key"}, {"number": 1}])
@pytest.mark.parametrize("status", ["failed", "done", "cancelled"])
def test_an_outcome_is_forgotten_by_key_and_by_number(core: StoredCore, status: str, which: dict[str, Any]):
    core.leave("key")
    if status == "cancelled":
        core.cancel(core.known_by("key"), "no", 0.0)
    else:
        core.fail_next() if status == "failed" else core.do_next()
    core.turn()
    assert core.inquire("forget", **which) == {"forgotten": 1, "cursor": None}
    assert (core.store.disk.tasks, len(core.journal.outcomes)) == ({}, 0)
    with pytest.raises(RefusedError, match=r"^the store keeps nothing of a task with the "):
        core.inquire("forget", **which)


def test_a_task_that_is_not_settled_is_not_forgotten(core: StoredCore):
    core.leave("key")
    for which in ({"key": "key"}, {"number": 1}):
        with pytest.raises(RefusedError, match=r"^task 1 is waiting, and not settled$"):
            core.inquire("forget", **which)


def test_all_failed_tasks_of_a_kind_are_forgotten_in_pieces(core: StoredCore, monkeypatch):
    monkeypatch.setattr(stored, "MOST_FORGOTTEN", 2)
    failed(core, "a", "b", "c", reason="timed out")
    failed(core, "other", reason="no")
    core.leave("done")
    core.do_next()
    first = core.inquire("forget", all=True, reason="timed*")
    assert first == {"forgotten": 2, "cursor": 2}
    assert core.inquire("forget", all=True, reason="timed*", after=2) == {"forgotten": 1, "cursor": None}
    assert sorted(core.store.disk.tasks) == [4, 5]


def test_a_damaged_row_whose_key_cannot_be_trusted_takes_nothing_else_along(core: StoredCore):
    failed(core, "key", "other")
    core.store.disk.tasks[3] = core.store.disk.tasks[1]._replace(
        request=core.store.disk.tasks[1].request._replace(number=3)
    )
    core.store.disk.damaged.add(3)  # under a key that is another one's
    assert core.inquire("forget", number=3) == {"forgotten": 1, "cursor": None}
    assert sorted(core.store.disk.tasks) == [1, 2]
    assert numbers(core.inquire("failed")) == [1, 2]


# What is refused


@pytest.mark.parametrize("ask", ["failed", "retry", "forget"])
def test_without_a_store_that_is_said(ask: str):
    control = Control(Core(), lambda worker: "", lambda: None)
    with pytest.raises(RefusedError, match=r"^this broker stores no tasks: it was started without --store$"):
        control.answer({"ask": ask, "all": True}, 0.0)
    assert control.answer({"ask": "status"}, 0.0)["store"] is None


@pytest.mark.parametrize(
    ("question", "refusal"),
    [
        ({"ask": "retry"}, "^say which task, by its key or its number$"),
        ({"ask": "retry", "all": 1}, "^all must be true or false, not 1$"),
        ({"ask": "forget", "all": True, "key": "a"}, "^say which task, by its key or its number, or say all$"),
        ({"ask": "failed", "order": "slowest"}, "^order must be one of oldest, newest, not 'slowest'$"),
        ({"ask": "failed", "reason": 5}, "^reason must be text, not 5$"),
        ({"ask": "failed", "reason": "x" * 1001}, "^reason must have 1000 characters at most$"),
        ({"ask": "failed", "queue": ""}, "^queue must be the name of one, not ''$"),
    ],
)
def test_what_makes_no_sense_is_refused(core: StoredCore, question: dict[str, Any], refusal: str):
    with pytest.raises(RefusedError, match=refusal):
        core.control.answer(question, 0.0)


def test_while_the_broker_drains_nothing_is_retried(core: StoredCore):
    failed(core, "key")
    core.stop_accepting("the broker is shutting down")
    with pytest.raises(RefusedError, match=r"^the broker is shutting down$"):
        core.inquire("retry", key="key")


@pytest.mark.parametrize("ask", ["task", "retry", "forget"])
def test_a_store_that_fails_is_the_answer(core: StoredCore, ask: str):
    failed(core, "key")
    later = core.control.answer({"ask": ask, "number": 1}, 0.0)
    told: list[Any] = []
    later.then = told.append  # type: ignore[union-attr]
    core.store.die()
    core.storing.turn(0.0)
    assert isinstance(core.storing.failure, StoreError)
    assert [str(answer) for answer in told] == [STORE_FAILED]


def test_an_answer_of_the_store_comes_later_and_others_come_first_for_as_long_as_that_took(
    core: StoredCore, monkeypatch
):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(desk, "monotonic", lambda: clock.now)
    failed(core, "key")
    with Peers() as peers, peers.context.socket(zmq.ROUTER) as control:
        control.bind("inproc://control")
        asker = peers.open(zmq.DEALER, "inproc://control")
        sockets: Any = SimpleNamespace(control=control)
        served = desk.Desk(sockets, core, Shutdown(0.0), Traffic(core.counters, 0.0), print, core.store, print)
        asker.send_multipart(question_message(b"1", "retry", key="key"))
        served.serve(0.0)
        assert (asker.poll(0), served.due) == (0, 100.0)
        clock.now = 100.01
        core.turn()
        assert parse_answer(asker.recv_multipart())[1]["retried"] == 1
        assert served.due == pytest.approx(100.21)


# The status


def test_the_status_tells_of_the_store(core: StoredCore):
    failed(core, "key")
    core.leave("done")
    core.do_next()
    core.store.free, core.store.floor, core.store.size = 100, 50, 30
    core.journal.outcomes.dropped = 7
    core.store.commits.add(0.001)
    status = core.inquire("status")["store"]
    commits, bounds = status.pop("commits"), status.pop("bounds")
    assert status == {
        "path": "simulated",
        "bytes": 30,
        "free": 100,
        "floor": 50,
        "refusing": False,
        "outcomes": 2,
        "failed": 1,
        "dropped": 7,
        "damaged": 0,
    }
    assert (sum(commits["counts"]), commits["seconds"], len(bounds)) == (1, 0.001, 15)
    core.store.free = 49
    core.storing.look(10.0, is_idle=False)
    assert core.inquire("status")["store"]["refusing"] is True
