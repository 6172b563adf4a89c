"""Replies that are kept for a while, in case their client comes back for them over a new connection."""

from collections import OrderedDict
from collections.abc import Sized
from typing import NamedTuple

from zmqbroker.broker.task import Name, Task, Worker
from zmqbroker.wire import Frames

MOST_REPLIES = 10_000
KEPT_FOR = 60.0  # seconds
MOST_BYTES = 64 << 20  # of all their bodies together
FRAME_COST = 64  # bytes that a frame takes up, however small


class KeptReply(NamedTuple):
    """A reply without its envelope: whoever asks for it again has one."""

    connections: tuple[Sized, ...]  # that it went to
    status: str
    attempts: int
    reason: str
    number: int  # of the task
    body: Frames
    until: float  # the instant at which it has been kept for long enough
    size: int  # in bytes, as it counts
    worker: Worker  # that had the task last


class KeptReplies:
    """The newest replies to tasks with a key, by what they are known by.

    A reply that was sent may still be lost with its connection, so each is kept. It is for who comes back: a request
    with the same key by the connection that the reply went to is a new task.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Name, KeptReply] = OrderedDict()  # the oldest first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, name: Name, task: Task, now: float) -> None:
        """Keep the reply of a settled task; the oldest make room for it, unless it is larger than all may be."""
        kept, body = self._kept, task.body
        if name in kept:
            self._drop(name)
        size = FRAME_COST + len(body[0]) if len(body) == 1 else FRAME_COST * len(body) + sum(map(len, body))
        if size > MOST_BYTES:
            return
        connections: tuple[Sized, ...] = (task.envelope[0],)
        if task.joined:
            connections += tuple(waiter.envelope[0] for waiter in task.joined)
        until = now + KEPT_FOR
        reply = (connections, task.status, task.attempts, task.reason, task.number, body, until, size, task.worker)
        kept[name] = tuple.__new__(KeptReply, reply)  # half as dear as to call it
        self._bytes += size
        while len(kept) > MOST_REPLIES or self._bytes > MOST_BYTES:
            self._bytes -= kept.popitem(last=False)[1].size

    def take(self, name: Name, connection: Sized, now: float) -> KeptReply | None:
        """Take out the reply known by this; None when it is not kept, or went out by this very connection."""
        if name not in self._kept:
            return None
        self.expire(now)
        kept = self._drop(name)
        return kept if kept is not None and connection not in kept.connections else None

    def find(self, name: Name, now: float) -> KeptReply | None:
        """Return the reply known by this, whoever it went to; None when it is not kept."""
        self.expire(now)
        return self._kept.get(name)

    def forget(self, name: Name) -> None:
        """Keep the reply known by this no longer."""
        self._drop(name)

    def mark_undelivered(self, name: Name, connection: Sized) -> None:
        """Note that a reply did not go out by this connection: whoever comes back by it may have it."""
        kept = self._kept.get(name)
        if kept is not None and connection in kept.connections:
            self._kept[name] = kept._replace(connections=tuple(one for one in kept.connections if one != connection))

    def expire(self, now: float) -> None:
        """Drop what was kept for long enough."""
        while (due := self.next_due()) is not None and due <= now:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def next_due(self) -> float | None:
        """Return the instant at which the oldest has been kept for long enough; None when nothing is kept."""
        return next(iter(self._kept.values())).until if self._kept else None

    def _drop(self, name: Name) -> KeptReply | None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            self._bytes -= kept.size
        return kept
