"""A worker's session and the broker's core, tied by two pipes that may be cut at any moment: the promises hold.

Both ends are what they are, but for the sockets and the clock: whole messages travel, and the loop of the broker reads
them. A cut loses what is on its way from some message on; the two ends learn of it when they do, the broker perhaps
after it has met the worker's next connection, and what a worker says meanwhile is lost, or comes by a connection that
ZeroMQ has opened by itself. Workers hang, die and leave. The model keeps only what the promises speak of.
"""

import json
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmqbroker.broker.dispatch import GRACE, HELD, Dispatcher
from zmqbroker.broker.loop import Loop
from zmqbroker.broker.report import Report
from zmqbroker.broker.task import RUNNING, Task
from zmqbroker.wire import EMPTY, FAIL, HEADER, REJECT, Announce, Frames, Header
from zmqbroker.wire.announced import (
    DONE,
    OUTCOMES,
    WITHDRAW,
    WITHDRAWN,
    Given,
    Welcome,
    Word,
    announce_message,
    parse_told,
    parse_word,
)
from zmqbroker.worker.session import LARGEST_KEPT, Session

WORKERS = 3
ANNOUNCE = Announce(serial=True, headers=True)
SLOTS = st.sampled_from([1, 2, 5, None])
SPANS = (0.001, HELD, GRACE, 0.5, 1.0, 61.0)  # seconds
REJECTED = b"rejected"  # a reason
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
)


@dataclass
class Pipe:
    """A connection of a worker, and what the broker has heard and said by it."""

    id: bytes
    up: deque[Frames] = field(default_factory=deque)  # to the broker
    down: deque[Frames] = field(default_factory=deque)  # to the worker
    is_cut: bool = False
    is_noticed: bool = False  # by the broker
    swallows: bool = False  # what is sent to it after the cut, before that is noticed
    credit: int = 0  # tasks that were asked for
    known: set[bytes] = field(default_factory=set)  # attempts that were given or named by it
    order: list[bytes] = field(default_factory=list)  # those without an outcome
    since: float = 0.0  # when the first of them came first
    stray: "Pipe | None" = None  # by which comes what the worker says after the cut

    def cut(self, up: int, down: int, swallows: bool) -> None:
        """Have the first so many messages of those on their way arrive, and no others."""
        self.is_cut, self.swallows = True, swallows
        self.up, self.down = deque([*self.up][:up]), deque([*self.down][:down])


class Process:
    """A worker's process: what it says is on its way up its pipe at once."""

    def __init__(self, slots: int | None) -> None:
        self.session = Session(slots)
        self.pipe: Pipe | None = None

    @property
    def can_begin(self) -> bool:
        return self.session.in_hand is None and self.session.has_tasks

    @property
    def can_finish(self) -> bool:
        return self.session.in_hand is not None

    @property
    def can_hear(self) -> bool:
        return self.pipe is not None and bool(self.pipe.down)

    @property
    def can_be_cut(self) -> bool:
        return self.pipe is not None and not self.pipe.is_cut

    @property
    def can_notice(self) -> bool:
        return self.pipe is not None and self.pipe.is_cut

    @property
    def can_connect(self) -> bool:
        return self.pipe is None

    @property
    def can_stop(self) -> bool:
        return not self.session.is_stopping

    @property
    def can_leave(self) -> bool:
        """As a worker does that hears that no task follows."""
        session = self.session
        return session.is_stopping and not (session.in_hand or session.asked or session.has_unsaid)

    def connect(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.say(announce_message(ANNOUNCE, "test", self.session.held()))

    def hear(self, number: int) -> None:
        """Take in so many messages."""
        assert self.pipe is not None
        for _ in range(min(number, len(self.pipe.down))):
            told = parse_told(self.pipe.down.popleft())
            if isinstance(told, Welcome):
                self.say(*self.session.welcome())
                continue
            assert self.session.is_welcome
            assert self.session.asked or not isinstance(told, Given), "a task that it has not asked for"
            self.say(*self.session.receive(told))

    def notice(self) -> None:
        """Notice that the connection is lost, when what came by it was read."""
        assert self.pipe is not None
        self.hear(len(self.pipe.down))
        if self.pipe.stray is not None:
            self.pipe.stray.is_cut = True
        self.session.disconnect()
        self.pipe = None

    def say(self, *messages: Frames | None) -> None:
        pipe = self.pipe
        if pipe is not None and pipe.is_cut:
            pipe = pipe.stray
        if pipe is not None:
            pipe.up.extend(message for message in messages if message is not None)


class BothEnds(Loop):
    """The broker's loop without its sockets, and what it does to the connections of workers and to clients."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._report = Report()
        self._now = 0.0
        self._requests: Any = None
        self._ready: Any = None
        self.pipes: dict[bytes, Pipe] = {}  # by their ids
        self.replies: Counter[bytes] = Counter()  # by client
        self.given: set[bytes] = set()  # attempts
        self.in_hand: set[bytes] = set()  # attempts that were begun, or had to be thought to be when a worker was lost
        self.said: set[bytes] = set()  # results that workers have said
        self.rejected: set[int] = set()  # tasks
        self.lost = 0  # connections by which somebody had something

    def hear(self, pipe: Pipe) -> None:
        """Read one message."""
        message = pipe.up.popleft()
        if not pipe.is_noticed:
            self._note_message(pipe, message)
        self._hear([pipe.id, *message])

    def turn_at(self, now: float) -> None:
        """Take the rest of a turn."""
        self._now = now
        self._dispatcher.expire(now)
        self.check_what_lies_behind()
        self._hand_out()
        if self._dispatcher.progressed:
            self._send_progress()
        for task in self._dispatcher.settled:
            self.check_settled(task)
        self._send_replies()
        self._tell_workers()

    def lose(self, pipe: Pipe) -> None:
        """Notice that a connection has dropped."""
        if not pipe.is_noticed:
            self._note_loss(pipe)
        self._dispatcher.lose_worker(pipe.id, self._now)

    def check_what_lies_behind(self) -> None:
        running = {task.attempt_id for task in self.unsettled() if task.status is RUNNING}
        for pipe in self.pipes.values():
            if not pipe.is_noticed and pipe.since + HELD <= self._now:
                assert not running & set(pipe.order[1:]), "it lies behind for too long"

    def check_charges(self, task: Task) -> None:
        assert not task.tries or task.attempts <= task.tries
        first = {pipe.order[0] for pipe in self.pipes.values() if pipe.order and not pipe.is_noticed}
        had = sum(number_of(attempt_id) == task.number for attempt_id in self.in_hand | first)
        assert task.attempts <= had, "charged for what nobody had in hand"

    def check_settled(self, task: Task) -> None:
        if not task.hand_outs:  # what was kept, or refused
            return
        self.check_charges(task)
        if task.status == "done":
            assert task.body[0] in self.said
        elif task.status == "failed":
            assert task.attempts == task.tries if task.reason != REJECTED.decode() else task.number in self.rejected

    def unsettled(self) -> list[Task]:
        """Return the tasks that were handed out."""
        return list(self._dispatcher._handed_out.values())

    # The model

    def _note_message(self, pipe: Pipe, message: Frames) -> None:
        if message[0] != EMPTY:
            named = [bytes(frame) for frame in message[2:]]
            pipe.known |= {*named}
            for other in self.pipes.values():
                if other is not pipe and {*named} & {*other.order} and not other.is_noticed:
                    self._note_loss(other)
            for other in self.pipes.values():
                self._set_order(other, [each for each in other.order if each not in named])
            self._set_order(pipe, named)
            return
        word = parse_word(message[1])
        assert word is not None
        if word.verb == WITHDRAW:
            pipe.credit = max(0, pipe.credit - word.asks)
            return
        pipe.credit += word.asks
        if word.verb in OUTCOMES:
            self._set_order(pipe, [each for each in pipe.order if each != word.attempt_id])

    def _note_loss(self, pipe: Pipe) -> None:
        pipe.is_noticed = True
        self.lost += bool(pipe.order)
        self.in_hand |= {*pipe.order[:1]}

    def _set_order(self, pipe: Pipe, order: list[bytes]) -> None:
        if order[:1] != pipe.order[:1]:
            pipe.since = self._now
        pipe.order = order

    # What the loop sends

    def send(self, message: Frames) -> bool:
        """Take a message to a worker or to a client; False when it is gone."""
        if message[0] not in self.pipes:
            status = "" if message[1] == EMPTY else json.loads(message[1][len(HEADER) :])["status"]
            self.replies[message[0]] += status != "progress"
            return True
        pipe, told = self.pipes[message[0]], parse_told(message[1:])
        if pipe.is_cut and (pipe.is_noticed or not pipe.swallows):
            if isinstance(told, Given) and not pipe.is_noticed:
                self._note_loss(pipe)
            return False
        if isinstance(told, Given):
            self._note_task(pipe, told.attempt_id)
        elif isinstance(told, Word) and told.verb != WITHDRAWN:
            assert told.attempt_id in pipe.known, "who does not have it was told to give it up"
        if not pipe.is_cut:
            pipe.down.append(message[1:])
        return True

    def _note_task(self, pipe: Pipe, attempt_id: bytes) -> None:
        assert attempt_id not in self.given, "an attempt id was used twice"
        self.given.add(attempt_id)
        pipe.known.add(attempt_id)
        pipe.credit -= 1
        assert pipe.credit >= 0, "more than it has asked for"
        self._set_order(pipe, [*pipe.order, attempt_id])


def number_of(attempt_id: bytes) -> int:
    """Return the number of the task, which its attempt id begins with where the run has no name."""
    return int.from_bytes(attempt_id[:8], "big")


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
        self.undoing.enter_context(patch("zmqbroker.broker.loop.send", lambda _, message: self.broker.send(message)))
        self.now = 0.0
        self.dispatcher = Dispatcher(tries=tries, timeout=timeout, retry_delay=retry_delay)
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

    @precondition(lambda self: self.dispatcher._by_key)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.submit(Header(key=data.draw(st.sampled_from(sorted(self.dispatcher._by_key))), cancel=True))

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
        entries = [(ticket, worker) for line in (workers._free, workers._ahead) for ticket, worker in line]
        live = [worker for ticket, worker in entries if worker.line is not None and worker.ticket == ticket]
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
        assert dispatcher.next_due() is None
        assert dispatcher.running == dispatcher.waiting == dispatcher.delayed == 0
        assert not dispatcher._handed_out
        assert not dispatcher._by_key
        assert not dispatcher._kept
        connected = {process.pipe.id for process in self.processes if process.pipe is not None}
        assert {*dispatcher._workers._workers} <= connected
        assert not any(worker.held for worker in dispatcher._workers._workers.values())


Promises.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestBothEnds = Promises.TestCase
