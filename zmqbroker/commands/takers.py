"""What becomes of each task, and who takes it: what prints results or writes them to files, what keeps a report, ...

Each taker is told of an outcome in its turn, and may hold on to it until all are flushed, in the same order. So what
comes later, a report say, claims nothing that those before it could not write.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

BUFFERED = 1 << 16  # bytes that wait for more, while there is more
LEFT = "left"  # the status of a task that was cancelled, or that nobody waits for any more, as all has ended


class Item(NamedTuple):
    """What a task is made of."""

    number: int  # of its line, or of its file, from 1
    place: str  # where it stands, for people
    body: Any  # of the task; or a key
    name: str | None = None  # of its file, if all of that is one task
    checksum: int = 0  # of its body, where that is wanted


class Outcome(NamedTuple):
    """What became of a task."""

    item: Item
    result: Any  # its body, or a key; an exception that says why there is none
    status: str  # as the reply says it, or LEFT
    attempts: int = 0
    seconds: float = 0.0  # from its submission
    worker: str | None = None  # the name of the one that had it last, if that was asked for
    key: str | None = None  # what the broker calls it

    @property
    def has_failed(self) -> bool:
        """Tell whether there is no result."""
        return isinstance(self.result, BaseException)


class Taker(Protocol):
    """Takes what becomes of tasks, in one thread. Whatever it cannot write is an OutputError."""

    written: int  # bytes so far

    @property
    def waiting(self) -> int:
        """How many bytes wait to be written."""
        ...

    def take(self, outcome: Outcome) -> None:
        """Take an outcome, and write what is to be written now or when flushed."""
        ...

    def flush(self) -> None:
        """Write what waits."""
        ...

    def close(self, left: Sequence[Item]) -> None:
        """Let go, and note what is left of the tasks: those that nothing came of, or nothing that was taken."""
        ...


class Takers:
    """All who take outcomes, one after the other."""

    def __init__(self, takers: Iterable[Taker]) -> None:
        self._takers = list(takers)

    @property
    def written(self) -> int:
        """How many bytes were written so far."""
        return sum(taker.written for taker in self._takers)

    def take(self, outcome: Outcome) -> None:
        """Have all of them take an outcome; raises OutputError."""
        waiting = 0
        for taker in self._takers:
            taker.take(outcome)
            waiting += taker.waiting
        if waiting >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Have all of them write what waits; raises OutputError."""
        for taker in self._takers:
            taker.flush()

    def close(self, left: Sequence[Item]) -> None:
        """Have all of them let go; raises OutputError."""
        for taker in self._takers:
            taker.close(left)
