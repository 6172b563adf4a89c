"""The records of a task, what its client asked for and how far it has come, and of a worker."""

from collections import deque
from collections.abc import Sized
from typing import NamedTuple

from zmqbroker.wire import Announce, Frames, Header

WAITING = "waiting"  # the statuses of a task that is not settled; those of a settled one are on the wire
DELAYED = "delayed"  # waiting, not before an instant
RUNNING = "running"


class Worker:
    """A connection by which a worker spoke, as long as there is something to know of it."""

    __slots__ = ("announce", "due", "held", "id", "is_stuck", "line", "lost", "since", "slots", "ticket", "timer")

    def __init__(self, id: Sized) -> None:
        self.id = id
        self.announce: Announce | None = None  # who it says that it is; None: a plain worker
        self.slots: list[Frames] = []  # the envelope of each task that it is ready for
        self.held: dict[bytes, Task] = {}  # by attempt id, in order: what it has, and told no outcome of
        self.since = 0.0  # when the first of those came first
        self.is_stuck = False  # in the first one: it gets no more before that is done
        self.lost = False  # the connection has dropped
        self.line: deque[tuple[int, Worker]] | None = None  # in which it stands; None: in none
        self.ticket = 0  # of its entry there: others are stale
        self.due: float | None = None  # when to see whether it is stuck
        self.timer = 0  # names the entry of that instant; 0: there is none

    @property
    def is_serial(self) -> bool:
        """Tell whether it does one task after the other, in the order in which it got them."""
        return self.announce is not None and self.announce.serial

    def has_in_hand(self, attempt_id: bytes) -> bool:
        """Tell whether it is at this attempt, one of those that it holds."""
        return not self.is_serial or next(iter(self.held), None) == attempt_id


NOBODY = Worker(b"")


class Waiter(NamedTuple):
    """Who waits for the outcome of a task."""

    envelope: Frames
    header: Header | None  # None: a plain client


class Holder(NamedTuple):
    """Who has an attempt at a task that is not its running one, and has told no outcome of it."""

    worker: Worker
    attempt_id: bytes


class Task:
    """One request of a client, from its acceptance to its reply."""

    __slots__ = (
        "attempt_id",
        "attempts",
        "body",
        "charged",
        "deadline",
        "due",
        "envelope",
        "hand_outs",
        "header",
        "holders",
        "joined",
        "number",
        "reason",
        "stale",
        "started",
        "status",
        "timeout",
        "timer",
        "token",
        "tries",
        "worker",
    )

    def __init__(
        self, envelope: Frames, body: Frames, tries: int = 0, timeout: float | None = None, header: Header | None = None
    ) -> None:
        self.envelope = envelope  # where the reply goes
        self.body = body  # what to do; once settled, the reply's body (no frames for a failure)
        self.header = header  # what a client said of it beyond the plain protocol; None: a plain client
        self.joined: list[Waiter] | None = None  # who waits for it as well; None: nobody
        self.tries = tries  # the limit on attempts; 0: none
        self.timeout = timeout  # seconds per attempt; None: no limit
        self.status = WAITING
        self.stale = 0  # entries in the queue that are not to count
        self.number = 0  # which of the tasks handed out this is, from 1; 0 before its first hand-out
        self.token = b""  # what ends its attempt ids, so that nobody can make one up
        self.attempt_id = b""  # of the attempt that is running; else empty
        self.attempts = 0  # that a worker had in hand, and did not give back
        self.charged = b""  # the id of the last of those
        self.hand_outs = 0  # all of them: the attempts, and what nobody had in hand
        self.worker = NOBODY  # that had it last
        self.holders: list[Holder] | None = None  # of earlier attempts; None: there are none
        self.started = 0.0  # when the running attempt was in hand
        self.deadline: float | None = None  # of the running attempt
        self.due: float | None = None  # when the running attempt is given up, or a delayed task waits again
        self.timer = 0  # names the entry of that instant in the heap; 0: there is none
        self.reason = ""  # why its last attempt was lost, or the request was refused

    @property
    def key(self) -> str | None:
        """The name that its client gave it, if any."""
        return None if self.header is None else self.header.key

    @property
    def attempt(self) -> int:
        """Which attempt the running one is, from 1; it counts when a worker has it in hand."""
        return self.attempts + (self.charged != self.attempt_id)

    @property
    def rank(self) -> int:
        """Its place in the queue, the lowest first: a higher priority first, and a retry before a new task."""
        priority = 0 if self.header is None else self.header.priority
        return -2 * priority + (self.hand_outs == 0)

    @property
    def waiters(self) -> list[Waiter]:
        """Whoever gets its outcome."""
        return [Waiter(self.envelope, self.header), *(self.joined or ())]
