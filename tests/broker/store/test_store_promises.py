"""The promises of a broker with a store that may die between any two steps, against an independent accountant.

The accountant looks at what is on the disk, at what workers get and at what clients are told, and at nothing else: what
was accepted is there until it has an outcome, and it has one; nobody is told what is not stored, or what another
task's outcome is; no task goes to a worker before that is stored, or after its outcome is; and no more workers have a
task in hand than it has tries, through all lives of the broker.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated_store import SimulatedDisk
from storing_support import EPOCH, Died, DyingStore, Life

from zmqbroker.broker.store.gate import DAMAGED
from zmqbroker.broker.store.rows import DamagedTask
from zmqbroker.broker.task import RUNNING, UNATTENDED, BackOff, Name, name_of
from zmqbroker.wire import Announce, Header, Reply, announced

pytestmark = pytest.mark.once


ALL_KEYS = ["k", "l", "m", "n", "o"]
KEYS = st.sampled_from(ALL_KEYS)
OWNERS = st.sampled_from([None, None, "al"])
WORKERS = ["pia", "pat", "ann", "bob", "cid"]
PLAIN = ("pia", "pat")
OUTCOMES = ("done", "failed", "cancelled", "expired")
STATES = ("waiting", "delayed", "running")
SPANS = st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.5, 1.0, 3.0, 31.0])
FUSES = st.sampled_from([None] * 16 + [0, 1, 2, 3, 4, 6])
KEEP, KEEP_FAILED = 5.0, 20.0
HEADERS = st.builds(
    Header,
    key=KEYS,
    timeout=st.sampled_from([None, None, 0, 0.7]),
    tries=st.sampled_from([None, 0, 1, 2, 3]),
    delay=st.sampled_from([0, 0, 0, 0, 1.5]),
    priority=st.integers(-1, 1),
    cancel=st.just(False),
    id=st.sampled_from([None, "1"]),
    progress=st.just(False),
    queue=st.sampled_from([None, None, None, None, "gpu"]),
    group=st.sampled_from([None, "a"]),
    expires=st.sampled_from([None, None, None, 2.0, 40.0]),
    retry_delay=st.sampled_from([None, None, 0.5]),
    retry_factor=st.none(),
    retry_most=st.none(),
    durable=st.booleans(),
    detach=st.sampled_from([True, True, False]),
    keep=st.sampled_from([None, 1.0]),
    fetch=st.none(),
    body=st.just(True),
    forget=st.just(False),
)


@dataclass
class Account:
    """What is known of a durable task."""

    name: bytes  # its body
    key: str
    owner: str | None
    tries: int
    is_stored: bool = False  # it was on the disk at some time
    is_accepted: bool = False  # a client was told so
    is_damaged: bool = False
    outcome: tuple[str, bytes] | None = None  # as it was first on the disk, or first told if it never was
    was_told: bool = False  # it was forgotten when it was told, and never on the disk
    begun: set[bytes] = field(default_factory=set)  # attempts that a worker had in hand, and did not give back

    @property
    def known_by(self) -> Name:
        return name_of(self.key, self.owner)


@dataclass
class Peer:
    """A worker: what it has, and what it could not say."""

    name: str
    connection: str = ""  # empty: it has none
    serial: bool = True
    asks: int = 0  # tasks that it has asked for and not got
    held: list[bytes] = field(default_factory=list)  # ids of attempts, in the order in which they came
    unsaid: list[tuple[str, bytes]] = field(default_factory=list)  # verbs, and of which attempts


class WatchedStore(DyingStore):
    """A store whose disk is looked at by the accountant at each commit."""

    def commit(self) -> bool:
        before = dict(self.disk.tasks)
        has_committed = super().commit()
        if has_committed:
            self.life.accountant.note_commit(before)  # type: ignore[attr-defined]
        return has_committed


class WatchedLife(Life):
    accountant: "Promises"


class Promises(RuleBasedStateMachine):
    """Everything that can happen to a broker with a store, in any order."""

    @initialize(
        tries=st.integers(0, 3),
        timeout=st.sampled_from([None, 1.0]),
        retry_delay=st.sampled_from([0.0, 0.0, 2.0]),
        serial=st.lists(st.booleans(), min_size=len(WORKERS), max_size=len(WORKERS)),
        is_late=st.booleans(),
    )
    def start(self, tries: int, timeout: float | None, retry_delay: float, serial: list[bool], is_late: bool) -> None:
        logging.getLogger("zmqbroker").setLevel(logging.CRITICAL)
        self.options: dict[str, Any] = {"tries": tries, "timeout": timeout, "back_off": BackOff(retry_delay)}
        self.disk = SimulatedDisk()
        self.is_late = is_late
        self.now = 0.0
        self.requests = 0
        self.connections = 0
        self.asked: dict[bytes, tuple[Name | None, str]] = {}  # who waits: for what of which task
        self.answered: Counter[bytes] = Counter()
        self.accounts: dict[bytes, Account] = {}  # by the body
        self.by_number: dict[int, Account] = {}
        self.forgetters: set[Name] = set()  # names of tasks that somebody wanted forgotten
        self.results: set[bytes] = set()
        self.attempts: dict[bytes, bytes] = {}  # bodies by attempt id
        self.peers = [Peer(name, serial=one) for name, one in zip(WORKERS, serial, strict=True)]
        self.live()
        self.come({*range(len(WORKERS))}, 2)

    def live(self) -> None:
        """Begin a life of the broker."""
        damaged = {task.number for task in self.disk.load() if isinstance(task, DamagedTask)}
        for number in damaged:
            self.by_number[number].is_damaged = True
        self.by_number = {number: account for number, account in self.by_number.items() if number in self.disk.tasks}
        WatchedLife.accountant = self
        self.life = WatchedLife(
            self.disk, self.now, WatchedStore, keep=KEEP, keep_failed=KEEP_FAILED, reclaim=10.0, **self.options
        )
        self.dispatcher = self.life.dispatcher
        self.life.is_late = self.is_late
        self.highest = self.life.journal.highest

    def die(self) -> None:
        self.life.store.die()
        self.hear()  # what it said last
        self.asked.clear()
        self.begin_anew()

    def begin_anew(self) -> None:
        for peer in self.peers:
            peer.connection = ""
        self.live()

    # What clients do

    @rule(
        headers=st.lists(st.sampled_from([None, "plain"]) | HEADERS | HEADERS, min_size=1, max_size=3),
        owner=OWNERS,
        ends=st.booleans(),
    )
    def submit(self, headers: list[Header | str | None], owner: str | None, ends: bool) -> None:
        for header in headers:
            if isinstance(header, str):
                header = Header(key="k")
            elif header is not None and not header.is_stored:
                header = header._replace(keep=None)
            self.request(header, owner)
        self.turn_if(ends)

    def request(self, header: Header | None, owner: str | None) -> None:
        self.requests += 1
        address, body = b"client %d" % self.requests, b"task %d" % self.requests
        what = "" if header is None else "accept" if header.detach else "outcome"
        if header is not None and (header.cancel or header.fetch is not None or header.forget):
            what = "cancel" if header.cancel else "fetch"
        name = None if header is None else name_of(header.key or "", owner)
        if header is not None and header.forget:
            self.forgetters.add(name or "")
        self.asked[address] = name, what
        before = {task.number for task in self.dispatcher.ledger}
        self.dispatcher.submit([address], [body], self.now, header, owner)
        for number in {task.number for task in self.dispatcher.ledger} - before:
            task = self.dispatcher.ledger.get(number)
            assert number > self.highest, "a number that the store has already"
            self.highest = number
            self.by_number.pop(number, None)
            if header is not None and header.is_stored:
                assert task is not None
                self.by_number[number] = self.accounts[body] = Account(body, header.key or "", owner, task.tries)

    @rule(
        data=st.data(),
        what=st.sampled_from(["fetch", "fetch", "fetch", "forget", "fetch and forget", "cancel"]),
        seconds=st.sampled_from([0, 0.5, 5.0]),
        body=st.booleans(),
        ends=st.booleans(),
    )
    def ask(self, data: st.DataObject, what: str, seconds: float, body: bool, ends: bool) -> None:
        """Ask about a task by its key."""
        key = data.draw(st.sampled_from(sorted({account.key for account in self.accounts.values()} or {"k"})))
        owner = data.draw(OWNERS)
        if what == "cancel":
            self.request(Header(key=key, cancel=True), owner)
        elif what == "forget":
            self.request(Header(key=key, forget=True), owner)
        else:
            self.request(Header(key=key, fetch=seconds, body=body, forget=what != "fetch"), owner)
        self.turn_if(ends)

    # What the broker, its store and its disk do

    @rule(span=SPANS, fuse=FUSES)
    def turn(self, span: float, fuse: int | None) -> None:
        """Take a turn; the next one is taken after so many seconds."""
        self.life.fuse = fuse
        try:
            self.life.turn(self.now)
        except Died:
            self.die()
        else:
            self.life.fuse = None
            self.hear()
        self.now = self.life.now = self.now + span

    def turn_if(self, ends: bool) -> None:
        if ends:
            self.turn(0.0, None)

    @rule(is_late=st.sampled_from([True, True, False]))
    def be_late(self, is_late: bool) -> None:
        self.is_late = self.life.is_late = is_late

    @precondition(lambda self: self.life.store.started)
    @rule(number=st.integers(1, 3))
    def commit(self, number: int) -> None:
        for _ in range(number):
            self.life.store.commit()

    @rule(ends_well=st.booleans(), often=st.integers(0, 2), comes_back=st.booleans())
    def end(self, ends_well: bool, often: int, comes_back: bool) -> None:
        """Have it end, well or not; workers may come back at once."""
        if often:
            return
        if ends_well:
            self.life.end()
            self.hear()
            assert not self.asked, "somebody waits on a broker that has left"
            self.begin_anew()
        else:
            self.die()
        if comes_back:
            self.come({*range(len(self.peers))}, 1)

    @rule(
        what=st.sampled_from(["room", "room", "full", "low", "damage", "jump"]),
        jump=st.sampled_from([-2.0, 2.0]),
        data=st.data(),
        often=st.integers(0, 2),
    )
    def change_world(self, what: str, jump: float, data: st.DataObject, often: int) -> None:
        """Change the disk, or the wall's clock; most of the time all is well."""
        self.disk.is_full = what == "full"
        self.disk.room = 20 if what == "room" else inf
        self.life.store.floor = int(what == "low")
        self.life.jump = jump if what == "jump" else 0.0
        if what == "damage" and not often and self.disk.tasks and not self.disk.damaged:
            number = data.draw(st.sampled_from(sorted(self.disk.tasks)))
            self.disk.damaged.add(number)
            self.by_number[number].is_damaged = True

    # What workers do

    @rule(which=st.sets(st.integers(0, len(WORKERS) - 1), min_size=1), asks=st.integers(1, 3))
    def come(self, which: set[int], asks: int) -> None:
        for number in sorted(which):
            self.connect(self.peers[number], asks)

    def connect(self, peer: Peer, asks: int) -> None:
        if not peer.connection:
            self.connections += 1
            peer.asks = 0
            peer.connection = f"{peer.name} {self.connections}"
            if peer.name not in PLAIN:
                queues = ("gpu", "default") if peer.name == "ann" else ("default",)
                announce = Announce(label=peer.name, serial=peer.serial, queues=queues)
                self.life.join(peer.connection, 0, announce, *peer.held)
                unsaid, peer.unsaid = peer.unsaid, []
                for verb, attempt_id in unsaid:
                    self.tell(peer, verb, attempt_id, 0)
        if peer.name in PLAIN:
            self.dispatcher.ready([peer.connection.encode()])
            peer.asks += 1
        else:
            peer.asks += asks
            self.dispatcher.ask(peer.connection.encode(), asks)

    @rule(
        which=st.integers(0, 9),
        verbs=st.lists(st.sampled_from(["done"] * 4 + ["fail", "fail", "reject", "release"]), min_size=1, max_size=3),
        ends=st.booleans(),
    )
    def finish(self, which: int, verbs: list[str], ends: bool) -> None:
        for verb in verbs:
            holding = [peer for peer in self.peers if peer.held]
            if holding:
                self.finish_one(holding[which % len(holding)], verb, which % 2)
        self.turn_if(ends)

    def finish_one(self, peer: Peer, verb: str, asks: int) -> None:
        attempt_id = peer.held.pop(0)
        body = self.attempts[attempt_id]
        account = self.accounts.get(body)
        if verb == "release" and account is not None:
            account.begun.discard(attempt_id)
        if not peer.connection and peer.name not in PLAIN:
            peer.unsaid.append((verb, attempt_id))
        else:
            self.tell(peer, verb, attempt_id, asks)
        self.begin(peer)

    def tell(self, peer: Peer, verb: str, attempt_id: bytes, asks: int) -> None:
        dispatcher, now = self.dispatcher, self.now
        if peer.name not in PLAIN:
            dispatcher.answered(peer.connection.encode(), attempt_id, asks, now)
            peer.asks += asks
        if verb == "done":
            result = b"result of %s by %s" % (self.attempts[attempt_id], attempt_id.hex()[16:48].encode())
            self.results.add(result)
            dispatcher.result(attempt_id, [result], now)
        elif verb == "release":
            dispatcher.release(attempt_id, now)
        else:
            (dispatcher.fail if verb == "fail" else dispatcher.reject)(attempt_id, "no", now)

    @rule(which=st.integers(0, 9), seconds=st.sampled_from([None, 0.5, 10.0]))
    def touch(self, which: int, seconds: float | None) -> None:
        holding = [peer for peer in self.peers if peer.held and (peer.connection or peer.name in PLAIN)]
        if holding:
            self.dispatcher.touch(holding[which % len(holding)].held[0], seconds, self.now)

    @rule(which=st.integers(0, 9), comes_back=st.booleans(), is_noticed=st.booleans())
    def lose(self, which: int, comes_back: bool, is_noticed: bool) -> None:
        there = [peer for peer in self.peers if peer.connection]
        if not there:
            return
        peer = there[which % len(there)]
        self.life.gone.add(peer.connection.encode())
        if is_noticed:
            self.life.lose(peer.connection)
        if not comes_back:
            peer.held.clear()
            peer.unsaid.clear()
            self.life.lose(peer.connection)
        peer.connection = ""

    # What is heard

    def hear(self) -> None:
        """Take what the broker has said."""
        life = self.life
        for connection, attempt_id, body in life.sent:
            self.note_sent(connection.decode(), attempt_id, bytes(body[0]))
        life.sent.clear()
        while life.replies:
            self.note_reply(*life.replies.popleft())
        while life.plain_replies:
            address, _ = life.plain_replies.popleft()
            assert self.asked.pop(address)[0] is None
        told, life.told[:] = life.told[:], []
        for connection, verb, attempt_id in told:
            self.obey(connection.decode(), verb, attempt_id)

    def obey(self, connection: str, verb: bytes, attempt_id: bytes) -> None:
        """Have a worker give back what it has not begun, and is not to begin."""
        for peer in self.peers:
            behind = peer.held[1:] if peer.connection == connection and verb != announced.WITHDRAWN else []
            if attempt_id in behind:
                peer.held.remove(attempt_id)
                account = self.accounts.get(self.attempts[attempt_id])
                if account is not None:
                    account.begun.discard(attempt_id)
                self.tell(peer, "release", attempt_id, 0)

    def note_sent(self, connection: str, attempt_id: bytes, body: bytes) -> None:
        assert attempt_id not in self.attempts, "an attempt id was used twice"
        self.attempts[attempt_id] = body
        account = self.accounts.get(body)
        if account is not None:
            number = int.from_bytes(attempt_id[8:16], "big")
            assert self.by_number[number] is account
            assert account.outcome is None, "a task went to a worker after its outcome was stored"
            stored = self.disk.tasks[number].state
            assert stored.status == RUNNING, "a hand-out that is not stored was sent"
            assert stored.hand_outs == int.from_bytes(attempt_id[16:24], "big")
        for peer in self.peers:
            if peer.connection == connection:
                peer.held.append(attempt_id)
                peer.asks -= 1
                self.begin(peer)

    def begin(self, peer: Peer) -> None:
        """Have a worker have in hand what is first, or all of it."""
        for attempt_id in peer.held[: 1 if peer.serial and peer.name not in PLAIN else None]:
            account = self.accounts.get(self.attempts[attempt_id])
            if account is None or account.outcome is not None or attempt_id in account.begun:
                continue
            stored = self.disk.tasks.get(int.from_bytes(attempt_id[8:16], "big"))
            if stored is None or stored.state.status != RUNNING:
                continue  # begun before anybody could know: it has waited again
            if stored.state.hand_outs != int.from_bytes(attempt_id[16:24], "big"):
                continue
            account.begun.add(attempt_id)
            if not account.is_damaged:
                assert stored.state.attempts >= len(account.begun), "a death would be charged too seldom"
            assert not account.tries or len(account.begun) <= account.tries, "more attempts than tries"

    def note_commit(self, before: dict[int, Any]) -> None:
        """See what a commit has made of what was on the disk."""
        for number in self.disk.tasks.keys() | before.keys():
            account = self.by_number[number]
            task = self.disk.tasks.get(number)
            if task is None:
                self.note_forgotten(account, before[number])
                continue
            assert task.request.name == account.known_by
            account.is_stored = True
            if task.state.until is not None:
                outcome = task.state.status, bytes(task.body[0]) if task.body else b""
                assert account.outcome in (None, outcome), "a second outcome"
                account.outcome = outcome
                if task.state.status == "done":
                    assert outcome[1] in self.results
                    assert outcome[1].startswith(b"result of %s by" % account.name)
                else:
                    assert outcome[1] == account.name, "the body of what may be tried again"
            else:
                assert account.outcome is None

    def note_forgotten(self, account: Account, before: Any) -> None:
        wall = EPOCH + self.now + 2.0  # the clock may be off by so much
        if before.state.until is None:
            assert account.known_by in self.forgetters, "a task was lost"
            account.outcome = account.outcome or ("told", b"")
        else:
            assert account.known_by in self.forgetters or before.state.until <= wall + 2.0, "an outcome was lost"

    def note_reply(self, address: bytes, reply: Reply) -> None:
        name, what = self.asked.pop(address)  # none is answered twice
        assert reply.key == (name[1] if isinstance(name, tuple) else name)
        status = reply.status
        if status in ("unavailable", "invalid", "unknown"):
            assert status != "unknown" or what == "fetch"
            return
        account = None if reply.number is None else self.by_number.get(reply.number)
        if account is None:
            assert status != "accepted"
            return
        assert account.known_by == name, "what is another task's"
        assert account.is_stored or account.outcome, "it was not stored"
        if status == "accepted":
            assert what == "accept"
            account.is_accepted = True
        elif status in OUTCOMES:
            assert what != "accept"
            self.note_outcome(account, reply)
        else:
            assert status in STATES
            assert what == "fetch"

    def note_outcome(self, account: Account, reply: Reply) -> None:
        body = bytes(reply.body[0])
        if reply.reason == DAMAGED:
            assert account.is_damaged
            return
        assert account.outcome is not None, "an outcome that is not stored"
        status, known = account.outcome
        if status == "told" or (account.was_told and not known):  # whoever got it first had it forgotten
            account.was_told = True
            account.outcome = reply.status, body
        assert reply.status == account.outcome[0]
        assert body in (b"", account.outcome[1]) if reply.status == "done" else body == b""

    # What must hold, always

    @invariant()
    def what_was_accepted_is_there_or_has_an_outcome(self) -> None:
        if not hasattr(self, "life"):
            return
        there = {id(self.by_number[number]) for number in self.disk.tasks}
        for account in self.accounts.values():
            if account.is_stored:
                assert account.outcome is not None or id(account) in there

    @invariant()
    def memory_agrees_with_what_is_stored(self) -> None:
        if not hasattr(self, "life") or self.life.store.started or self.life.storing.has_news:
            return
        if self.life.storing._pending:
            return
        journal = self.life.journal
        outcomes = {outcome.number for outcome in journal.outcomes._by_name.values()}
        unsettled = {task.number for task in self.dispatcher.ledger if task.is_durable}
        damaged = set(journal.damaged.values())
        assert outcomes | unsettled | damaged == set(self.disk.tasks)
        assert not outcomes & unsettled
        for number in unsettled - damaged - self.disk.damaged:
            task, state = self.dispatcher.ledger.get(number), self.disk.tasks[number].state
            assert task is not None
            assert (state.status == RUNNING) == (task.status is RUNNING)
            assert state.attempts == (task.attempt if task.status is RUNNING else task.attempts)
            assert not any(task.attempt_id in worker.unsent for worker in self.dispatcher.workers)

    @invariant()
    def what_all_tasks_share_that_nobody_waits_for_stays_empty(self) -> None:
        assert UNATTENDED == []

    @invariant()
    def a_worker_gets_as_many_tasks_as_it_asks_for(self) -> None:
        for peer in self.peers if hasattr(self, "life") else ():
            worker = self.dispatcher.workers.find(peer.connection.encode())
            if worker is not None and not worker.lost:
                assert len(worker.slots) + len(worker.unsent) == peer.asks
                assert worker.unsent.keys() <= worker.held.keys()

    # The end

    def teardown(self) -> None:
        logging.getLogger("zmqbroker").setLevel(logging.NOTSET)
        if not hasattr(self, "life"):
            return
        self.disk.is_full, self.disk.room, self.life.is_late, self.life.jump = False, inf, False, 0.0
        self.life.store.floor = 0
        for connection in sorted(self.life.gone):
            self.life.lose(connection.decode())
        for _ in range(60):
            self.behave()
            if not self.dispatcher.unsettled:
                break
        assert not self.dispatcher.unsettled
        for _ in range(3):
            self.behave()
        assert not self.asked, "somebody was not answered"
        for account in self.accounts.values():
            assert account.outcome is not None or not account.is_accepted or account.is_damaged
        self.check_that_nothing_is_left()

    def behave(self) -> None:
        while self.life.store.commit():
            pass
        for peer in self.peers:
            self.connect(peer, 3)
            while peer.held:
                self.finish_one(peer, "done", 0)
        self.turn(0.0, None)
        self.turn(1.0, None)

    def check_that_nothing_is_left(self) -> None:
        for key, owner in product(ALL_KEYS, (None, "al")):
            self.request(Header(key=key, forget=True), owner)
        for _ in range(3):
            self.turn(100.0, None)
        life, dispatcher, journal = self.life, self.dispatcher, self.life.journal
        assert not len(journal.outcomes)
        assert not journal.outcomes.failed
        assert not journal.outcomes._failed_bytes
        assert not journal.damaged
        assert not journal._changed
        assert not journal.has_news
        assert not life.storing._pending
        assert not self.disk.tasks
        for peer in self.peers:
            life.lose(peer.connection)
        self.turn(0.0, None)
        assert not len(dispatcher.ledger)
        assert not dispatcher._by_name
        assert not dispatcher.in_hand
        assert not list(dispatcher._timers)
        assert dispatcher.next_due() is None
        assert not len(dispatcher.workers)
        assert (dispatcher.waiting, dispatcher.delayed, dispatcher.running, dispatcher.idle) == (0, 0, 0, 0)


Promises.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestStorePromises = Promises.TestCase
