"""A worker's session and the broker's core, tied by two pipes that may be cut at any moment: the promises hold.

Both ends are what they are, but for the sockets and the clock: whole messages travel, and the loop of the broker reads
them. A cut loses what is on its way from some message on; the two ends learn of it when they do, the broker perhaps
after it has met the worker's next connection, and what a worker says meanwhile is lost, or comes by a connection that
ZeroMQ has opened by itself. Workers hang, die and leave.
"""

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
from both_ends_support import REJECTED, BothEnds, Pipe, Process, number_of
from core_support import NOT_STORED, due
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmqbroker.broker.dispatch import GRACE, HELD, Dispatcher
from zmqbroker.broker.task import RUNNING, BackOff
from zmqbroker.wire import FAIL, REJECT, Header
from zmqbroker.wire.announced import DONE
from zmqbroker.worker.session import LARGEST_KEPT

pytestmark = pytest.mark.once


WORKERS = 3
SLOTS = st.sampled_from([1, 2, 5, None])
SPANS = (0.001, HELD, GRACE, 0.5, 1.0, 61.0)  # seconds
WHICH = st.integers(0, 5)
LEFT = st.sampled_from([0, 0, 1, 2, 5, 1000])  # messages that still arrive
MOST_TURNS = 300  # in which workers that behave have settled all there is
HEADERS = st.builds(
    Header,
    key=st.sampled_from([None, "k", "l"]),
    timeout=st.sampled_from([None, 0, 0.7]),
    tries=st.sampled_from([None, 0, 1, 2]),
    delay=st.sampled_from([0, 0, 1.5]),
    priority=st.integers(-1, 1),
    cancel=st.just(False),
    id=st.none(),
    progress=st.booleans(),
    queue=st.sampled_from([None, "default"]),
    group=st.sampled_from([None, "a", "b"]),
    expires=st.sampled_from([None, None, 2.0, 5.0]),
    retry_delay=st.sampled_from([None, 0.0, 1.0]),
    retry_factor=st.sampled_from([None, 2.0]),
    retry_most=st.sampled_from([None, 0.0, 1.5]),
    **NOT_STORED,
)


def some(can: str) -> Any:
    """Have a rule apply while there is a process that can do so; `pick` says which."""
    return precondition(lambda self: any(getattr(process, can) for process in self.processes))


class Promises(RuleBasedStateMachine):
    """Everything that can happen between them, in any order."""

    @initialize(
        tries=st.integers(0, 3),
        timeout=st.sampled_from([None, 1.0, 2.5]),
        retry_delay=st.sampled_from([0.0, 2.0]),
        slots=st.tuples(*[SLOTS] * WORKERS),
    )
    def start(self, tries: int, timeout: float | None, retry_delay: float, slots: tuple[int | None, ...]) -> None:
        self.undoing = ExitStack()
        for module in ("receiving", "sending"):
            send = patch(f"zmqbroker.broker.{module}.send", lambda _, message: self.broker.send(message))
            self.undoing.enter_context(send)
        self.now = 0.0
        self.dispatcher = Dispatcher(tries=tries, timeout=timeout, back_off=BackOff(retry_delay))
        self.broker = BothEnds(self.dispatcher)
        self.clients = 0
        self.processes = [Process(each) for each in slots]
        self.is_held_up = False  # what is said: else it is heard at once, and tasks are begun
        self.flow()

    def pick(self, can: str, which: int) -> Process:
        able = [process for process in self.processes if getattr(process, can)]
        return able[which % len(able)]

    # What clients do

    @rule(header=st.one_of(st.none(), HEADERS))
    def submit(self, header: Header | None) -> None:
        self.clients += 1
        self.dispatcher.submit([b"client %d" % self.clients], [b"task"], self.now, header)
        self.turn(0.0)

    @rule(number=st.integers(2, 8))
    def submit_many(self, number: int) -> None:
        for _ in range(number):
            self.submit(None)

    @precondition(lambda self: self.dispatcher._by_name)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.submit(Header(key=data.draw(st.sampled_from(sorted(self.dispatcher._by_name))), cancel=True))

    # What the broker does

    @precondition(lambda self: any(pipe.up for pipe in self.broker.pipes.values()))
    @rule(which=WHICH, number=st.integers(1, 9))
    def broker_hears(self, which: int, number: int) -> None:
        pipes = [pipe for pipe in self.broker.pipes.values() if pipe.up]
        pipe = pipes[which % len(pipes)]
        for _ in range(min(number, len(pipe.up))):
            self.broker.hear(pipe)

    @rule(span=st.sampled_from([0.0, 0.0, *SPANS]))
    def turn(self, span: float) -> None:
        self.now += span
        self.broker.turn_at(self.now)
        self.flow()

    @precondition(lambda self: any(pipe.is_cut and not pipe.is_noticed for pipe in self.broker.pipes.values()))
    @rule(which=WHICH)
    def broker_notices(self, which: int) -> None:
        pipes = [pipe for pipe in self.broker.pipes.values() if pipe.is_cut and not pipe.is_noticed]
        self.broker.lose(pipes[which % len(pipes)])
        self.flow()

    # What happens by itself

    @rule(is_held_up=st.booleans())
    def hold_up(self, is_held_up: bool) -> None:
        self.is_held_up = is_held_up
        self.flow()

    def flow(self) -> None:
        """Have whoever is not cut off hear all that was said, unless that is held up, and begin what it has."""
        if self.is_held_up:
            return
        for process in self.processes:
            if process.can_connect:
                process.connect(self.new_pipe())
        while any(process.can_be_cut and (process.pipe.up or process.pipe.down) for process in self.processes):
            for pipe in self.broker.pipes.values():
                while pipe.up and not pipe.is_cut:
                    self.broker.hear(pipe)
            self.broker.turn_at(self.now)
            for process in self.processes:
                if process.can_be_cut:
                    process.hear(1000)
        for process in self.processes:
            if process.can_begin:
                self.begin_at(process)

    # What happens to connections

    @some("can_connect")
    @rule(which=WHICH)
    def connect(self, which: int) -> None:
        self.pick("can_connect", which).connect(self.new_pipe())

    @some("can_be_cut")
    @rule(which=WHICH, up=LEFT, down=LEFT, swallows=st.booleans(), is_stray=st.booleans())
    def cut(self, which: int, up: int, down: int, swallows: bool, is_stray: bool) -> None:
        """Have no more than the first messages of those on their way arrive."""
        pipe = self.pick("can_be_cut", which).pipe
        assert pipe is not None
        pipe.cut(up, down, swallows)
        pipe.stray = self.new_pipe() if is_stray else None

    @some("can_be_cut")
    @rule(which=WHICH, up=LEFT, down=LEFT, span=st.sampled_from([None, 0.0, GRACE, 3.0]))
    def interrupt(self, which: int, up: int, down: int, span: float | None) -> None:
        """Cut a connection that its worker opens again, so many seconds after the broker has noticed; None: before."""
        process = self.pick("can_be_cut", which)
        pipe = process.pipe
        assert pipe is not None
        pipe.cut(up, down, swallows=False)
        if span is not None:
            self.broker.lose(pipe)
            self.turn(span)
        process.notice()
        self.flow()

    @some("can_notice")
    @rule(which=WHICH)
    def worker_notices(self, which: int) -> None:
        self.pick("can_notice", which).notice()
        self.flow()

    # What workers do

    @some("can_hear")
    @rule(which=WHICH, number=st.sampled_from([1, 2, 1000]))
    def worker_hears(self, which: int, number: int) -> None:
        self.pick("can_hear", which).hear(number)

    @some("can_begin")
    @rule(which=WHICH)
    def begin(self, which: int) -> None:
        self.begin_at(self.pick("can_begin", which))

    @some("can_finish")
    @rule(which=WHICH, manner=st.sampled_from(["done", "done", "done", "large", "fail", "reject"]))
    def finish(self, which: int, manner: str) -> None:
        self.do(self.pick("can_finish", which), manner)
        self.flow()

    @some("can_finish")
    @rule(which=WHICH, number=st.integers(1, 20))
    def do_several(self, which: int, number: int) -> None:
        process = self.pick("can_finish", which)
        self.do(process, "done")
        self.do_all(process, number)
        self.flow()

    @some("can_finish")
    @rule(which=WHICH, seconds=st.sampled_from([b"", b"0.5", b"10"]))
    def touch(self, which: int, seconds: bytes) -> None:
        process = self.pick("can_finish", which)
        process.say(process.session.touch(seconds))
        self.flow()

    @some("can_stop")
    @rule(which=WHICH, often=st.integers(0, 3))
    def stop(self, which: int, often: int) -> None:
        process = self.pick("can_stop", which)
        if not often:
            process.say(*process.session.stop())
            self.flow()

    @some("can_leave")
    @rule(which=WHICH, slots=SLOTS)
    def leave(self, which: int, slots: int | None) -> None:
        """End it; what it said arrives."""
        self.replace(self.pick("can_leave", which), 1000, slots)

    @rule(which=WHICH, slots=SLOTS, up=LEFT)
    def kill(self, which: int, slots: int | None, up: int) -> None:
        self.replace(self.processes[which % WORKERS], up, slots)

    # How that is done

    def new_pipe(self) -> Pipe:
        number = len(self.broker.pipes) + 1
        return self.broker.pipes.setdefault(b"worker %d" % number, Pipe(b"worker %d" % number))

    def replace(self, process: Process, up: int, slots: int | None) -> None:
        if process.pipe is not None and not process.pipe.is_cut:
            process.pipe.cut(up, 0, swallows=True)
        self.processes[self.processes.index(process)] = Process(slots)
        self.flow()

    def begin_at(self, process: Process) -> None:
        self.broker.in_hand.add(process.session.begin(self.now).attempt_id)

    def do(self, process: Process, manner: str) -> None:
        """Finish the task in hand."""
        given = process.session.in_hand
        assert given is not None
        result = b"result of " + given.attempt_id + (bytes(LARGEST_KEPT) if manner == "large" else b"")
        if manner == "reject":
            self.broker.rejected.add(number_of(given.attempt_id))
            verb, argument = REJECT, REJECTED
        elif manner == "fail":
            verb, argument = FAIL, b"failed"
        else:
            self.broker.said.add(result)
            verb, argument = DONE, result
        process.say(process.session.finish(verb, [argument], self.now))

    def do_all(self, process: Process, most: int) -> None:
        while most and process.can_begin:
            self.begin_at(process)
            self.do(process, "done")
            most -= 1

    # What must hold, always

    @invariant()
    def nobody_gets_two_replies(self) -> None:
        if hasattr(self, "broker"):
            assert all(number == 1 for number in self.broker.replies.values())

    @invariant()
    def attempts_are_charged_only_for_what_was_in_hand(self) -> None:
        for task in self.broker.unsettled():
            self.broker.check_charges(task)

    @invariant()
    def nothing_is_lost_but_by_a_lost_connection(self) -> None:
        assert self.dispatcher.counters.lost <= self.broker.lost

    @invariant()
    def nothing_runs_for_ever(self) -> None:
        """What runs lies behind something, or has a deadline where one is wanted, or its worker is there."""
        pipes = [pipe for pipe in self.broker.pipes.values() if not pipe.is_noticed]
        behind = {attempt_id for pipe in pipes for attempt_id in pipe.order[1:]}
        there = {attempt_id for pipe in pipes for attempt_id in pipe.order}
        for task in self.broker.unsettled():
            if task.status is RUNNING and task.due is None:
                assert task.attempt_id in behind or (task.timeout is None and task.attempt_id in there)

    @invariant()
    def nobody_stands_in_line_twice(self) -> None:
        workers = self.dispatcher._workers
        lines = [line for pool in workers._pools.values() for line in (pool.free, pool.ahead)]
        entries = [(line, *entry) for line in lines for entry in (*line._entries, *line._doubted)]
        live = [worker for line, ticket, worker in entries if worker.line is line and worker.ticket == ticket]
        assert len(live) == len({*live}) == workers.idle
        assert all(worker.slots for worker in live)

    @invariant()
    def both_ends_agree_when_nothing_is_on_its_way(self) -> None:
        for process in self.processes:
            pipe, session = process.pipe, process.session
            if pipe is None or pipe.is_cut or pipe.up or pipe.down or self.dispatcher.told:
                continue
            worker = self.dispatcher._workers.announced(pipe.id)
            assert worker is not None
            assert session.is_welcome
            assert len(worker.slots) == session.asked == pipe.credit
            assert list(worker.held) == session.held()
            assert session.asked or session.held() or session.is_stopping, "a worker that asks for nothing"

    # The end

    def teardown(self) -> None:
        """When all behave, all is settled; when all have left, nothing is left of them."""
        if not hasattr(self, "broker"):
            return
        with self.undoing:
            self.is_held_up = False
            for _ in range(MOST_TURNS):
                self.behave()
                if not self.dispatcher.unsettled:
                    break
            assert not self.dispatcher.unsettled
            assert self.broker.replies == {b"client %d" % (number + 1): 1 for number in range(self.clients)}
            for process in self.processes:
                process.say(*process.session.stop())
            self.behave()
            self.behave()
            self.check_memory()

    def behave(self) -> None:
        """Have all connections work, tasks done and time pass."""
        for process in self.processes:
            if process.can_notice:
                process.notice()
            if process.can_finish:
                self.do(process, "done")
            self.do_all(process, 1000)
        for process in list(self.processes):
            if process.can_leave:
                self.replace(process, 1000, 1)
        for pipe in self.broker.pipes.values():
            while pipe.up:
                self.broker.hear(pipe)
            if pipe.is_cut:
                self.broker.lose(pipe)
        self.turn(0.2)

    def check_memory(self) -> None:
        dispatcher = self.dispatcher
        self.turn(100.0)
        assert due(dispatcher) is None
        assert dispatcher.running == dispatcher.waiting == dispatcher.delayed == 0
        assert not len(dispatcher.ledger)
        assert not dispatcher._by_name
        assert not dispatcher._kept
        connected = {process.pipe.id for process in self.processes if process.pipe is not None}
        assert {*dispatcher._workers._workers} <= connected
        assert not any(worker.held for worker in dispatcher._workers._workers.values())


Promises.TestCase.settings = settings(max_examples=45, stateful_step_count=50, deadline=None)
TestBothEnds = Promises.TestCase
