"""For `test_both_ends.py`: pipes instead of connections, the broker without its sockets, and a worker's process.

They keep as a model what the promises speak of: who asked for what, who has what, and what was replied.
"""

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from zmqbroker.broker.dispatch import HELD, Dispatcher
from zmqbroker.broker.receiving import Receiver
from zmqbroker.broker.report import Report
from zmqbroker.broker.sending import Sender
from zmqbroker.broker.task import RUNNING, Task
from zmqbroker.wire import EMPTY, HEADER, Announce, Frames
from zmqbroker.wire.announced import (
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
from zmqbroker.worker.session import Session

ANNOUNCE = Announce(serial=True, headers=True)
REJECTED = b"rejected"  # a reason


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
        return self.session.in_hand is None and bool(self.session.tasks)

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


class BothEnds(Receiver, Sender):
    """What the broker reads and sends, without its sockets, and what becomes of workers and clients by it."""

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
        self._take_in([pipe.id, *message])

    def turn_at(self, now: float) -> None:
        """Take the rest of a turn."""
        self._now = now
        self._note_deadlines()
        self._dispatcher.expire(now)
        self.check_what_lies_behind()
        self.hand_out(now)
        if self._dispatcher.progressed:
            self.send_progress()
        for task in self._dispatcher.settled:
            self.check_settled(task)
        self.send_replies(now)
        self.tell_workers()

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
        return list(self._dispatcher.ledger)

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

    def _note_deadlines(self) -> None:
        """Note what is given up now: its worker had it, as far as the broker can tell, though it may not have begun."""
        first = {pipe.order[0] for pipe in self.pipes.values() if pipe.order}
        overdue = {task.attempt_id for task in self.unsettled() if task.due is not None and task.due <= self._now}
        self.in_hand |= overdue & first

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
