"""The records of a task, what its client asked for and how far it has come, and of a worker."""

from collections.abc import Sized

from zmqbroker.wire import Frames, Header

WAITING = "waiting"  # the statuses of a task that is not settled; those of a settled one are on the wire
DELAYED = "delayed"  # waiting, not before an instant
RUNNING = "running"


class Worker:
    """A connection by which ready messages came, as long as one is unused or a task is running there."""

    __slots__ = ("id", "lost", "running", "slots")

    def __init__(self, id: Sized) -> None:
        self.id = id
        self.slots: list[Frames] = []  # the envelope of each unused ready message; none: it is busy or forgotten
        self.running: set[Task] = set()
        self.lost = False  # the connection has dropped


NOBODY = Worker(b"")


class Task:
    """One request of a client, from its acceptance to its reply."""

    __slots__ = (
        "attempt_id",
        "attempts",
        "body",
        "due",
        "envelope",
        "hand_outs",
        "header",
        "number",
        "reason",
        "started",
        "status",
        "timeout",
        "timer",
        "tries",
        "worker",
    )

    def __init__(
        self, envelope: Frames, body: Frames, tries: int = 0, timeout: float | None = None, header: Header | None = None
    ) -> None:
        self.envelope = envelope  # where the reply goes
        self.body = body  # what to do; once settled, the reply's body (no frames for a failure)
        self.header = header  # what a client said of it beyond the plain protocol; None: a plain client
        self.tries = tries  # the limit on attempts; 0: none
        self.timeout = timeout  # seconds per attempt; None: no limit
        self.status = WAITING
        self.number = 0  # which of the tasks handed out this is, from 1; 0 before its first hand-out
        self.attempt_id = b""  # of the attempt that is running; else empty
        self.attempts = 0  # hand-outs that count against the limit
        self.hand_outs = 0  # all of them: the attempts, and what was given back unexecuted
        self.worker = NOBODY  # that had it last
        self.started = 0.0  # when the running attempt was handed out
        self.due: float | None = None  # when the running attempt is given up, or a delayed task waits again
        self.timer = 0  # names the entry of that instant in the heap; 0: there is none
        self.reason = ""  # why its last attempt was lost, or the request was refused

    @property
    def key(self) -> str | None:
        """The name that its client gave it, if any."""
        return None if self.header is None else self.header.key

    @property
    def rank(self) -> int:
        """Its place in the queue, the lowest first: a higher priority first, and a retry before a new task."""
        priority = 0 if self.header is None else self.header.priority
        return -2 * priority + (self.hand_outs == 0)
