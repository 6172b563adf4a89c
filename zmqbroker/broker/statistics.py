"""What is counted of each queue and worker besides the totals: attempts by outcome, and how long things take.

Times are counted in buckets that grow by four: the first is for less than 64 microseconds, the last one for all that
is longer than about 4 days. So what is counted fits anywhere. What can be had from other counts is not counted: a task
costs less than a microsecond in all.
"""

from bisect import bisect
from typing import NamedTuple

from zmqbroker.broker.task import Name, Task, name_of

MOST_FAILURES = 1000  # remembered
MOST_OUTLIVED = 10_000  # tasks remembered that were settled while somebody might still be at them
LONGEST_REMEMBERED = 500  # characters of a reason
BUCKETS = 16
SHORTEST = 64e-6  # seconds
BOUNDS = [SHORTEST * 4**number for number in range(BUCKETS - 1)]  # seconds; of each bucket but the last

BY_FAIL = "fail"  # how an attempt ends without a result
BY_REJECT = "reject"
BY_RELEASE = "release"
BY_TIMEOUT = "timeout"
BY_LOSS = "lost"
ENDINGS = (BY_FAIL, BY_REJECT, BY_RELEASE, BY_TIMEOUT, BY_LOSS)


class Times:
    """How often something took how long."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0.0  # seconds

    def add(self, seconds: float) -> None:
        """Count one."""
        self.total += seconds
        self.counts[bisect(BOUNDS, seconds)] += 1


class Statistics:
    """What is counted of a queue."""

    __slots__ = (
        "accepted",
        "cancelled",
        "done",
        "endings",
        "expired",
        "failed",
        "late",
        "overtaken",
        "ran",
        "unfinished",
        "waited",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.done = 0
        self.failed = 0
        self.cancelled = 0
        self.expired = 0
        self.unfinished = 0  # when the broker ended
        self.late = 0  # results for a task that is settled, and verbs for attempts not running
        self.overtaken = 0  # tasks done by an attempt that did not run any more
        self.endings = dict.fromkeys(ENDINGS, 0)  # of attempts, without a result
        self.waited = Times()  # until a worker had it in hand
        self.ran = Times()  # from then on, whatever the outcome

    @property
    def unsettled(self) -> int:
        """The number of tasks that are not settled."""
        return self.accepted - self.done - self.failed - self.cancelled - self.expired - self.unfinished


class Failure(NamedTuple):
    """A task that came to a bad end, as it is remembered."""

    number: int
    key: str | None
    owner: str | None
    queue: str
    status: str
    reason: str
    worker: str  # that had it last; empty: none, or a plain one
    attempts: int
    at: float  # seconds of the broker's clock

    @property
    def name(self) -> Name | None:
        """What the task was known by; None: it had no key."""
        return None if self.key is None else name_of(self.key, self.owner)

    @classmethod
    def of(cls, task: Task, now: float) -> "Failure":
        """Return what is to be remembered of a task."""
        reason, worker = task.reason[:LONGEST_REMEMBERED], task.worker.name
        return cls(task.number, task.key, task.owner, task.queue.name, task.status, reason, worker, task.attempts, now)
