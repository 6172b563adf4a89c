"""The promises of README.md under random interleavings of everything that can happen, against a simple model.

The model keeps one record a task, written from the promises and not from the code: which attempts it had, which of
them is running until when, who lost it, and what was replied.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from unittest.mock import patch

import pytest
from core_support import NOT_STORED, entries, places
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmqbroker.broker.dispatch import GRACE, Dispatcher
from zmqbroker.broker.kept import KEPT_FOR
from zmqbroker.broker.task import BackOff
from zmqbroker.wire import Header

pytestmark = pytest.mark.once


STALE_KEPT = 2  # in the queues, so that they are rebuilt often
WORKERS = [b"ann", b"bob", b"cid", b"dee"]
RESULT = [b"result"]
KEYS = st.sampled_from([None, None, "k", "l"])
HEADERS = st.builds(
    Header,
    key=KEYS,
    timeout=st.sampled_from([None, 0, 0.7]),
    tries=st.sampled_from([None, 0, 1, 2]),
    delay=st.sampled_from([0, 0, 1.5]),
    priority=st.integers(-1, 1),
    cancel=st.just(False),
    queue=st.none(),
    group=st.sampled_from([None, None, "a"]),
    expires=st.sampled_from([None, None, 2.0]),
    retry_delay=st.sampled_from([None, 0.0, 0.5]),
    retry_factor=st.none(),
    retry_most=st.none(),
    **NOT_STORED,
)


@dataclass
class Record:
    """What the model knows of a task."""

    addresses: list[bytes]  # where its reply goes
    tries: int
    timeout: float | None
    retry_delay: float
    priority: int = 0
    group: str | None = None
    expires_at: float = inf
    key: str | None = None
    has_header: bool = False
    attempts: int = 0  # charged
    issued: int = 0  # attempt ids
    running: bytes | None = None
    due: float | None = None  # of the running attempt, or the end of a delay
    worker: bytes | None = None  # that had it last
    avoids: bool = False  # that worker: it lost the task or gave it back
    worker_lost: bool = False  # while the attempt ran
    status: str | None = None  # None: unsettled

    @property
    def waits(self) -> bool:
        return self.status is None and self.running is None and self.due is None


class Promises(RuleBasedStateMachine):
    """Everything a broker can meet, in any order."""

    @initialize(
        tries=st.integers(0, 3), timeout=st.sampled_from([None, 1.0, 2.5]), retry_delay=st.sampled_from([0.0, 2.0])
    )
    def start(self, tries: int, timeout: float | None, retry_delay: float) -> None:
        self.patched = ExitStack()
        for module in ("queues", "timers", "workers"):
            self.patched.enter_context(patch(f"zmqbroker.broker.{module}.STALE_KEPT", STALE_KEPT))
        self.now = 0.0
        self.tries, self.timeout, self.retry_delay = tries, timeout, retry_delay
        self.dispatcher = Dispatcher(tries=tries, timeout=timeout, back_off=BackOff(retry_delay), run=b"run")
        self.records: list[Record] = []  # the body of a task is its place in this list
        self.requests = 0
        self.refuses = False
        self.slots = dict.fromkeys(WORKERS, 0)
        self.connected: set[bytes] = set()  # workers that were ready, and not lost since
        self.owners: dict[bytes, Record] = {}  # by attempt id, for all that were ever issued
        self.kept: dict[str, tuple[float, Record]] = {}  # when and what was last replied to a key
        self.expected: list[tuple[bytes, str]] = []  # replies to be sent: address and status

    # What can happen

    @rule(header=st.one_of(st.none(), HEADERS))
    def submit(self, header: Header | None) -> None:
        address = self.send(header)
        key = header.key if header else None
        known = self.unsettled_with(key)
        if known is not None:
            known.addresses.append(address)  # it joins
        elif key in self.kept and self.now < self.kept[key][0] + KEPT_FOR:
            _, record = self.kept[key]
            self.kept[key] = (self.now, record)
            self.expected.append((address, record.status))
        elif self.refuses:
            self.expected.append((address, "failed" if header is None else "unavailable"))
        else:
            record = Record([address], self.tries, self.timeout, self.retry_delay)
            if header is not None:
                record.has_header = True
                record.key, record.priority, record.group = key, header.priority, header.group
                record.expires_at = inf if header.expires is None else self.now + header.expires
                record.retry_delay = self.retry_delay if header.retry_delay is None else header.retry_delay
                record.tries = self.tries if header.tries is None else header.tries
                record.timeout = self.timeout if header.timeout is None else header.timeout or None
                record.due = self.now + header.delay if header.delay else None
            self.records.append(record)

    @rule(often=st.integers(0, 9))
    def stop_accepting(self, often: int) -> None:
        if not often:
            self.dispatcher.stop_accepting("the broker is shutting down")
            self.refuses = True

    @rule(key=st.sampled_from(["k", "l"]))
    def cancel(self, key: str) -> None:
        known = self.unsettled_with(key)
        address = self.send(Header(key=key, cancel=True))
        if known is None:
            self.expected.append((address, "invalid"))
        else:
            self.settle(known, "cancelled")
            self.expected.append((address, "cancelled"))

    @rule(worker=st.sampled_from(WORKERS))
    def ready(self, worker: bytes) -> None:
        self.dispatcher.ready([worker])
        self.slots[worker] += 1
        self.connected.add(worker)

    @rule(gone=st.sets(st.sampled_from(WORKERS), max_size=2))
    def hand_out(self, gone: set[bytes]) -> None:
        while (pair := self.dispatcher.hand_out(self.now)) is not None:
            envelope, task = pair
            worker, record = bytes(envelope[0]), self.records[int(task.body[0])]
            self.check_choice(worker, record)
            if worker in gone:  # sending to it fails
                self.dispatcher.take_back(task, self.now)
                self.drop_connection(worker)
                record.worker, record.avoids = worker, True
                record.issued += 1
                continue
            self.slots[worker] -= 1
            assert task.attempt_id not in self.owners, "an attempt id was used twice"
            self.owners[task.attempt_id] = record
            record.attempts += 1
            record.issued += 1
            assert not record.tries or record.attempts <= record.tries, "promise 6: more attempts than the limit"
            record.running, record.worker, record.avoids, record.worker_lost = task.attempt_id, worker, False, False
            record.due = None if record.timeout is None else self.now + record.timeout
        assert not (any(self.slots.values()) and any(record.waits for record in self.records))

    def check_choice(self, worker: bytes, record: Record) -> None:
        assert self.slots[worker] > 0
        assert record.waits, "a task that does not wait was handed out"
        waiting = [other for other in self.records if other.waits and other.group == record.group]
        assert record.priority == max(other.priority for other in waiting)
        equals = [other for other in waiting if other.priority == record.priority]
        assert record.issued or not any(other.issued for other in equals), "promise 4: a retry goes first"
        if record.avoids and any(slots for name, slots in self.slots.items() if name != record.worker):
            assert worker != record.worker, "promise 4: the retry went to the worker that lost it"

    @rule(span=st.sampled_from([0.0, GRACE, 0.5, 1.0, 3.0, 61.0]))
    def expire(self, span: float) -> None:
        self.now += span
        self.dispatcher.expire(self.now)
        for record in self.records:
            if record.status is None and record.expires_at <= self.now:
                self.settle(record, "expired")
            elif record.status is None and record.due is not None and record.due <= self.now:
                if record.running is None:
                    record.due = None  # the delay is over
                else:
                    self.lose(record)

    @rule(worker=st.sampled_from(WORKERS))
    def lose_worker(self, worker: bytes) -> None:
        self.dispatcher.lose_worker(worker, self.now)
        self.drop_connection(worker)

    def drop_connection(self, worker: bytes) -> None:
        self.slots[worker] = 0
        self.connected.discard(worker)
        for record in self.records:
            if record.running is not None and record.worker == worker:
                record.worker_lost = True
                grace = self.now + GRACE
                record.due = grace if record.due is None else min(record.due, grace)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def result(self, data: st.DataObject) -> None:
        attempt_id = data.draw(st.sampled_from(sorted(self.owners)))
        self.dispatcher.result(attempt_id, RESULT, self.now)
        if self.owners[attempt_id].status is None:  # promise 3: a result counts from any attempt
            self.settle(self.owners[attempt_id], "done")

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), verb=st.sampled_from(["fail", "reject", "release", "touch"]))
    def say_verb(self, data: st.DataObject, verb: str) -> None:
        attempt_id = data.draw(st.sampled_from(sorted(self.owners)))
        record = self.owners[attempt_id]
        seconds = data.draw(st.sampled_from([None, 0.5, 10.0])) if verb == "touch" else None
        if verb == "fail":
            self.dispatcher.fail(attempt_id, "no", self.now)
        elif verb == "reject":
            self.dispatcher.reject(attempt_id, "no", self.now)
        elif verb == "release":
            self.dispatcher.release(attempt_id, self.now)
        else:
            self.dispatcher.touch(attempt_id, seconds, self.now)
        if record.running != attempt_id:
            return  # promise 3: it counts for the running attempt only
        if verb == "fail":
            self.lose(record)
        elif verb == "reject":
            self.settle(record, "failed")
        elif verb == "release":
            record.attempts -= 1
            record.running, record.due, record.avoids = None, None, True
        elif (seconds or record.timeout) and not record.worker_lost:
            record.due = self.now + (seconds or record.timeout or 0.0)

    @rule(attempt_id=st.binary(max_size=24))
    def made_up_attempt(self, attempt_id: bytes) -> None:
        self.dispatcher.result(b"RUN" + attempt_id, RESULT, self.now)
        self.dispatcher.fail(b"RUN" + attempt_id, "no", self.now)

    @rule()
    def replies_are_sent(self) -> None:
        self.dispatcher.settled.clear()
        self.expected.clear()

    # How the model moves

    def send(self, header: Header | None) -> bytes:
        """Submit a request by a connection of its own, and return that."""
        self.requests += 1
        address = b"client %d" % self.requests
        self.dispatcher.submit([address], [b"%d" % len(self.records)], self.now, header)
        return address

    def unsettled_with(self, key: str | None) -> Record | None:
        found = [record for record in self.records if key is not None and record.key == key and record.status is None]
        return found[0] if found else None

    def lose(self, record: Record) -> None:
        if record.tries and record.attempts >= record.tries:
            self.settle(record, "failed")
        else:
            record.running, record.avoids = None, True
            record.due = self.now + record.retry_delay if record.retry_delay else None

    def settle(self, record: Record, status: str) -> None:
        assert record.status is None, "promise 2: settled twice"
        record.running = record.due = None
        record.status = status
        self.expected += [(address, status) for address in record.addresses]
        if record.key is not None and status != "unavailable":
            self.kept[record.key] = (self.now, record)

    # What must hold, always

    @invariant()
    def replies_are_those_of_the_model(self) -> None:
        """Promises 1, 2 and 3: exactly one reply, the first result or the failure after the last attempt."""
        settled = self.dispatcher.settled
        replies = [(bytes(waiter.envelope[0]), task.status) for task in settled for waiter in task.waiters]
        assert sorted(replies) == sorted(self.expected)
        for task in self.dispatcher.settled:
            assert task.body == (RESULT if task.status == "done" else [])

    @invariant()
    def counters_add_up(self) -> None:
        counters, dispatcher = self.dispatcher.counters, self.dispatcher
        assert counters.accepted == len(self.records)
        settled = counters.done + counters.failed + counters.cancelled + counters.expired
        assert counters.accepted == settled + dispatcher.unsettled
        assert dispatcher.waiting == sum(record.waits for record in self.records)
        assert dispatcher.running == sum(record.running is not None for record in self.records)
        assert dispatcher.idle == sum(slots > 0 for slots in self.slots.values())

    @invariant()
    def the_next_due_instant_is_that_of_the_model(self) -> None:
        instants = [record.due for record in self.records if record.due is not None]
        instants += [record.expires_at for record in self.records if record.status is None and record.expires_at < inf]
        instants += [at + KEPT_FOR for at, _ in self.kept.values() if at + KEPT_FOR > self.now]
        due = self.dispatcher.next_due()
        assert not instants or (due is not None and due <= max(min(instants), self.now))

    @invariant()
    def memory_is_proportional_to_unsettled_tasks(self) -> None:
        """Promise 7."""
        dispatcher = self.dispatcher
        dispatcher.next_due()  # as each turn of the loop asks
        assert len(dispatcher._timers._heap) <= 2 * (dispatcher.unsettled + len(dispatcher._queues)) + STALE_KEPT
        groups = [group for queue in dispatcher._queues for group in queue._groups.values() if group.live]
        assert entries(dispatcher) <= 2 * dispatcher.waiting + STALE_KEPT * len(groups)
        workers = dispatcher._workers
        assert places(dispatcher) <= 2 * (2 * dispatcher.idle + STALE_KEPT)
        assert len(dispatcher.ledger) <= dispatcher.unsettled
        running = {task for task in dispatcher.ledger if task.attempt_id}
        assert {task for worker in workers._workers.values() for task in worker.held.values()} <= running
        assert all(task.worker.held[task.attempt_id] is task for task in running)
        assert workers._workers.keys() == self.connected
        assert len(dispatcher._by_name) <= dispatcher.unsettled

    def teardown(self) -> None:
        """Promise 1: nobody is left without a reply at shutdown."""
        if hasattr(self, "dispatcher"):
            self.patched.close()
            for record in self.records:
                if record.status is None:
                    self.settle(record, "unavailable" if record.has_header else "failed")
            self.dispatcher.abandon("the broker was shut down", self.now)
            self.replies_are_those_of_the_model()
            assert self.dispatcher.unsettled == 0


Promises.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestPromises = Promises.TestCase
