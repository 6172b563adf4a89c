"""The promises beside workers that announce themselves and say anything of any attempt, in any order.

What honest ones do is in tests/worker/test_both_ends.py. These name attempts of others, answer for them, ask for what
they like, announce themselves twice, are plain workers as well, and vanish: whatever they say, each task has one
outcome, the records of tasks and workers agree, and an honest worker is left to do the rest.
"""

from collections import Counter
from contextlib import ExitStack
from unittest.mock import patch

import pytest
from core_support import NOT_STORED, due
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmqbroker.broker.dispatch import GRACE, HELD, Dispatcher
from zmqbroker.broker.task import RUNNING, BackOff, Task
from zmqbroker.wire import Announce, Header

pytestmark = pytest.mark.once


STALE_KEPT = 2  # in the queues, so that they are rebuilt often
WORKERS = st.sampled_from([b"ann", b"bob", b"cid"])
ANNOUNCES = st.sampled_from([Announce(serial=True), Announce(serial=True), Announce()])
HEADERS = st.builds(
    Header,
    key=st.sampled_from([None, "k"]),
    timeout=st.sampled_from([None, 0, 0.7]),
    tries=st.sampled_from([None, 0, 1, 2]),
    delay=st.sampled_from([0, 0, 1.5]),
    priority=st.just(0),
    cancel=st.just(False),
    id=st.none(),
    progress=st.just(False),
    queue=st.none(),
    group=st.none(),
    expires=st.none(),
    retry_delay=st.none(),
    retry_factor=st.none(),
    retry_most=st.none(),
    **NOT_STORED,
)


class Promises(RuleBasedStateMachine):
    """Everything that may be said on READY, and what happens besides."""

    @initialize(tries=st.integers(0, 3), timeout=st.sampled_from([None, 1.0]), retry_delay=st.sampled_from([0.0, 2.0]))
    def start(self, tries: int, timeout: float | None, retry_delay: float) -> None:
        self.patched = ExitStack()
        for module in ("queues", "timers", "workers"):
            self.patched.enter_context(patch(f"zmqbroker.broker.{module}.STALE_KEPT", STALE_KEPT))
        self.now = 0.0
        self.dispatcher = Dispatcher(tries=tries, timeout=timeout, back_off=BackOff(retry_delay))
        self.attempt_ids: list[bytes] = []
        self.requests = 0
        self.replies: Counter[bytes] = Counter()

    # What clients, the loop and the clock do

    @rule(header=st.none() | HEADERS)
    def submit(self, header: Header | None) -> None:
        self.requests += 1
        self.dispatcher.submit([b"client %d" % self.requests], [b"task"], self.now, header)

    @precondition(lambda self: self.dispatcher._by_name)
    @rule()
    def cancel(self) -> None:
        self.submit(Header(key="k", cancel=True))

    @rule(gone=st.sets(WORKERS, max_size=1))
    def hand_out(self, gone: set[bytes]) -> None:
        while (pair := self.dispatcher.hand_out(self.now)) is not None:
            envelope, task = pair
            if envelope[0] in gone:
                self.dispatcher.take_back(task, self.now)
            else:
                self.attempt_ids.append(task.attempt_id)

    @rule(span=st.sampled_from([0.0, HELD, GRACE, 1.0, 61.0]))
    def expire(self, span: float) -> None:
        self.now += span
        self.dispatcher.expire(self.now)

    @rule(worker=WORKERS)
    def lose_worker(self, worker: bytes) -> None:
        self.dispatcher.lose_worker(worker, self.now)

    # What workers say

    @rule(worker=WORKERS, announce=ANNOUNCES, data=st.data())
    def announce(self, worker: bytes, announce: Announce, data: st.DataObject) -> None:
        named = data.draw(st.lists(st.sampled_from([b"never was", *self.attempt_ids[-20:]]), max_size=4))
        self.dispatcher.announce(worker, announce, named, self.now)

    @rule(worker=WORKERS)
    def ready(self, worker: bytes) -> None:
        self.dispatcher.ready([worker])

    @rule(worker=WORKERS, number=st.sampled_from([1, 2, 5]))
    def ask(self, worker: bytes, number: int) -> None:
        self.dispatcher.ask(worker, number)

    @rule(worker=WORKERS, number=st.sampled_from([1, 64]))
    def withdraw(self, worker: bytes, number: int) -> None:
        self.dispatcher.withdraw(worker, number)

    @precondition(lambda self: self.attempt_ids)
    @rule(
        worker=st.none() | WORKERS,
        verb=st.sampled_from(["result", "fail", "reject", "release", "release"]),
        asks=st.integers(0, 2),
        data=st.data(),
    )
    def say(self, worker: bytes | None, verb: str, asks: int, data: st.DataObject) -> None:
        """Tell an outcome, by READY, or (without a worker) by the address for results."""
        attempt_id = data.draw(st.sampled_from(self.attempt_ids[-20:]))
        if worker is not None:
            self.dispatcher.answered(worker, attempt_id, asks, self.now)
        if verb == "result":
            self.dispatcher.result(attempt_id, [b"result"], self.now)
        elif verb == "release":
            self.dispatcher.release(attempt_id, self.now)
        else:
            getattr(self.dispatcher, verb)(attempt_id, "no", self.now)

    @precondition(lambda self: self.attempt_ids)
    @rule(seconds=st.sampled_from([None, 0.5, 10.0]), data=st.data())
    def touch(self, seconds: float | None, data: st.DataObject) -> None:
        self.dispatcher.touch(data.draw(st.sampled_from(self.attempt_ids[-20:])), seconds, self.now)

    # What must hold, always

    @invariant()
    def nobody_gets_two_replies(self) -> None:
        for task in self.dispatcher.settled:
            self.replies.update(bytes(waiter.envelope[0]) for waiter in task.waiters)
            assert not task.tries or task.attempts <= task.tries
        self.dispatcher.settled.clear()
        self.dispatcher.told.clear()
        assert all(number == 1 for number in self.replies.values())

    @invariant()
    def tasks_and_workers_agree(self) -> None:
        tasks = [*self.dispatcher.ledger]
        for task in tasks:
            assert not task.tries or task.attempts <= task.tries
            assert (task.status is RUNNING) == bool(task.attempt_id)
            if task.status is RUNNING:
                assert self.is_held(task)
        workers = self.dispatcher._workers
        for worker_id, worker in workers._workers.items():
            assert worker.id == worker_id
            for attempt_id, task in worker.held.items():
                assert task.attempt_id != attempt_id or task.worker is worker
                assert task.attempt_id or not task.due or task not in tasks or task.status is not RUNNING

    def is_held(self, task: Task) -> bool:
        """Tell whether a running task is at its worker, or about to be given up with that."""
        if task.worker.lost:
            return task.due is not None
        return task.worker.held.get(task.attempt_id) is task

    @invariant()
    def lines_are_right(self) -> None:
        workers = self.dispatcher._workers
        lines = [line for pool in workers._pools.values() for line in (pool.free, pool.ahead)]
        entries = [(line, ticket, worker) for line in lines for ticket, worker in (*line._entries, *line._doubted)]
        live = [worker for line, ticket, worker in entries if worker.line is line and worker.ticket == ticket]
        assert len(live) == len({*live}) == workers.idle
        assert {*live} == {worker for worker in workers._workers.values() if worker.slots and worker.may_have_more}
        for worker in live:
            is_ahead = worker.announce is not None and bool(worker.held)
            assert worker.line is (worker.pool.ahead if is_ahead else worker.pool.free)

    @invariant()
    def memory_is_proportional_to_unsettled_tasks(self) -> None:
        dispatcher = self.dispatcher
        dispatcher.next_due()  # as each turn of the loop asks
        workers = len(dispatcher._workers)
        live = dispatcher.running + dispatcher.delayed + 2 * workers + len(dispatcher._queues)
        assert len(dispatcher._timers._heap) <= 2 * live + STALE_KEPT
        assert len(dispatcher.ledger) <= dispatcher.unsettled
        counters = dispatcher.counters
        assert counters.accepted == counters.done + counters.failed + counters.cancelled + dispatcher.unsettled

    def teardown(self) -> None:
        """When they have gone, an honest worker does what is left."""
        if not hasattr(self, "dispatcher"):
            return
        with self.patched:
            for worker in (b"ann", b"bob", b"cid"):
                self.dispatcher.lose_worker(worker, self.now)
            self.dispatcher.announce(b"honest", Announce(serial=True), [], self.now)
            for _ in range(self.requests + 10):
                self.dispatcher.ask(b"honest", self.requests)
                before = len(self.attempt_ids)
                self.hand_out(set())
                for attempt_id in self.attempt_ids[before:]:
                    self.dispatcher.answered(b"honest", attempt_id, 0, self.now)
                    self.dispatcher.result(attempt_id, [b"result"], self.now)
                self.expire(1.0)
            assert not self.dispatcher.unsettled
            self.nobody_gets_two_replies()
            assert len(self.replies) == self.requests
            self.expire(100.0)
            assert due(self.dispatcher) is None
            assert {*self.dispatcher._workers._workers} == {b"honest"}
            assert not len(self.dispatcher.ledger)


Promises.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSerialPromises = Promises.TestCase
