"""Replies that are kept for a while, in case their client comes back for them over a new connection."""

from collections import OrderedDict
from collections.abc import Sized

from zmqbroker.task import Task

MOST_REPLIES = 10_000
LONGEST = 60.0  # seconds
MOST_BYTES = 64 << 20  # of all their bodies together


class KeptReplies:
    """The newest replies to tasks with a key, by that key.

    A reply that was sent may still be lost with its connection, so each is kept. It is for who comes back: a request
    with the same key by the connection that the reply went to is a new task.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Task, int]] = OrderedDict()  # when, what, of how many bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, key: str, task: Task, now: float) -> None:
        """Keep the reply of a settled task; the oldest make room for it."""
        size = sum(map(len, task.body))
        self._drop(key)
        self._kept[key] = (now, task, size)
        self._bytes += size
        while len(self._kept) > MOST_REPLIES or self._bytes > MOST_BYTES:
            self._drop_oldest()

    def take(self, key: str, connection: Sized, now: float) -> Task | None:
        """Take out the task with this key; None when it is not kept, or its reply went out by this very connection."""
        self.expire(now)
        task = self._drop(key)
        return task if task is not None and (task.undelivered or task.envelope[0] != connection) else None

    def expire(self, now: float) -> None:
        """Drop what was kept for long enough."""
        while (due := self.next_due()) is not None and due <= now:
            self._drop_oldest()

    def next_due(self) -> float | None:
        """Return the instant at which the oldest has been kept for long enough; None when nothing is kept."""
        return next(iter(self._kept.values()))[0] + LONGEST if self._kept else None

    def _drop(self, key: str) -> Task | None:
        if key not in self._kept:
            return None
        _, task, size = self._kept.pop(key)
        self._bytes -= size
        return task

    def _drop_oldest(self) -> None:
        self._drop(next(iter(self._kept)))
