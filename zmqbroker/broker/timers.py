"""Instants that come: for each thing that has one, when something happens to it by itself.

What is set anew or cleared leaves a stale entry behind, to be passed over later: so each step costs the same however
many there are. When stale entries outnumber the live ones the heap is rebuilt without them: so its memory is
proportional to what is live.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar

STALE_KEPT = 1000  # fewer stale entries are not worth a rebuild


class HasInstant(Protocol):
    """What may have an instant."""

    due: float | None  # None: it has none
    timer: int  # names its entry; 0: it has none


Timed = TypeVar("Timed", bound=HasInstant)


class Timers(Generic[Timed]):
    """The instant of each thing that has one. An entry is live while its number is its thing's `timer`."""

    def __init__(self) -> None:
        self._live = 0
        self._heap: list[tuple[float, int, Timed]] = []
        self._next_number = count(1).__next__

    def __iter__(self) -> Iterator[Timed]:
        return (thing for _, number, thing in self._heap if thing.timer == number)

    def set(self, thing: Timed, due: float) -> None:
        """Make `due` its one instant."""
        if thing.due is None:
            self._live += 1
        thing.due = due
        number = thing.timer = self._next_number()
        heappush(self._heap, (due, number, thing))

    def clear(self, thing: Timed) -> None:
        """Forget its instant, if it has one."""
        if thing.due is not None:
            self._live -= 1
            thing.due = None
            thing.timer = 0

    def next_due(self) -> float | None:
        """Return the first instant; None when there is none. Every turn asks, so here stale entries are dropped."""
        heap = self._heap
        if not heap:
            return None
        if len(heap) > 2 * self._live + STALE_KEPT:
            heap = self._heap = [entry for entry in heap if entry[2].timer == entry[1]]
            heapify(heap)
        while heap:
            due, number, thing = heap[0]
            if thing.timer == number:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> Timed | None:
        """Take the first one whose instant has come; None when there is none. Its `due` stays as it was."""
        due = self.next_due()
        if due is None or due > now:
            return None
        return heappop(self._heap)[2]
