"""What the broker promises of queues, groups, limits, expiry and back-off, under random interleavings of everything.

Workers of several lists, serial and not, and plain ones; some have tasks that lie behind others. The rules of what runs
where and what is charged are checked elsewhere: see `test_promises` and `test_serial`. Here it is who may have what,
whose turn it is, that nobody is idle while there is something to do, and that nothing is left behind.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from unittest.mock import patch

import pytest
from core_support import NOT_STORED, entries
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmqbroker.broker.dispatch import HELD, Dispatcher
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.task import DELAYED, RUNNING, WAITING, BackOff, Task, Worker
from zmqbroker.wire import Announce, Header, announced

pytestmark = pytest.mark.once


STALE_KEPT, EMPTY_KEPT = 2, 1  # so that lines and rings are rebuilt often
QUEUES = ["default", "gpu"]
LISTS = [("default",), ("gpu",), ("gpu", "default"), ("default", "gpu"), ("unused", "gpu", "default")]
PLAIN = [b"pia", b"pat"]
ANNOUNCED = [b"ann", b"bob", b"cid", b"dee"]
CANCELLER = b"canceller"
LONG_AFTER = 100_000.0  # seconds
HEADERS = st.builds(
    Header,
    key=st.none(),
    timeout=st.sampled_from([None, 0, 0.7]),
    tries=st.sampled_from([None, 0, 1]),
    delay=st.sampled_from([0, 0, 0, 0.5]),
    priority=st.sampled_from([0, 0, 1]),
    cancel=st.just(False),
    id=st.none(),
    progress=st.just(False),
    queue=st.sampled_from([None, *QUEUES]),
    group=st.sampled_from([None, "a", "b", "c"]),
    expires=st.sampled_from([None, None, None, 1.0, 2.5]),
    retry_delay=st.sampled_from([None, 0.0, 0.25]),
    retry_factor=st.sampled_from([None, 1, 3]),
    retry_most=st.sampled_from([None, 0.5]),
    **NOT_STORED,
)


@dataclass
class Record:
    """What the model knows of a task."""

    queue: str
    group: Hashable
    priority: int
    tries: int
    back_off: tuple[float, float, float]
    expires_at: float = inf
    not_before: float = 0.0
    key: str | None = None
    was_delayed: bool = False  # so it does not wait in the order of arrival
    status: str | None = None  # None: unsettled


@dataclass
class Peer:
    """What the model knows of a worker."""

    queues: tuple[str, ...] = ("default",)
    announce: Announce | None = None
    asks: int = 0
    held: list[bytes] = field(default_factory=list)  # attempt ids of what it has


@dataclass
class Turns:
    """Whose turn it is in a queue."""

    owed: dict[Hashable, set[Hashable]] = field(default_factory=dict)  # by group: who comes before it is its turn again

    def take(self, group: Hashable, others: set[Hashable]) -> None:
        """Note that a group had its turn, while these others had tasks as well."""
        for owed in self.owed.values():
            owed.discard(group)
        self.owed[group] = others

    def keep(self, groups: set[Hashable]) -> None:
        """Note which groups have tasks."""
        for owed in self.owed.values():
            owed &= groups


class Kinds(RuleBasedStateMachine):
    """Everything that queues, groups, limits, expiry and back-off can meet, in any order."""

    @initialize(
        tries=st.integers(0, 3),
        timeout=st.sampled_from([None, 1.0]),
        back_off=st.sampled_from([BackOff(), BackOff(0.5, 2.0, 1.5)]),
        lists=st.lists(st.sampled_from(LISTS), min_size=len(ANNOUNCED), max_size=len(ANNOUNCED)),
        limits=st.lists(st.sampled_from([None, None, 1, 2]), min_size=len(QUEUES), max_size=len(QUEUES)),
    )
    def start(
        self,
        tries: int,
        timeout: float | None,
        back_off: BackOff,
        lists: list[tuple[str, ...]],
        limits: list[int | None],
    ) -> None:
        self.patched = ExitStack()
        for module in ("queues", "timers", "workers"):
            self.patched.enter_context(patch(f"zmqbroker.broker.{module}.STALE_KEPT", STALE_KEPT))
        self.patched.enter_context(patch("zmqbroker.broker.queues.EMPTY_KEPT", EMPTY_KEPT))
        self.now = 0.0
        self.dispatcher = Dispatcher(tries=tries, timeout=timeout, back_off=back_off, run=b"run")
        self.records: list[Record] = []  # the body of a task is its place in this list
        self.peers: dict[bytes, Peer] = {}
        self.told: list[tuple[bytes, bytes, bytes]] = []
        self.paused: set[str] = set()
        self.limits: dict[str, int] = {}
        self.limits_waiting: dict[str, int] = {}
        self.turns: dict[str, Turns] = defaultdict(Turns)
        self.refused = 0
        for queue, limit in zip(QUEUES, limits, strict=True):
            self.limit(queue, limit)
        for number, (name, queues) in enumerate(zip(ANNOUNCED, lists, strict=True)):
            self.join(name, queues, number % 2 == 0, 2)

    # What clients do

    @rule(
        headers=st.lists(st.tuples(st.one_of(st.none(), HEADERS), st.booleans()), min_size=1, max_size=5),
        ends_turn=st.booleans(),
    )
    def submit(self, headers: list[tuple[Header | None, bool]], ends_turn: bool) -> None:
        for header, has_key in headers:
            self.send(header, has_key)
        if ends_turn:
            self.give()

    def send(self, header: Header | None, has_key: bool) -> None:
        number = len(self.records)
        fields = header or Header()
        key = f"key {number}" if header is not None and has_key else None
        queue = fields.queue or "default"
        waits = sum(task.status in (WAITING, DELAYED) for task in self.tasks_of(queue))
        if header is not None:
            header = header._replace(key=key)
        self.dispatcher.submit([b"%d" % number], [b"%d" % number], self.now, header)
        if waits >= self.limits_waiting.get(queue, number + 1):
            (refused,) = self.dispatcher.settled
            assert refused.status == ("failed" if header is None else "unavailable")
            self.dispatcher.settled.clear()
            self.refused += 1
            return
        wished = (fields.retry_delay, fields.retry_factor, fields.retry_most)
        of_the_broker = self.dispatcher.back_off
        self.records.append(
            Record(
                queue,
                fields.group,
                fields.priority,
                self.dispatcher.tries if fields.tries is None else fields.tries,
                tuple(of if wish is None else wish for wish, of in zip(wished, of_the_broker, strict=True)),  # type: ignore[arg-type]
                inf if fields.expires is None else self.now + fields.expires,
                self.now + fields.delay,
                key,
                fields.delay > 0,
            )
        )

    @precondition(lambda self: self.open_keys())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.open_keys()))
        self.dispatcher.submit([CANCELLER], [b""], self.now, Header(key=key, cancel=True))
        self.settle_as("cancelled")

    # What workers do

    @rule(name=st.sampled_from(PLAIN))
    def ready(self, name: bytes) -> None:
        self.dispatcher.ready([name])
        self.peers.setdefault(name, Peer()).asks += 1

    @rule(name=st.sampled_from(ANNOUNCED), queues=st.sampled_from(LISTS), serial=st.booleans(), asks=st.integers(0, 3))
    def join(self, name: bytes, queues: tuple[str, ...], serial: bool, asks: int) -> None:
        peer = self.peers.setdefault(name, Peer())
        if peer.announce is not None:
            serial = peer.announce.serial  # that does not change
        peer.announce = Announce(queues=queues, label=name.decode(), serial=serial)
        peer.queues = queues
        self.dispatcher.announce(name, peer.announce, [], self.now)
        self.dispatcher.ask(name, asks)
        peer.asks += asks

    @precondition(lambda self: self.announced())
    @rule(data=st.data(), asks=st.integers(1, 4), withdraws=st.booleans())
    def ask(self, data: st.DataObject, asks: int, withdraws: bool) -> None:
        name = data.draw(st.sampled_from(self.announced()))
        peer = self.peers[name]
        if withdraws:
            self.dispatcher.withdraw(name, asks)
            peer.asks = max(peer.asks - asks, 0)
        else:
            self.dispatcher.ask(name, asks)
            peer.asks += asks

    @precondition(lambda self: self.holding())
    @rule(
        data=st.data(),
        verb=st.sampled_from(["done", "done", "done", "fail", "fail", "reject", "release"]),
        asks=st.integers(0, 2),
        ends_turn=st.booleans(),
    )
    def say_outcome(self, data: st.DataObject, verb: str, asks: int, ends_turn: bool) -> None:
        """Have a worker say what came of a task; a serial one of the first."""
        name = data.draw(st.sampled_from(self.holding()))
        peer = self.peers[name]
        is_serial = peer.announce is not None and peer.announce.serial
        self.say(name, peer.held[0] if is_serial else data.draw(st.sampled_from(peer.held)), verb, asks)
        if ends_turn:
            self.give()

    def say(self, name: bytes, attempt_id: bytes, verb: str, asks: int = 1) -> None:
        dispatcher, peer = self.dispatcher, self.peers[name]
        if peer.announce is not None:
            dispatcher.answered(name, attempt_id, asks, self.now)
            peer.asks += asks
        peer.held.remove(attempt_id)
        if verb == "done":
            dispatcher.result(attempt_id, [b"result"], self.now)
            self.settle_as("done")
        elif verb == "fail":
            dispatcher.fail(attempt_id, "no", self.now)
            self.note_lost()
        elif verb == "reject":
            dispatcher.reject(attempt_id, "no", self.now)
            self.settle_as("failed")
        else:
            dispatcher.release(attempt_id, self.now)

    @precondition(lambda self: self.told)
    @rule()
    def obey(self) -> None:
        """Have workers give back what they have not begun, and are not to begin."""
        told, self.told = self.told, []
        for name, verb, attempt_id in told:
            peer = self.peers.get(name)
            if verb == announced.DROP and peer is not None and attempt_id in peer.held[1:]:
                self.say(name, attempt_id, "release")

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), comes_back=st.booleans())
    def lose_worker(self, data: st.DataObject, comes_back: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        peer = self.peers.pop(name)
        self.dispatcher.lose_worker(name, self.now)
        if comes_back and peer.announce is not None:  # and names what it has
            self.dispatcher.announce(name, peer.announce, peer.held, self.now)
            self.peers[name] = Peer(peer.queues, peer.announce, 0, peer.held)

    # What the broker does

    @rule(gone=st.sampled_from([b"", b"", b"", *PLAIN, *ANNOUNCED]))
    def hand_out(self, gone: bytes) -> None:
        self.give(gone)

    def give(self, gone: bytes = b"") -> None:
        while True:
            before = {number: task.status for number, task in self.tasks().items()}
            aside = {task for queue in self.dispatcher._queues for task in queue.aside}
            pair = self.dispatcher.hand_out(self.now)
            tasks = self.tasks()
            were_waiting = {tasks[number] for number, status in before.items() if status is WAITING}
            given = None if pair is None else pair[1]
            for task in (
                {task for task in were_waiting if not is_in_line(task)} - {given} - aside
            ):  # they run where they lie, or wait for a worker not in doubt
                self.turns[task.queue.name].take(task.group, set())
            if pair is None:
                break
            name = bytes(pair[0][0])
            self.check_hand_out(name, pair[1], pair[1] in aside, before)
            if name == gone:  # sending to it fails
                self.dispatcher.take_back(pair[1], self.now)
                del self.peers[name]
                continue
            self.peers[name].asks -= 1
            self.peers[name].held.append(pair[1].attempt_id)
        self.check_that_nobody_is_idle()

    def check_hand_out(self, name: bytes, task: Task, was_aside: bool, before: dict[int, str]) -> None:
        peer, number = self.peers[name], number_of(task)
        record, queue = self.records[number], task.queue.name
        assert record.status is None
        assert before[number] is WAITING
        assert queue == record.queue
        assert queue in peer.queues, "a task of a queue that the worker does not ask from"
        assert self.now >= record.not_before, "a task before its delay is over"
        assert peer.asks > 0
        assert queue not in self.paused
        if queue in self.limits:
            runs = sum(status is RUNNING for other, status in before.items() if self.records[other].queue == queue)
            assert runs < self.limits[queue], "more tasks run than may"
            assert not peer.held or peer.announce is None, "it counts as running while it lies behind another one"
        if not was_aside:
            self.check_turn(peer, task)

    def check_turn(self, peer: Peer, task: Task) -> None:
        """See that no other task came before this one, which was in its line."""
        queue = task.queue.name
        waiting = [other for other in self.tasks().values() if is_in_line(other)]
        if task.hand_outs == 1:  # else it may go to another worker than the one whose turn it was
            for earlier in peer.queues[: peer.queues.index(queue)]:
                assert not self.is_open(earlier, peer) or not any(other.queue.name == earlier for other in waiting)
            equals = [other for other in waiting if other.queue is task.queue and other.group == task.group]
            self.check_place(task, equals)
        owed = self.turns[queue].owed.get(task.group, set())
        assert not owed, f"it is the turn of {owed}"
        others = {other.group for other in waiting if other.queue is task.queue} - {task.group}
        self.turns[queue].take(task.group, others)

    def check_place(self, task: Task, others: list[Task]) -> None:
        """See that a new task is the first of its group."""
        number = number_of(task)
        record = self.records[number]
        for other in others:
            theirs = self.records[number_of(other)]
            assert record.priority >= theirs.priority, "one of a higher priority waits"
            if record.priority == theirs.priority:
                assert other.hand_outs == 0, "one that was handed out before waits"
                assert number < number_of(other) or record.was_delayed or theirs.was_delayed

    def check_that_nobody_is_idle(self) -> None:
        """See that nobody who may have more tasks could have one that waits."""
        waiting = [task for task in self.tasks().values() if task.status is WAITING]
        for name, peer in self.peers.items():
            worker = self.dispatcher._workers.find(name)
            if worker is None or not peer.asks or not worker.may_have_more:
                continue
            for task in waiting:
                for_others = task.failed_at and is_doubted(worker) and self.has_trusted(task.queue)
                assert for_others or not self.is_open(task.queue.name, peer), f"{name!r} could have {task.body}"

    def has_trusted(self, queue: Queue) -> bool:
        """Tell whether somebody asks from a queue who is not in doubt; a plain worker also between two tasks."""
        has_plain = any(peer.announce is None and queue.name in peer.queues for peer in self.peers.values())
        return has_plain or any(pool.members > pool.doubted for pool in queue.pools)

    def is_open(self, queue: str, peer: Peer) -> bool:
        """Tell whether a worker may have a task of a queue."""
        if queue not in peer.queues or queue in self.paused:
            return False
        runs = sum(task.status is RUNNING for task in self.tasks_of(queue))
        if queue in self.limits:
            return runs < self.limits[queue] and (peer.announce is None or not peer.held)
        return True

    @rule(span=st.sampled_from([0.0, HELD, 0.1, 0.3, 1.0, 61.0]), to_next=st.booleans())
    def expire(self, span: float, to_next: bool) -> None:
        due = self.dispatcher.next_due()
        self.now = max(self.now, due) if to_next and due is not None else self.now + span
        in_hand = {}  # by number: who is to be told that it is not wanted any more
        in_line = {task for task in self.tasks().values() if is_in_line(task)}
        for number, task in self.tasks().items():
            worker = task.worker
            is_at = task.status is RUNNING and worker.announce is not None and not worker.lost
            if is_at and task.due == task.expires_at <= self.now:
                in_hand[number] = (bytes(worker.id), announced.CANCEL, task.attempt_id)
                if not worker.has_in_hand(task.attempt_id):
                    in_hand[number] = (bytes(worker.id), announced.DROP, task.attempt_id)
        self.dispatcher.expire(self.now)
        told = [(bytes(one.worker_id), one.verb, one.what) for one in self.dispatcher.told]
        self.note_lost()
        overdue = {number for number, record in enumerate(self.records) if record.expires_at <= self.now}
        for number in overdue:
            assert self.records[number].status is not None, "a task has not expired in time"
        for number, words in in_hand.items():
            is_serial = words[1] == announced.DROP  # meanwhile others may have got it
            assert is_serial or words in told or self.records[number].status != "expired"
        # A group whose last task expires has no turn, even where it gets another one in the same instant.
        for name, turns in self.turns.items():
            turns.keep({task.group for task in in_line if is_in_line(task) and task.queue.name == name})
        for task in self.tasks().values():
            assert task.status is not DELAYED or self.records[number_of(task)].not_before > self.now

    # What may change meanwhile

    @rule(
        queue=st.sampled_from(QUEUES),
        what=st.sampled_from(["pause", "resume", "resume", "limit", "limit", "limit waiting"]),
        data=st.data(),
    )
    def change(self, queue: str, what: str, data: st.DataObject) -> None:
        if what == "pause":
            self.dispatcher.queues.pause(queue)
            self.paused.add(queue)
        elif what == "resume":
            self.dispatcher.queues.resume(queue)
            self.paused.discard(queue)
        elif what == "limit":
            self.limit(queue, data.draw(st.sampled_from([None, 1, 2])))
        else:
            change(self.limits_waiting, queue, limit := data.draw(st.sampled_from([None, None, 1, 3])))
            self.dispatcher.queues.set_limit_waiting(queue, limit)

    def limit(self, queue: str, limit: int | None) -> None:
        self.dispatcher.queues.set_limit(queue, limit)
        change(self.limits, queue, limit)

    # How the model moves

    def tasks(self) -> dict[int, Task]:
        """Return the unsettled tasks by their number."""
        dispatcher = self.dispatcher
        waiting = [task for queue in dispatcher._queues for task in queue]
        delayed = [thing for thing in dispatcher._timers if isinstance(thing, Task)]
        return {number_of(task): task for task in [*waiting, *delayed, *dispatcher.ledger]}

    def tasks_of(self, queue: str) -> list[Task]:
        return [task for task in self.tasks().values() if task.queue.name == queue]

    def open_keys(self) -> list[str]:
        return [record.key for record in self.records if record.key is not None and record.status is None]

    def announced(self) -> list[bytes]:
        return sorted(name for name, peer in self.peers.items() if peer.announce is not None)

    def holding(self) -> list[bytes]:
        return sorted(name for name, peer in self.peers.items() if peer.held)

    def settle_as(self, *statuses: str) -> None:
        """Take what was settled, which may have only these statuses."""
        for task in self.dispatcher.settled:
            if bytes(task.envelope[0]) == CANCELLER:  # it is told so too
                continue
            record = self.records[number_of(task)]
            assert record.status is None, "settled twice"
            record.status = task.status
            assert task.status in statuses
            assert task.status != "done" or task.body == [b"result"]
            assert (task.status == "expired") == (self.now >= record.expires_at and "expired" in statuses)
        self.dispatcher.settled.clear()

    def note_lost(self) -> None:
        """Note which attempts were lost: what is tried again waits for as long as was said."""
        for task, pause in self.dispatcher.lost:
            record = self.records[number_of(task)]
            delay, factor, most = record.back_off
            assert pause == min(delay * factor ** (task.attempts - 1), most)
            assert not record.tries or task.attempts < record.tries, "more attempts than the limit"
            record.not_before = self.now + pause
        self.dispatcher.lost.clear()
        self.settle_as("failed", "expired")

    # What must hold, always

    @invariant()
    def settled_once(self) -> None:
        self.told += [(bytes(one.worker_id), one.verb, one.what) for one in self.dispatcher.told]
        self.dispatcher.told.clear()
        assert not self.dispatcher.settled
        unsettled = {number for number, record in enumerate(self.records) if record.status is None}
        assert self.tasks().keys() == unsettled
        for name, turns in self.turns.items():
            turns.keep({task.group for task in self.tasks_of(name) if is_in_line(task)})

    @invariant()
    def numbers_are_right(self) -> None:
        dispatcher, tasks = self.dispatcher, list(self.tasks().values())
        counters = dispatcher.counters
        settled = Counter(record.status for record in self.records)
        assert (counters.accepted, counters.refused) == (len(self.records), self.refused)
        for status in ("done", "failed", "cancelled", "expired"):
            assert getattr(counters, status) == settled[status]
        for queue in dispatcher._queues:
            found = Counter(task.status for task in tasks if task.queue is queue)
            assert (queue.waiting, queue.delayed, queue.running) == (found[WAITING], found[DELAYED], found[RUNNING])
            assert queue.unsettled == found.total()
            assert not queue.is_forgettable
        found = Counter(task.status for task in tasks)
        assert (dispatcher.waiting, dispatcher.delayed) == (found[WAITING], found[DELAYED])
        assert dispatcher.running == found[RUNNING]
        for pool in dispatcher._workers._pools.values():
            members = [worker for worker in dispatcher._workers._workers.values() if worker.pool is pool]
            assert (pool.members, pool.doubted) == (len(members), sum(map(is_doubted, members)))

    @invariant()
    def nothing_is_due_before_it_is_said(self) -> None:
        instants = [record.expires_at for record in self.records if record.status is None]
        tasks = self.tasks().values()
        instants += [self.records[number_of(task)].not_before for task in tasks if task.status is DELAYED]
        due = self.dispatcher.next_due()
        assert min(instants, default=inf) == inf or (due is not None and due <= max(min(instants), self.now))

    @invariant()
    def memory_is_proportional_to_what_is_live(self) -> None:
        dispatcher = self.dispatcher
        for queue in dispatcher._queues:
            live = {task.group for task in self.tasks().values() if task.queue is queue and is_in_line(task)}
            assert len(queue._ring) <= len(queue._groups) <= queue._most_groups + 1
            assert {key for key, group in queue._groups.items() if group.live} == live
            for group in queue._groups.values():
                assert group._stale <= group.live + STALE_KEPT
                assert sum(map(len, group._lines.values())) == group.live + group._stale

    def teardown(self) -> None:
        """See that nothing is left when everybody has gone and all is settled."""
        if not hasattr(self, "dispatcher"):
            return
        with self.patched:
            self.end()

    def end(self) -> None:
        dispatcher = self.dispatcher
        for queue in QUEUES:
            dispatcher.queues.resume(queue)
            dispatcher.queues.set_limit(queue, None)
            dispatcher.queues.set_limit_waiting(queue, None)
        dispatcher.abandon("the end", self.now)
        assert {number_of(task) for task in dispatcher.settled} == {
            number for number, record in enumerate(self.records) if record.status is None
        }
        for name in self.peers:
            dispatcher.lose_worker(name, self.now)
        check_that_nothing_is_left(dispatcher, self.now)


def check_that_nothing_is_left(dispatcher: Dispatcher, now: float) -> None:
    workers = dispatcher._workers
    assert [queue.name for queue in dispatcher._queues] == ["default"]
    dispatcher.expire(now + LONG_AFTER)
    assert not list(dispatcher._timers)
    assert dispatcher.next_due() is None
    assert dispatcher.hand_out(now) is None
    assert (dispatcher.waiting, dispatcher.delayed, dispatcher.running, dispatcher.idle) == (0, 0, 0, 0)
    assert entries(dispatcher) <= STALE_KEPT * len(dispatcher._queues.default._groups)
    assert not workers._workers
    assert not workers.free
    assert not workers.ahead
    assert len(workers._pools) == len(dispatcher._queues.default.pools) == 1
    assert not len(dispatcher.ledger)
    assert not dispatcher._by_name


def number_of(task: Task) -> int:
    return int(bytes(task.envelope[0]))


def is_in_line(task: Task) -> bool:
    return task.status is WAITING and task not in task.queue.aside


def is_doubted(worker: Worker) -> bool:
    return worker.record is not None and worker.record.is_in_doubt


def change(limits: dict[str, int], queue: str, limit: int | None) -> None:
    if limit is None:
        limits.pop(queue, None)
    else:
        limits[queue] = limit


Kinds.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestKinds = Kinds.TestCase
