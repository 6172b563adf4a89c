"""Owners: the tasks, the keys and the attempts of each are its own, in memory and in the store."""

import pytest
from core_support import PARALLEL, SERIAL, Core
from stored_support import StoredCore

from zmqbroker.broker.questions import RefusedError
from zmqbroker.broker.store.encoding import decode, encode
from zmqbroker.broker.store.rows import DamagedTask, Request, State, StoredTask
from zmqbroker.broker.task import Task
from zmqbroker.wire import Header

OWNERS = ["alice", "bob", None]


def submit(core: Core, client: str, owner: str | None, **fields: object) -> None:
    """Have a client with an owner send a request whose body says whose it is."""
    header = Header(**fields) if fields else None  # type: ignore[arg-type]
    core.submit([client.encode()], [str(owner).encode()], 0.0, header, owner)


def work(core: Core, worker: str, owner: str | None, asks: int = 1) -> Task:
    """Have a worker of an owner come, and get a task."""
    core.announce(worker.encode(), SERIAL, [], 0.0, owner)
    core.ask(worker.encode(), asks)
    ((who, task), *_) = core.take()
    assert who == worker
    return task


def replies(core: Core) -> list[tuple[str, str, bytes]]:
    """Take what was settled: who is told, the status, and the body."""
    told = [
        (bytes(waiter.envelope[0]).decode(), task.status, b"".join(map(bytes, task.body)))
        for task in core.settled
        for waiter in task.waiters
    ]
    core.settled.clear()
    return told


# Keys


def test_the_same_key_of_three_owners_is_three_tasks():
    core = Core()
    for owner in OWNERS:
        submit(core, f"client of {owner}", owner, key="key")
    assert core.unsettled == 3
    core.join("worker", 3)
    for _, task in core.take():
        core.done("worker", task.attempt_id, 0.0)
    assert replies(core) == [(f"client of {owner}", "done", b"result") for owner in OWNERS]


def test_who_has_another_owner_joins_no_task_and_gets_no_reply_that_was_kept():
    core = Core()
    submit(core, "first", "alice", key="key")
    submit(core, "second", "alice", key="key")
    submit(core, "stranger", "bob", key="key")
    assert (core.unsettled, core.counters.joined) == (2, 1)
    core.done("worker", work(core, "worker", None).attempt_id, 0.0)
    assert replies(core) == [("first", "done", b"result"), ("second", "done", b"result")]
    submit(core, "nobody", None, key="key")
    submit(core, "third", "alice", key="key")
    assert replies(core) == [("third", "done", b"result")]  # it comes back for it


@pytest.mark.parametrize("wish", [{"cancel": True}, {"fetch": 0.0}, {"fetch": 5.0}, {"forget": True}])
@pytest.mark.parametrize("stranger", ["bob", None])
def test_nobody_cancels_fetches_or_forgets_by_the_key_of_another_owner(stranger: str | None, wish: dict[str, object]):
    core = StoredCore()
    core.submit([b"client"], [b"body"], 0.0, Header(key="waits", durable=True), "alice")
    submit(core, "client", "alice", key="attached", priority=-1)
    core.turn()
    for key in ("waits", "attached"):
        submit(core, "stranger", stranger, key=key, **wish)
        core.turn()
        assert replies(core) == [("stranger", "invalid" if "cancel" in wish else "unknown", b"")]
    core.do_next()
    core.do_next()
    assert [told[0] for told in replies(core)] == ["client", "client"]
    for key in ("waits", "attached"):  # one is in the store now, the other one kept for a while
        submit(core, "stranger", stranger, key=key, **wish)
        core.turn()
        assert replies(core) == [("stranger", "invalid" if "cancel" in wish else "unknown", b"")]
    for key in ("waits", "attached"):
        submit(core, "owner", "alice", key=key, fetch=0.0)
        core.turn()
        assert replies(core) == [("owner", "done", b"result")]


def test_owners_and_their_keys_outlive_the_broker():
    core = StoredCore()
    for owner in OWNERS:
        for key in ("settled", "waiting"):
            submit(core, "client", owner, key=key, detach=True, priority=key == "settled")
    for _ in OWNERS:
        core.do_next()
    again = core.begin_anew()
    again.settled.clear()
    for owner in ("alice", "bob", None, "carol"):
        for key in ("settled", "waiting"):
            submit(again, f"{owner} {key}", owner, key=key, fetch=0.0)
    again.turn()
    told = {who: status for who, status, _ in replies(again)}
    owned = {
        f"{owner} {key}": status for owner in OWNERS for key, status in (("settled", "done"), ("waiting", "running"))
    }
    running = [name for name in owned if name.endswith("waiting")]
    assert sum(told[name] == "running" for name in running) == 1  # at the one worker, that asks for one
    assert all(told[name] in ("running", "waiting") for name in running)
    assert {name: told[name] for name in told if name not in running} == {
        name: "done" for name in owned if name not in running
    } | {"carol settled": "unknown", "carol waiting": "unknown"}


def test_a_damaged_task_fails_for_its_owner_and_is_unknown_to_others():
    core = StoredCore()
    submit(core, "client", "alice", key="key", detach=True)
    core.do_next()
    core.store.disk.damaged.add(1)
    again = core.begin_anew()
    for who in ("alice", "bob"):
        submit(again, who, who, key="key", fetch=0.0)
        again.turn()
    assert replies(again) == [("alice", "failed", b""), ("bob", "unknown", b"")]


def test_a_row_says_whose_it_is_and_so_does_a_damaged_one():
    stored = StoredTask(Request(7, b"8 random", "key", owner="alice"), State(), [b"body"], 4)
    row = encode(stored)
    assert decode(row) == stored
    assert decode((*row[:-1], b"bodY")) == DamagedTask(7, "key", "alice")
    wishes = row.index('{"owner": "alice"}')
    for damage in (None, "", "{", "[]", "1", b"\xff", 7, '{"owner": 7}', "[" * 5000):
        assert decode((*row[:wishes], damage, *row[wishes + 1 :])) == DamagedTask(7, "key", None)
    assert decode((*row[:wishes], '{"owner": "bob"}', *row[wishes + 1 :])) == DamagedTask(7, "key", "bob")


# Who takes turns


def test_with_fair_the_tasks_of_owners_take_turns_however_many_connections_they_have():
    core = Core(is_fair=True)
    for number in range(4):
        submit(core, f"connection {number}", "alice")
    submit(core, "connection", "bob")
    submit(core, "plain", None)
    core.join("worker", 6)
    assert [task.owner for _, task in core.take()] == ["alice", "bob", None, "alice", "alice", "alice"]


def test_with_fair_a_client_that_says_a_group_is_in_that_one():
    core = Core(is_fair=True)
    submit(core, "connection", "alice", group="bob")
    submit(core, "connection", "alice", group="bob")
    submit(core, "connection", "bob")
    core.join("worker", 3)
    assert [task.owner for _, task in core.take()] == ["alice", "bob", "alice"]


# Who speaks for an attempt


def test_only_the_owner_of_the_worker_that_was_given_an_attempt_may_tell_of_it():
    core = Core()
    submit(core, "client", None)
    attempt_id = work(core, "worker", "alice").attempt_id
    assert core.may_tell(attempt_id, "alice")
    assert not core.may_tell(attempt_id, "bob")
    assert core.counters.malformed == 1


def test_a_plain_worker_has_an_owner_as_well():
    core = Core()
    submit(core, "client", None)
    core.ready([b"worker", b""], "alice")
    ((_, task),) = core.take()
    assert core.may_tell(task.attempt_id, "alice")
    assert not core.may_tell(task.attempt_id, "bob")


def test_who_had_an_earlier_attempt_speaks_for_that_one_only():
    core = Core(timeout=1.0)
    submit(core, "client", None)
    first = work(core, "first", "alice").attempt_id
    core.expire(1.0)
    second = work(core, "second", "bob").attempt_id
    assert (core.may_tell(first, "alice"), core.may_tell(second, "alice")) == (True, False)
    assert (core.may_tell(first, "bob"), core.may_tell(second, "bob")) == (False, True)


def test_of_what_is_settled_or_made_up_nobody_may_tell():
    core = Core()
    submit(core, "client", None)
    attempt_id = work(core, "worker", "alice").attempt_id
    made_up = attempt_id[:-1] + bytes([attempt_id[-1] ^ 1])
    assert not core.may_tell(made_up, "alice")
    assert not core.may_tell(b"short", "alice")
    core.done("worker", attempt_id, 0.0)
    assert not core.may_tell(attempt_id, "alice")
    assert (core.counters.malformed, core.counters.late) == (2, 1)


def test_a_worker_takes_over_no_attempt_of_another_owner():
    core = Core()
    submit(core, "client", None)
    attempt_id = work(core, "worker", "alice").attempt_id
    core.announce(b"thief", PARALLEL, [attempt_id], 0.0, "bob")
    assert core.said() == [("thief", b"cancel", attempt_id)]
    core.announce(b"same", SERIAL, [attempt_id], 0.0, "alice")
    core.done("same", attempt_id, 0.0)
    assert replies(core) == [("client", "done", b"result")]


def test_an_attempt_of_an_earlier_run_goes_on_at_whoever_knows_its_id():
    core = StoredCore()
    submit(core, "client", "alice", key="key", durable=True)
    core.turn()
    attempt_id = core.sent.pop().attempt_id
    again = core.begin_anew()
    assert again.may_tell(attempt_id, "bob")
    again.announce(b"back", SERIAL, [attempt_id], 0.0, "carol")
    assert again.in_hand.keys() == {attempt_id}


def test_however_often_a_task_is_handed_out_its_memory_is_bounded():
    core = Core(tries=0, timeout=1.0)
    submit(core, "client", None)
    for number in range(100):
        task = work(core, f"worker {number}", "alice")
        attempt_id = task.attempt_id
        core.expire(1.0)
    assert not core.may_tell(attempt_id, "bob")
    assert len(task.handed_to or ()) < 20


# Control


def test_lists_say_whose_tasks_and_workers_are():
    core = StoredCore()
    submit(core, "client", "alice", key="key", detach=True)
    core.announce(b"other", SERIAL, [], 0.0, "bob")
    assert core.inquire("tasks")["tasks"][0]["owner"] == "alice"
    assert [worker["owner"] for worker in core.inquire("workers")["workers"]] == [None, "bob"]
    core.fail_next()
    assert core.inquire("failed")["failed"][0]["owner"] == "alice"
    assert core.inquire("failures")["failures"][0]["owner"] == "alice"


def test_a_key_that_one_owner_has_needs_no_owner_and_one_that_several_have_does():
    core = StoredCore()
    for owner in OWNERS:
        submit(core, "client", owner, key="common", detach=True)
    submit(core, "client", "bob", key="own")
    assert core.inquire("task", key="own")["task"]["owner"] == "bob"
    several = "several have a task with the key common, say whose is meant: nobody in particular, alice, bob"
    with pytest.raises(RefusedError, match=several):
        core.inquire("task", key="common")
    for owner in OWNERS:
        assert core.inquire("task", key="common", owner=owner or "")["task"]["owner"] == owner
    with pytest.raises(RefusedError, match="there is no unsettled task with the key own of alice"):
        core.inquire("task", key="own", owner="alice")
    with pytest.raises(RefusedError, match="owner must be text, not 7"):
        core.inquire("task", key="own", owner=7)


@pytest.mark.parametrize("owner", [None, "alice"])  # whether it has to be said
def test_tasks_are_cancelled_retried_and_forgotten_by_an_owners_key(owner: str | None):
    core = StoredCore()
    said = {} if owner is None else {"owner": owner}
    submit(core, "client", "alice", key="key", detach=True)
    if owner is not None:
        submit(core, "client", "bob", key="key", detach=True, priority=-1)
    core.fail_next()
    assert core.inquire("task", key="key", **said)["stored"]["owner"] == "alice"
    assert core.inquire("retry", key="key", **said)["retried"] == 1
    assert core.inquire("cancel", key="key", **said)["task"]["owner"] == "alice"
    core.turn()
    assert core.inquire("forget", key="key", **said)["forgotten"] == 1
    assert [task.owner for task in core.ledger] == ([] if owner is None else ["bob"])


def test_the_last_failures_are_found_by_an_owners_key():
    core = StoredCore()
    submit(core, "client", "alice", key="key")
    submit(core, "client", "bob", key="key")
    core.fail_next("of alice")
    core.fail_next("of bob")
    with pytest.raises(RefusedError, match="say whose is meant: alice, bob"):
        core.inquire("task", key="key")
    assert core.inquire("task", key="key", owner="alice")["failure"]["reason"] == "of alice"
    assert core.inquire("task", number=2)["failure"]["reason"] == "of bob"
