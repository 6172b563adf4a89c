"""The gate between what a turn decides about durable tasks and what it sends of that.

A turn gathers what it decides in a `Batch`, and nothing that follows from it is sent before the batch has finished.
`start` begins to store a batch, `finished` returns those that are stored, in the order in which they were started. A
store in a file is through when `start` returns; one across a network would be later, and make `fileno` readable then.
Nobody waits for a store: the loop serves others meanwhile, and the next batch gathers what they bring.

A batch holds no more than the last state of each task: one that is accepted and handed out in the same turn is stored
once, as handed out; one that is accepted and forgotten is not stored at all.
"""

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple, Protocol

from zmqbroker.broker.statistics import Times
from zmqbroker.broker.store.rows import LARGEST_BODY, DamagedTask, QueueSettings, Request, State, StoredTask
from zmqbroker.wire import FAILED, Frames

DAMAGED = "damaged in the store"  # the reason of an outcome that cannot be relied on


class StoreError(Exception):
    """A store that cannot be opened, or cannot go on: its text says why, in one line. It is never tried again."""


class Batch:
    """What one turn decided about durable tasks, and wants to know of them."""

    def __init__(self) -> None:
        self.new: dict[int, StoredTask] = {}  # by number, as all of these
        self.states: dict[int, State] = {}  # of tasks whose body stays
        self.results: dict[int, tuple[State, Frames]] = {}  # of tasks whose result replaces their body
        self.renewed: dict[int, Request] = {}  # of tasks that begin anew
        self.forgotten: set[int] = set()
        self.wanted: dict[
            int, int
        ] = {}  # tasks to be read, as they are after this batch: bytes of their bodies, at most
        self.queues: dict[str, QueueSettings | None] = {}  # by name; None: nothing is set any more
        self.size = 0  # bytes of bodies, at most

    def __bool__(self) -> bool:
        return self.changes_anything or bool(self.wanted)

    @property
    def changes_anything(self) -> bool:
        """Tell whether there is something to be stored."""
        return bool(self.new or self.states or self.results or self.renewed or self.forgotten or self.queues)

    def add(self, task: StoredTask) -> None:
        """Store a new task; its number is higher than that of any other one in the store."""
        self.new[task.request.number] = task
        self.size += task.size

    def change(self, number: int, state: State, result: Frames | None = None) -> None:
        """Store how far a task has come; its result replaces its body, None: the body stays."""
        if result is not None:
            self.size += sum(map(len, result))
        if (task := self.new.get(number)) is not None:
            if result is None:
                self.new[number] = StoredTask(task.request, state, task.body, task.size)
            else:
                self.new[number] = StoredTask(task.request, state, result, sum(map(len, result)))
        elif result is not None:
            self.states.pop(number, None)
            self.results[number] = state, result
        elif number in self.results:
            self.results[number] = state, self.results[number][1]
        else:
            self.states[number] = state

    def renew(self, request: Request) -> None:
        """Store another request in the place of that of a task with the same number and key."""
        self.renewed[request.number] = request

    def forget(self, number: int) -> None:
        """Drop a task from the store."""
        self.renewed.pop(number, None)
        self.states.pop(number, None)
        self.results.pop(number, None)
        if self.new.pop(number, None) is None:
            self.forgotten.add(number)

    def want(self, number: int, most: int = LARGEST_BODY) -> None:
        """Have a task read, with its body unless that has more bytes than `most` and the task is settled."""
        self.wanted[number] = max(most, self.wanted.get(number, 0))

    def set_queue(self, name: str, settings: QueueSettings | None) -> None:
        """Store what is set of a queue; None: nothing is any more."""
        self.queues[name] = settings

    def without_results(self, numbers: set[int]) -> "Batch":
        """Return this batch, but these results do not fit: their tasks have failed."""
        smaller = copy(self)
        smaller.results = {number: result for number, result in self.results.items() if number not in numbers}
        smaller.states = self.states | {number: _unfit(*self.results[number]) for number in numbers}
        return smaller

    def without_new(self) -> "Batch":
        """Return this batch without its new tasks."""
        smaller = copy(self)
        smaller.new = {}
        return smaller


def unfit(results: dict[int, tuple[State, Frames]], room: float) -> set[int]:
    """Return which results do not fit into so many bytes: the largest are left out first."""
    sizes = sorted((sum(map(len, body)), number) for number, (_, body) in results.items())
    left = set()
    for size, number in sizes:
        room -= size
        if room < 0:
            left.add(number)
    return left


class Finished(NamedTuple):
    """A batch that is stored, and what came of it."""

    batch: Batch
    # New tasks that are not stored after all: the disk is full. What batches that were started since say of these is
    # passed over.
    refused: frozenset[int] = frozenset()
    unfit: dict[int, State] = {}  # noqa: RUF012 (nobody changes it) tasks whose result does not fit, as they are stored
    found: dict[int, StoredTask | DamagedTask | None] = {}  # noqa: RUF012 what was wanted; None: it is not there


class Store(Protocol):
    """Where durable tasks are. Whatever is called may raise StoreError."""

    path: str  # where it is, for people
    run: bytes  # starts the id of each attempt, as it did in earlier lives of the broker
    has_ended_well: bool  # the broker's life before this one: what ran then was not in hand when it ended
    highest: int  # number of a task that there was when it was opened; 0: there was none
    free: int  # bytes that were free there at the last `look`
    size: int  # bytes that it took up then
    commits: Times  # how long it took to store a batch

    @property
    def floor(self) -> int:
        """How many bytes are to be free on its disk, for new tasks to be taken in."""

    @property
    def is_low(self) -> bool:
        """Tell whether less is free than is to be: then no new task is taken in."""

    def queues(self) -> list[QueueSettings]:
        """Return what was set of queues."""

    def load(self) -> Iterator[list[StoredTask | DamagedTask]]:
        """Yield all tasks that there were when it was opened, by number, some at a time."""

    def start(self, batch: Batch) -> None:
        """Begin to store a batch, that nobody changes from now on."""

    def fileno(self) -> int | None:
        """Return what is readable once batches have finished; None: they have when `start` returns."""

    def finished(self) -> list[Finished]:
        """Return the batches that have finished since this was called last, in the order of their start."""

    def look(self) -> None:
        """See how much is free and taken up; to be called about once a second."""

    def tidy(self) -> bool:
        """Give back some of what is unused, for a few milliseconds; tell whether there is more. For idle times."""

    def close(self) -> None:
        """End well: nothing is in hand that the broker did not mean to leave there."""


def _unfit(state: State, result: Frames) -> State:
    reason = f"the result ({sum(map(len, result))} bytes) does not fit on the store's disk"
    return state._replace(status=FAILED, reason=reason)
