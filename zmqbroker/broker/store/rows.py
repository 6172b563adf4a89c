"""What is stored of a task and of a queue.

These are plain values, as they lie in the store: instants are wall clock, seconds since the epoch, and there is nobody
to reply to. What a task was asked for never changes; how far it has come changes with each attempt.
"""

from typing import NamedTuple

from zmqbroker.broker.task import RUNNING, WAITING, Name, name_of
from zmqbroker.wire import CANCELLED, DONE, EXPIRED, FAILED, Frames

UNSETTLED = (WAITING, RUNNING)  # a delayed task waits, and has `due`
SETTLED = (DONE, FAILED, CANCELLED, EXPIRED)
LARGEST_BODY = 950 << 20  # bytes; SQLite has no row of 1,000,000,000


class Request(NamedTuple):
    """What a client asked for; None: as the broker is told when it hands the task out."""

    number: int  # the task's, as in the log
    secret: bytes  # what ends the ids of its attempts
    key: str
    queue: str | None = None  # None: the default one
    accepted: float = 0.0  # the instant
    # Most tasks have none of these wishes. Numbers are finite.
    owner: str | None = None  # whose it is; None: nobody's in particular
    group: str | None = None
    priority: int = 0
    tries: int | None = None  # 0: no limit
    timeout: float | None = None  # seconds per attempt; 0: no limit
    retry_delay: float | None = None  # seconds before the second attempt
    retry_factor: float | None = None  # by which that grows for each further one
    retry_most: float | None = None  # seconds that it grows to
    expires: float | None = None  # the instant after which no result is wanted; None: there is none
    keep: float | None = None  # seconds for which its outcome is kept

    @property
    def name(self) -> Name:
        """What the task is known by."""
        return name_of(self.key, self.owner)


PLAIN = Request._fields.index("owner")  # so many fields all tasks have, the others are wishes
NO_WISHES = tuple(Request._field_defaults[name] for name in Request._fields[PLAIN:])


class State(NamedTuple):
    """How far a task has come."""

    status: str = WAITING  # one of UNSETTLED or SETTLED
    due: float | None = None  # the instant before which it is not handed out; None: it may be at once
    hand_outs: int = 0  # all of them, the last one included
    attempts: int = 0  # that count
    deaths: int = 0  # of the broker while a worker had it
    reason: str = ""  # why its last attempt was lost, or how it was settled
    worker: str = ""  # that had it last; empty: none, or a plain one
    until: float | None = None  # the instant until which its outcome is kept; None: it is not settled


class StoredTask(NamedTuple):
    """A task as it is stored."""

    request: Request
    state: State
    body: Frames | None  # what to do, or the result once it is done; None: it was left in the store
    size: int  # bytes of the body


class DamagedTask(NamedTuple):
    """A task that was stored, and cannot be relied on any more."""

    number: int
    key: str | None = None  # as far as it can be read; None: it cannot
    owner: str | None = None  # likewise

    @property
    def name(self) -> Name | None:
        """What the task is known by, as far as it can be read; None: it cannot."""
        return None if self.key is None else name_of(self.key, self.owner)


class QueueSettings(NamedTuple):
    """What was set of a queue while the broker ran."""

    name: str
    limit: int | None = None  # tasks that run at once; None: any number
    limit_waiting: int | None = None  # tasks that wait; None: any number
    is_paused: bool = False


def unstorable(key: str, size: int) -> str:
    """Say why a task with this key, and a body of so many bytes, cannot be stored; empty: it can."""
    if not key.isascii() and any("\ud800" <= character <= "\udfff" for character in key):
        return f"{key!a:.100} cannot be stored: it has half a character"
    if size > LARGEST_BODY:
        return f"a task of {size} bytes cannot be stored: the limit is {LARGEST_BODY} bytes"
    return ""
