"""Two queues of the dispatcher: tasks that wait, and instants that come. The lines of workers are in `workers`.

What leaves a queue out of turn stays in it as a stale entry, to be passed over later: so each step costs the same
however much is queued. A queue whose stale entries outnumber the live ones is rebuilt without them: so its memory
is proportional to what is live.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar

from zmqbroker.broker.task import WAITING, Task

STALE_KEPT = 1000  # fewer stale entries are not worth a rebuild
EMPTY_KEPT = 100  # fewer empty lines are not either


class WaitingTasks:
    """Tasks that wait for a worker: a line for each rank that occurs, the lowest rank first.

    An entry is live while its task's status is WAITING; a task that waits again may have older ones, counted as stale.
    """

    def __init__(self) -> None:
        self.live = 0
        self._entries = 0
        self._lines: dict[int, deque[Task]] = {}  # by rank
        self._ranks: list[int] = []  # a heap of the ranks that have a line
        self._most_lines = EMPTY_KEPT  # with more, it is time to look for empty ones

    def __iter__(self) -> Iterator[Task]:
        return (task for line in self._lines.values() for task in line if task.status is WAITING)

    def append(self, task: Task) -> None:
        """Put a task at the end of its line."""
        self._line(task.rank).append(task)
        self._entries += 1
        self.live += 1

    def append_first(self, task: Task) -> None:
        """Put a task at the front of its line."""
        self._line(task.rank).appendleft(task)
        self._entries += 1
        self.live += 1

    def pop(self) -> Task:
        """Take the first task; there must be one."""
        while True:
            line = self._lines[self._ranks[0]]
            if not line:
                del self._lines[heappop(self._ranks)]
                continue
            task = line.popleft()
            self._entries -= 1
            if task.stale:
                task.stale -= 1
            elif task.status is WAITING:
                self.live -= 1
                return task

    def withdraw(self, task: Task) -> None:
        """Count one entry less as live: its task is settled, or runs without having been taken from here."""
        self.live -= 1
        task.stale += 1
        if self._entries > 2 * self.live + STALE_KEPT:
            for rank, line in self._lines.items():
                self._lines[rank] = deque(task for task in line if _is_live(task))
            self._entries = self.live
            self._drop_empty_lines()

    def _line(self, rank: int) -> deque[Task]:
        line = self._lines.get(rank)
        if line is None:
            if len(self._lines) >= self._most_lines:
                self._drop_empty_lines()
            line = self._lines[rank] = deque()
            heappush(self._ranks, rank)
        return line

    def _drop_empty_lines(self) -> None:
        self._lines = {rank: line for rank, line in self._lines.items() if line}
        self._ranks = sorted(self._lines)
        self._most_lines = 2 * len(self._lines) + EMPTY_KEPT


def _is_live(task: Task) -> bool:
    """Tell whether an entry that stays is live; one that does not is forgotten."""
    if task.stale:
        task.stale -= 1
        return False
    return task.status is WAITING


class HasInstant(Protocol):
    """What may have an instant at which something happens to it."""

    due: float | None
    timer: int


Timed = TypeVar("Timed", bound=HasInstant)


class Timers(Generic[Timed]):
    """The instant, for each task (or worker) that has one, at which something happens to it by itself.

    An entry of the heap is live while its number is its task's `timer`.
    """

    def __init__(self) -> None:
        self._live = 0
        self._heap: list[tuple[float, int, Timed]] = []
        self._next_number = count(1).__next__

    def __iter__(self) -> Iterator[Timed]:
        return (task for _, number, task in self._heap if task.timer == number)

    def set(self, task: Timed, due: float) -> None:
        """Make `due` the task's one instant."""
        if task.due is None:
            self._live += 1
        task.due = due
        number = task.timer = self._next_number()
        heappush(self._heap, (due, number, task))

    def clear(self, task: Timed) -> None:
        """Forget the task's instant, if it has one."""
        if task.due is not None:
            self._live -= 1
            task.due = None
            task.timer = 0

    def next_due(self) -> float | None:
        """Return the first instant; None when there is none. Every turn asks, so here stale entries are dropped."""
        heap = self._heap
        if len(heap) > 2 * self._live + STALE_KEPT:
            heap = self._heap = [entry for entry in heap if entry[2].timer == entry[1]]
            heapify(heap)
        while heap:
            due, number, task = heap[0]
            if task.timer == number:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> Timed | None:
        """Take the first task whose instant has come; None when there is none. Its `due` stays as it was."""
        due = self.next_due()
        if due is None or due > now:
            return None
        return heappop(self._heap)[2]
