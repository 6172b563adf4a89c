"""Replies that are kept for a while, in case their client comes back for them over a new connection."""

from collections import OrderedDict
from collections.abc import Sized
from typing import NamedTuple

from zmqbroker.broker.task import Task
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


class KeptReplies:
    """The newest replies to tasks with a key, by that key.

    A reply that was sent may still be lost with its connection, so each is kept. It is for who comes back: a request
    with the same key by the connection that the reply went to is a new task.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, KeptReply] = OrderedDict()  # the oldest first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, key: str, task: Task, now: float) -> None:
        """Keep the reply of a settled task; the oldest make room for it, unless it is larger than all may be."""
        kept, body = self._kept, task.body
        if key in kept:
            self._drop(key)
        size = FRAME_COST + len(body[0]) if len(body) == 1 else FRAME_COST * len(body) + sum(map(len, body))
        if size > MOST_BYTES:
            return
        connections: tuple[Sized, ...] = (task.envelope[0],)
        if task.joined:
            connections += tuple(waiter.envelope[0] for waiter in task.joined)
        until = now + KEPT_FOR
        reply = (connections, task.status, task.attempts, task.reason, task.number, body, until, size)
        kept[key] = tuple.__new__(KeptReply, reply)  # half as dear as to call it
        self._bytes += size
        while len(kept) > MOST_REPLIES or self._bytes > MOST_BYTES:
            self._bytes -= kept.popitem(last=False)[1].size

    def take(self, key: str, connection: Sized, now: float) -> KeptReply | None:
        """Take out the reply with this key; None when it is not kept, or went out by this very connection."""
        if key not in self._kept:
            return None
        self.expire(now)
        kept = self._drop(key)
        return kept if kept is not None and connection not in kept.connections else None

    def find(self, key: str, now: float) -> KeptReply | None:
        """Return the reply with this key, whoever it went to; None when it is not kept."""
        self.expire(now)
        return self._kept.get(key)

    def forget(self, key: str) -> None:
        """Keep the reply with this key no longer."""
        self._drop(key)

    def mark_undelivered(self, key: str, connection: Sized) -> None:
        """Note that a reply did not go out by this connection: whoever comes back by it may have it."""
        kept = self._kept.get(key)
        if kept is not None and connection in kept.connections:
            self._kept[key] = kept._replace(connections=tuple(one for one in kept.connections if one != connection))

    def expire(self, now: float) -> None:
        """Drop what was kept for long enough."""
        while (due := self.next_due()) is not None and due <= now:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def next_due(self) -> float | None:
        """Return the instant at which the oldest has been kept for long enough; None when nothing is kept."""
        return next(iter(self._kept.values())).until if self._kept else None

    def _drop(self, key: str) -> KeptReply | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept.size
        return kept
