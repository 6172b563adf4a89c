"""What a dispatcher has stored of its durable tasks, turn by turn, and what it knows of the store.

Here is gathered what a turn decides, and what follows from that and is not to be seen by anybody before it is stored:
tasks that go to workers, and replies. Nothing here knows a store or a clock; instants are those of the dispatcher, and
`offset` tells what they are on the wall.
"""

from collections.abc import Callable
from typing import NamedTuple

from zmqbroker.broker.store.gate import Batch
from zmqbroker.broker.store.outcomes import MOST_EXPIRED, FailedTask, Outcome, Outcomes
from zmqbroker.broker.store.rows import (
    LARGEST_BODY,
    DamagedTask,
    QueueSettings,
    Request,
    State,
    StoredTask,
)
from zmqbroker.broker.task import DELAYED, NOBODY, RUNNING, WAITING, Name, Task, Worker
from zmqbroker.wire import DONE, EXPIRED, FAILED, Frames, Header

DEFAULT_KEEP = 86_400.0  # seconds: a day
DEFAULT_KEEP_FAILED = 604_800.0  # a week
KEEP_ATTACHED = 60.0  # for whom the reply did not reach
EXPIRY_INTERVAL = 1.0  # seconds between two looks at what was kept for long enough
NO_STORE = "this broker stores no tasks: it was started without --store"
STORE_FAILED = "the broker's store has failed"
UNSTORED = "the store's disk is full"  # why a task was not stored after all

Found = StoredTask | DamagedTask | None  # None: it is not there any more


class HandOut(NamedTuple):
    """A task that goes to a worker once this turn is stored: a durable one, or one that comes after such."""

    envelope: Frames  # the worker's
    task: Task
    worker: Worker
    attempt_id: bytes


class Turn:
    """What one turn decided about durable tasks, and what follows from it."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.hand_outs: list[HandOut] = []
        self.replies: list[Task] = []
        self.wanted: dict[int, list[Callable[[Found], None]]] = {}  # whom to tell what is stored of a task, by number
        self.then: list[Callable[[], None]] = []  # whom to tell that it is stored

    def __bool__(self) -> bool:
        return bool(self.batch or self.hand_outs or self.replies or self.then)


class Journal:
    """What is stored of each durable task, and what is yet to be."""

    def __init__(
        self,
        run: bytes = b"",
        highest: int = 0,
        keep: float = DEFAULT_KEEP,
        keep_failed: float = DEFAULT_KEEP_FAILED,
    ) -> None:
        """Begin with a store whose attempt ids start with `run`, and whose last task has the number `highest`.

        An outcome is kept for `keep` seconds, where its client does not say; one without a result for `keep_failed`, if
        that is more.
        """
        self.run = run
        self.highest = highest
        self.offset = 0.0  # seconds from the dispatcher's clock to the wall's
        self.has_failed = False  # the store, for good
        self.is_whole = True  # all that is stored is known here
        self.is_low = False  # the disk has no room for new tasks
        self.outcomes = Outcomes()
        self.damaged: dict[Name, int] = {}  # the numbers of tasks that cannot be relied on
        self._keep = keep
        self._keep_failed = keep_failed
        self._turn = Turn()
        self._changed: dict[Task, None] = {}  # tasks that have moved in this turn
        self._next_expiry = 0.0

    @property
    def has_news(self) -> bool:
        """Tell whether this turn has something for the store."""
        return bool(self._changed or self._turn)

    def take(self) -> Turn:
        """Return what the turn has for the store, and begin the next one."""
        turn, self._turn = self._turn, Turn()
        for task in self._changed:
            turn.batch.change(task.number, self._state(task))
        self._changed.clear()
        return turn

    # What happens to tasks

    def add(self, request: Request, task: Task) -> None:
        """Store a new task, as it is at the end of this turn."""
        self._turn.batch.add(StoredTask(request, State(), task.body, task.size))
        self.note(task)

    def note(self, task: Task) -> None:
        """Store how far a task has come by the end of this turn."""
        self._changed[task] = None

    def hold(self, hand_out: HandOut) -> None:
        """Have a task go to a worker once this turn is stored."""
        self._turn.hand_outs.append(hand_out)

    def answer(self, answer: Task) -> None:
        """Have a reply sent once this turn is stored."""
        self._turn.replies.append(answer)

    def settle(self, task: Task, now: float) -> None:
        """Store the outcome of a task, with its result if it has one, and have it sent then."""
        self._changed.pop(task, None)
        until = now + self.kept_for(task)
        attempts, last, kept = task.attempts, _name_of(task.worker), until + self.offset
        state = State(task.status, None, task.hand_outs, attempts, task.deaths, task.reason, last, kept)
        self._turn.batch.change(task.number, state, task.body if task.status is DONE else None)
        if task.status in (FAILED, EXPIRED):
            self._add_failed(_failed(task, state, until))
        else:
            self.outcomes.add(Outcome(until, task.number, task.name or ""))
        self.answer(task)

    def leave(self, task: Task) -> None:
        """Leave a task in the store as it is there: the broker ends, and knows of it no more."""
        self._changed.pop(task, None)
        self.is_whole = False

    def kept_for(self, task: Task) -> float:
        """Return for how many seconds the outcome of a settled task is kept."""
        keep = self._keep if task.keep is None else task.keep
        return max(keep, self._keep_failed) if task.status in (FAILED, EXPIRED) else keep

    def recall(self, task: Task) -> None:
        """Note that a task is not in the store, or its outcome is not."""
        name = task.name or ""
        if task.number and self._number_of(name) == task.number:
            self.outcomes.forget(name)

    def spoil(self, task: Task, state: State) -> None:
        """Note that a task has failed after all: its result does not fit on the disk."""
        name = task.name or ""
        if self._number_of(name) != task.number:
            return  # it was forgotten meanwhile
        self.outcomes.forget(name)
        self._add_failed(_failed(task, state, (state.until or 0.0) - self.offset))

    def _add_failed(self, failed: FailedTask) -> None:
        self.outcomes.add_failed(failed)
        for outcome in self.outcomes.crowded_out():
            self._turn.batch.forget(outcome.number)

    # What becomes of outcomes

    def has_settled(self, name: Name) -> bool:
        """Tell whether there is an outcome for a name, or a task that cannot be relied on any more."""
        return self.outcomes.find(name) is not None or name in self.damaged

    def number_of(self, name: Name) -> int:
        """Return the number of the task of which there is an outcome for a name, or that cannot be relied on."""
        outcome = self.outcomes.find(name)
        return self.damaged[name] if outcome is None else outcome.number

    def want(self, number: int, then: Callable[[Found], None], most: int = LARGEST_BODY) -> None:
        """Have somebody told what is stored of a task, as it is after this turn; None where the store has failed.

        The body of a settled task may be left out where it has more bytes than `most`.
        """
        self._turn.batch.want(number, most)
        self._turn.wanted.setdefault(number, []).append(then)

    def after(self, then: Callable[[], None]) -> None:
        """Have somebody told when this turn is stored, or the store has failed."""
        self._turn.then.append(then)

    def renew(self, request: Request) -> None:
        """Have a task that is settled begin anew, as it is at the end of this turn."""
        self.outcomes.forget(request.name)
        self._turn.batch.renew(request)

    def forget(self, name: Name, number: int) -> None:
        """Drop the outcome of a task, or a damaged one, from the store, unless that was done before."""
        if self._number_of(name) == number:
            self.outcomes.forget(name)
        elif self.damaged.get(name) == number:
            del self.damaged[name]
        else:
            return
        self._turn.batch.forget(number)

    def _number_of(self, name: Name) -> int | None:
        outcome = self.outcomes.find(name)
        return None if outcome is None else outcome.number

    def forget_number(self, number: int, name: Name | None) -> None:
        """Drop a settled task from the store, and what is known of it by its name, if that is really its own."""
        if name is not None and self.has_settled(name) and self.number_of(name) == number:
            self.forget(name, number)
        else:
            self._turn.batch.forget(number)

    def expire(self, now: float) -> None:
        """Drop outcomes that were kept for long enough, from time to time."""
        if now < self._next_expiry:
            return
        forgotten = 0
        for outcome in self.outcomes.expired(now):
            self._turn.batch.forget(outcome.number)
            forgotten += 1
        self._next_expiry = now if forgotten == MOST_EXPIRED else now + EXPIRY_INTERVAL

    def next_due(self) -> float | None:
        """Return the instant at which `expire` has something to do again; None: there are no outcomes."""
        due = self.outcomes.next_due()
        return None if due is None else max(due, self._next_expiry)

    def set_queue(self, settings: QueueSettings) -> None:
        """Store what is set of a queue."""
        is_set = settings != QueueSettings(settings.name)
        self._turn.batch.set_queue(settings.name, settings if is_set else None)

    # What the store has from before

    def restore(self, stored: StoredTask) -> None:
        """Take in an outcome that the store has."""
        request, state, _, _ = stored
        if state.status in (FAILED, EXPIRED):
            self._add_failed(FailedTask.of(stored, self.offset))
        else:
            self.outcomes.add(Outcome((state.until or 0.0) - self.offset, request.number, request.name))

    def _state(self, task: Task) -> State:
        """Return how far a task has come: what a worker has counts as an attempt, also if it lies behind another."""
        is_running = task.status is RUNNING
        return State(
            RUNNING if is_running else WAITING,
            task.due + self.offset if task.status is DELAYED and task.due is not None else None,
            task.hand_outs,
            task.attempt if is_running else task.attempts,
            task.deaths,
            task.reason,
            _name_of(task.worker),
        )


def _name_of(worker: Worker) -> str:
    return "" if worker is NOBODY else worker.name


def _failed(task: Task, state: State, until: float) -> FailedTask:
    return FailedTask(task.number, task.key or "", task.queue.name, state, task.size, until, task.owner)


def request_of(task: Task, header: Header, offset: float) -> Request:
    """Return what is stored of what a client asked for, as the task begins."""
    return Request(
        task.number,
        task.token,
        header.key or "",
        header.queue,
        task.accepted + offset,
        task.owner,
        header.group,
        header.priority,
        header.tries,
        header.timeout,
        header.retry_delay,
        header.retry_factor,
        header.retry_most,
        None if header.expires is None else task.accepted + header.expires + offset,
        header.keep if header.keep is not None or header.detach else KEEP_ATTACHED,
    )


def header_of(request: Request) -> Header:
    """Return what its client asked of a task that is stored; all but its queue, which the task has."""
    return Header(
        key=request.key,
        timeout=request.timeout,
        tries=request.tries,
        priority=request.priority,
        group=request.group,
        expires=None if request.expires is None else request.expires - request.accepted,
        retry_delay=request.retry_delay,
        retry_factor=request.retry_factor,
        retry_most=request.retry_most,
        keep=request.keep,
    )
