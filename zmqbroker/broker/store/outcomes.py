"""The outcomes that a store has: of which tasks, and until when.

Only that is in memory, for as many as there may be, and what is told of those that failed. The rest stays in the store.
"""

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from zmqbroker.broker.ledger import Ledger
from zmqbroker.broker.store.rows import State, StoredTask
from zmqbroker.broker.task import Name, name_of
from zmqbroker.wire import DEFAULT_QUEUE

MOST_FAILED = 100_000  # tasks without a result that are kept; the oldest make room
MOST_FAILED_BYTES = 1 << 30  # bytes of their bodies
MOST_EXPIRED = 1000  # outcomes that are forgotten in one turn: more would hold up others
STALE_KEPT = 1000  # fewer stale entries are not worth a rebuild


class Outcome(NamedTuple):
    """A task in the store that is settled."""

    until: float  # the instant until which it is kept
    number: int  # of its task
    name: Name  # what that is known by


class FailedTask(NamedTuple):
    """A task in the store that was settled without a result, and may be tried again."""

    number: int
    key: str
    queue: str
    state: State
    size: int  # bytes of its body
    until: float  # the instant until which it is kept
    owner: str | None = None  # whose it is; None: nobody's in particular

    @property
    def name(self) -> Name:
        """What it is known by."""
        return name_of(self.key, self.owner)

    @classmethod
    def of(cls, stored: StoredTask, offset: float) -> "FailedTask":
        """Return what is known of a task as it is stored; `offset`: seconds from the broker's clock to the wall's."""
        request, state, _, size = stored
        queue = request.queue or DEFAULT_QUEUE
        return cls(request.number, request.key, queue, state, size, (state.until or 0.0) - offset, request.owner)


class Outcomes:
    """Outcomes by name."""

    def __init__(self, most_failed: int = MOST_FAILED, most_bytes: int = MOST_FAILED_BYTES) -> None:
        """Start without any. The bounds are those of tasks without a result, in number and in bytes of bodies."""
        self.failed: Ledger[FailedTask] = Ledger(OrderedDict())  # the first to have failed comes first
        self.dropped = 0  # of those, for want of room
        self._failed_bytes = 0
        self._most_failed = most_failed
        self._most_bytes = most_bytes
        self._by_name: dict[Name, Outcome] = {}
        self._ends: list[Outcome] = []  # a heap; those that are in the dictionary no more are stale
        self.find = self._by_name.get  # returns the outcome of the task of a name; None: there is none

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, outcome: Outcome) -> None:
        """Take in one that has a result, or was cancelled."""
        self._by_name[outcome.name] = outcome
        heappush(self._ends, outcome)

    def add_failed(self, failed: FailedTask) -> None:
        """Take in one that has no result."""
        self.add(Outcome(failed.until, failed.number, failed.name))
        self.failed.insert(failed.number, failed)
        self._failed_bytes += failed.size

    def forget(self, name: Name) -> Outcome | None:
        """Forget an outcome and return it; None: there is none of this name."""
        outcome = self._by_name.pop(name, None)
        if outcome is None:
            return None
        failed = self.failed.get(outcome.number)
        if failed is not None:
            self.failed.remove(outcome.number)
            self._failed_bytes -= failed.size
        if len(self._ends) > 2 * len(self._by_name) + STALE_KEPT:
            self._ends = [entry for entry in self._ends if self._by_name.get(entry.name) is entry]
            heapify(self._ends)
        return outcome

    def expired(self, now: float) -> Iterator[Outcome]:
        """Forget what was kept for long enough, and yield it; so many at most."""
        for _ in range(MOST_EXPIRED):
            due = self.next_due()
            if due is None or due > now:
                break
            yield self._pop(self._ends[0].name)

    def crowded_out(self) -> Iterator[Outcome]:
        """Forget those without a result that there is no room for, and yield them."""
        while len(self.failed) > self._most_failed or self._failed_bytes > self._most_bytes:
            self.dropped += 1
            yield self._pop(next(iter(self.failed)).name)

    def next_due(self) -> float | None:
        """Return the instant at which the first has been kept for long enough; None: there are none."""
        ends = self._ends
        while ends and self._by_name.get(ends[0].name) is not ends[0]:
            heappop(ends)
        return ends[0].until if ends else None

    def _pop(self, name: Name) -> Outcome:
        outcome = self.forget(name)
        assert outcome is not None  # it was found there
        return outcome
