"""The records of a task, what its client asked for and how far it has come, and of a worker."""

from collections.abc import Hashable, Sized
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from zmqbroker.wire import LONGEST_SPAN, UNSETTLED, Announce, Frames, Header

if TYPE_CHECKING:
    from zmqbroker.broker.queues import Queue
    from zmqbroker.broker.workers import Line, Pool

# The statuses of a task that is not settled. Waiting, not before an instant, is *delayed*.
WAITING, DELAYED, RUNNING = UNSETTLED

Name = str | tuple[str, str]  # what a task is known by: its key, or whose it is, and its key

MARKS = 3  # tasks that failed at a worker and succeeded elsewhere, before it is held back


def name_of(key: str, owner: str | None) -> Name:
    """Return what a task with a key is known by: the keys of each owner are its own. `owner` None: it is nobody's."""
    return key if owner is None else (owner, key)


class Record:
    """What is known of how a worker does: see `records`."""

    __slots__ = (
        "done",
        "due",
        "failed",
        "has_failed",
        "is_held_back",
        "is_in_doubt",
        "marks",
        "pause",
        "timer",
        "worker",
    )

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self.done = 0  # tasks
        self.failed = 0  # attempts
        self.has_failed = False  # without a success since
        self.is_in_doubt = False  # a task that has failed is rather for another worker
        self.is_held_back = False
        self.marks = 0  # tasks that failed there and succeeded elsewhere, without a success since
        self.pause = 0.0  # seconds that it was held back for the last time
        self.due: float | None = None  # when being held back ends, or doubt without marks; None: neither
        self.timer = 0  # names the entry of that instant; 0: there is none


class Worker:
    """A connection by which a worker spoke, until it drops."""

    __slots__ = (
        "announce",
        "due",
        "held",
        "id",
        "is_serial",
        "is_stuck",
        "line",
        "lost",
        "owner",
        "pool",
        "record",
        "since",
        "slots",
        "ticket",
        "timer",
        "unsent",
        "wants_headers",
    )

    def __init__(self, id: Sized, pool: "Pool") -> None:
        self.id = id
        self.pool = pool  # those that ask from the same queues
        self.owner: str | None = None  # whose it is; None: nobody's in particular
        self.announce: Announce | None = None  # who it says that it is; None: a plain worker
        self.is_serial = False  # it does one task after the other, in the order in which it got them
        self.wants_headers = False  # its tasks are to tell about themselves
        self.slots: list[Frames] = []  # the envelope of each task that it is ready for
        self.held: dict[bytes, Task] = {}  # by attempt id, in order: what it has, and told no outcome of
        self.unsent: dict[bytes, Frames] = {}  # those that it gets once that is stored, and their envelopes, in order
        self.since = 0.0  # when the first of those came first
        self.is_stuck = False  # in the first one: it gets no more before that is done
        self.record: Record | None = None  # how it does; None: a plain worker
        self.lost = False  # the connection has dropped
        self.line: Line | None = None  # of its pool, in which it stands; None: in none
        self.ticket = 0  # of its entry there: others are stale
        self.due: float | None = None  # when to see whether it is stuck
        self.timer = 0  # names the entry of that instant; 0: there is none

    @property
    def name(self) -> str:
        """How it is called in logs and reasons; empty: a plain worker."""
        return "" if self.announce is None else self.announce.name

    @property
    def may_have_more(self) -> bool:
        """Tell whether it is to get a task if it asks for one."""
        record = self.record
        if self.is_stuck or (record is not None and record.is_held_back):
            return False
        return record is None or record.marks < MARKS or not self._is_at_work

    @property
    def _is_at_work(self) -> bool:
        """Tell whether it is at a task, as far as is known: of one that was given up it may never tell the outcome."""
        if self.is_serial:  # it does nothing else meanwhile
            return bool(self.held)
        return any(task.attempt_id == attempt_id for attempt_id, task in self.held.items())

    def attempt_behind(self, task: "Task") -> bytes | None:
        """Return the id of an earlier attempt that lies behind what this worker has in hand; None: none does."""
        for holder in task.holders or ():
            if holder.worker is self and not self.has_in_hand(holder.attempt_id):
                return holder.attempt_id
        return None

    def has_in_hand(self, attempt_id: bytes) -> bool:
        """Tell whether it is at this attempt, one of those that it holds."""
        return not self.is_serial or next(iter(self.held), None) == attempt_id


NOBODY = Worker(b"", None)  # type: ignore[arg-type]  # it is in no pool, and nobody asks which one
EARLIER = Worker(b"", None)  # type: ignore[arg-type]  # had a task when an earlier run of the broker ended
GONE = Worker(b"", None)  # type: ignore[arg-type]  # in the record of a worker that is lost
GONE.lost = True


class Waiter(NamedTuple):
    """Who waits for the outcome of a task."""

    envelope: Frames
    header: Header | None  # None: a plain client


class BackOff(NamedTuple):
    """After how many seconds a task is tried again."""

    delay: float = 0.0  # the first time
    factor: float = 1.0  # by which it grows each time
    most: float = inf

    def after(self, attempts: int) -> float:
        """Return the seconds after so many attempts."""
        try:
            grown = self.delay * self.factor ** (attempts - 1)
        except OverflowError:
            grown = LONGEST_SPAN
        return min(grown, self.most, LONGEST_SPAN)


NO_BACK_OFF = BackOff()
UNATTENDED: Frames = []  # the envelope of a task that nobody waits for: one for all of them, never to be changed


class Fetch:
    """A request that waits for the outcome of a task for so long, and then wants to know where it stands."""

    __slots__ = ("due", "task", "timer", "waiter")

    def __init__(self, task: "Task", waiter: Waiter) -> None:
        self.task = task
        self.waiter = waiter  # one of those who wait for the task
        self.due: float | None = None  # until when; None: it waits no more
        self.timer = 0  # names the entry of that instant; 0: there is none


class Holder(NamedTuple):
    """Who has an attempt at a task that is not its running one, and has told no outcome of it."""

    worker: Worker
    attempt_id: bytes


class Task:
    """One request of a client, from its acceptance to its reply."""

    __slots__ = (
        "__dict__",  # for what most tasks never have: that is the class's, until it is set
        "accepted",
        "attempt_id",
        "attempts",
        "back_off",
        "body",
        "charged",
        "deadline",
        "due",
        "envelope",
        "expires_at",
        "group",
        "hand_outs",
        "header",
        "number",
        "queue",
        "rank",
        "since",
        "stale",
        "status",
        "timeout",
        "timer",
        "token",
        "tries",
        "worker",
    )

    owner: str | None = None  # whose it is; None: nobody's in particular
    handed_to: dict[Sized, str] | None = None  # whose worker each attempt went to, by id, the last ones; None: of none
    joined: list[Waiter] | None = None  # who waits for it as well; None: nobody
    holders: list[Holder] | None = None  # of earlier attempts; None: there are none
    failed_at: list[Record] | None = None  # the workers that lost it, by their records; None: none
    left = b""  # the id of an attempt that seemed to lie behind when its worker was lost
    reason = ""  # why its last attempt was lost, or the request was refused
    fetches: list[Fetch] | None = None  # who waits for it for some time; None: nobody
    is_durable = False  # the store has it
    size = 0  # bytes of its body, if it is durable
    keep: float | None = None  # seconds for which its outcome is kept then; None: as the broker is told
    deaths = 0  # of the broker while a worker had it
    is_answer = False  # it is none, but what is told of one, or that there is none
    was_at: str | None = None  # of an answer: the name of the worker that had the task last; None: as `worker` says

    def __init__(
        self,
        envelope: Frames,
        body: Frames,
        queue: "Queue",
        tries: int = 0,
        timeout: float | None = None,
        back_off: BackOff = NO_BACK_OFF,
        header: Header | None = None,
        number: int = 0,
        now: float = 0.0,
    ) -> None:
        self.queue = queue
        self.group: Hashable = None  # whose tasks take turns with those of others; None: of those who say none
        self.back_off = back_off
        self.expires_at = inf  # when it is settled without a result
        self.envelope = envelope  # where the reply goes; no frames: nobody waits
        self.body = body  # what to do; once settled, the reply's body (no frames for a failure)
        # Its place in its group, the lowest first: a higher priority first, and a retry before a new task.
        self.rank = 1 if header is None else 1 - 2 * header.priority
        self.header = header  # what a client said of it beyond the plain protocol; None: a plain client
        self.tries = tries  # the limit on attempts; 0: none
        self.timeout = timeout  # seconds per attempt; None: no limit
        self.status = WAITING
        self.stale = 0  # entries in the queue that are not to count
        self.number = number  # which of the tasks accepted this is, from 1; 0: it is none
        self.accepted = now  # when
        self.since = now  # when its worker had it in hand, or it began to wait
        self.token = b""  # what ends its attempt ids, so that nobody can make one up
        self.attempt_id = b""  # of the attempt that is running; else empty
        self.attempts = 0  # that a worker had in hand, and did not give back
        self.charged = b""  # the id of the last of those
        self.hand_outs = 0  # all of them: the attempts, and what nobody had in hand
        self.worker = NOBODY  # that had it last
        self.deadline: float | None = None  # of the running attempt
        self.due: float | None = None  # when the running attempt is given up, a delayed task waits again, or it expires
        self.timer = 0  # names the entry of that instant in the heap; 0: there is none

    @property
    def key(self) -> str | None:
        """The name that its client gave it, if any."""
        return None if self.header is None else self.header.key

    @property
    def name(self) -> Name | None:
        """What it is known by; None: it has no key."""
        return None if self.header is None or self.header.key is None else name_of(self.header.key, self.owner)

    def was_handed_to(self, owner: str | None, attempt_id: Sized) -> bool:
        """Tell whether an attempt may have gone to a worker of somebody (None: of nobody in particular)."""
        return not self.handed_to or self.handed_to.get(attempt_id, owner) == owner

    @property
    def last_worker(self) -> str | None:
        """The name of the worker that had it last, empty for a plain one; None: nobody had it."""
        if self.was_at is not None:
            return self.was_at
        return None if self.worker is NOBODY else self.worker.name

    @property
    def attempt(self) -> int:
        """Which attempt the running one is, or will be when its worker has it in hand; from 1."""
        return self.attempts + (self.charged != self.attempt_id)

    @property
    def waiters(self) -> list[Waiter]:
        """Whoever gets its outcome."""
        first = [Waiter(self.envelope, self.header)] if self.envelope else []
        return first + (self.joined or [])


OVER = Task([], [], None)  # type: ignore[arg-type]  # stands for one that is settled, or never was; it is in no queue
OVER.status = "over"
