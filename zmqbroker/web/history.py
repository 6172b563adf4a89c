"""The last ten minutes of a broker and of its queues: some numbers of each, at each look."""

from collections import deque
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

SPAN = 600.0  # seconds
MOST_LOOKS = 150  # with one in 5 seconds, there are fewer
COUNTED = ("waiting", "running", "accepted", "done", "failed")  # of each queue
COUNTED_IN_ALL = (*COUNTED, "retried")  # of all together

Numbers = tuple[int | None, ...]  # of COUNTED or COUNTED_IN_ALL
Series = dict[str, list[int | None]]  # by such names; None: it was not there


class Look(NamedTuple):
    """What there was at one instant."""

    at: float
    total: Numbers
    queues: dict[str, Numbers]


class History:
    """Looks, the last ones."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=MOST_LOOKS)

    def add(self, now: float, total: Mapping[str, Any], queues: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember how things are at the instant `now`, in all and with each queue."""
        each = {name: _numbers(queue, COUNTED) for name, queue in queues.items()}
        self._looks.append(Look(now, _numbers(total, COUNTED_IN_ALL), each))
        while self._looks[0].at < now - SPAN:
            self._looks.popleft()

    def follow(self, earlier: "History") -> None:
        """Begin with the looks at what was there before."""
        first = self._looks[0].at if self._looks else inf
        looks = [look for look in earlier._looks if look.at < first]
        self._looks = deque([*looks, *self._looks], MOST_LOOKS)

    def ages(self, now: float) -> list[float]:
        """Return how many seconds ago the looks were, the oldest first."""
        return [round(now - look.at, 1) for look in self._looks]

    def total(self) -> Series:
        """Return what there was in all at each look."""
        return _series((look.total for look in self._looks), COUNTED_IN_ALL)

    def queue(self, name: str) -> Series:
        """Return what there was of a queue at each look."""
        return _series((look.queues.get(name) for look in self._looks), COUNTED)


def _numbers(of: Mapping[str, Any], names: Iterable[str]) -> Numbers:
    return tuple(of.get(name) for name in names)


def _series(looks: Iterable[Numbers | None], names: Iterable[str]) -> Series:
    rows = list(looks)
    return {name: [None if row is None else row[place] for row in rows] for place, name in enumerate(names)}
