"""Sums over queues that only grow, though queues are forgotten by their broker and begin anew.

Each queue's counts are compared with those that it had when it was last seen; what they have grown by is added up. Who
reads counters takes one that falls for one that has begun anew, and would count all of it again.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import add, gt, sub
from typing import NamedTuple

KEPT = 10  # looks for which the counts of a queue are remembered that is not there: it may only have been passed over

Counts = Sequence[float]  # of one queue, always the same ones


class _Seen(NamedTuple):
    counts: Counts
    look: int  # the last that it was there


class Tally:
    """Adds up by how much counts of queues grow."""

    def __init__(self) -> None:
        self.total: list[float] = []  # of all queues; empty: none has been seen, as of the next
        self.others: list[float] = []  # of those that have no place of their own
        self._seen: dict[str, _Seen] = {}
        self._look = 0

    def look(self, queues: Mapping[str, Counts], placed: Iterable[str]) -> None:
        """Take note of the counts of all queues, of which those `placed` have a place of their own."""
        self._look += 1
        own = frozenset(placed)
        for name, counts in queues.items():
            before = self._seen.get(name)
            growth = _growth(before.counts if before is not None else None, counts)
            self.total = _sum(self.total, growth)
            if name not in own:
                self.others = _sum(self.others, growth)
            self._seen[name] = _Seen(counts, self._look)
        if len(self._seen) > len(queues):
            last = self._look - KEPT
            self._seen = {name: seen for name, seen in self._seen.items() if seen.look > last}


def _sum(sums: list[float], more: list[float]) -> list[float]:
    return list(map(add, sums, more)) if sums else more


def _growth(before: Counts | None, now: Counts) -> list[float]:
    """Return by how much counts have grown; None: there were none. If one has fallen, all have begun anew."""
    if before is None or any(map(gt, before, now)):
        return list(now)
    return list(map(sub, now, before))


class Places:
    """Which queues have a place of their own: so many at most, each for as long as it is there.

    They come first who are there first: a place that went to those with the most tasks would change hands all the time.
    One name is that of all others together, and never has a place.
    """

    def __init__(self, most: int, others: str) -> None:
        self.names: dict[str, None] = {}  # in the order in which they came
        self._most = most
        self._others = others

    def look(self, queues: Mapping[str, object]) -> None:
        """Give places to queues, the first first; those that are gone have none any more."""
        self.names = {name: None for name in self.names if name in queues}
        for name in queues:
            if len(self.names) >= self._most:
                break
            if name != self._others:
                self.names.setdefault(name)
