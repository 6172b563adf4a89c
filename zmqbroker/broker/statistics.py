"""What is counted of each queue and worker besides the totals: attempts by outcome, and how long things take.

Times are counted in buckets that grow by four: the first is for less than 64 microseconds, the last one for all that
is longer than about 4 days. So a time costs a multiplication, and what is counted fits anywhere.
"""

from typing import NamedTuple

from zmqbroker.broker.task import Task

MOST_FAILURES = 1000  # remembered
LONGEST_REMEMBERED = 500  # characters of a reason
BUCKETS = 16
SHORTEST_PER_SECOND = 15625
SHORTEST = 1 / SHORTEST_PER_SECOND  # seconds: 64 us
MOST_BITS = 64  # of a time counted in SHORTEST: more than any clock tells
BOUNDS = [SHORTEST * 4**number for number in range(BUCKETS - 1)]  # seconds; of each bucket but the last

BY_FAIL = "fail"  # how an attempt ends that does not succeed
BY_REJECT = "reject"
BY_RELEASE = "release"
BY_TIMEOUT = "timeout"
BY_LOSS = "lost"
ENDINGS = (BY_FAIL, BY_REJECT, BY_RELEASE, BY_TIMEOUT, BY_LOSS)


class Times:
    """How often something took how long."""

    __slots__ = ("_by_bits", "total")

    def __init__(self) -> None:
        self._by_bits = [0] * MOST_BITS  # by the length of a time in bits, counted in SHORTEST
        self.total = 0.0  # seconds

    def add(self, seconds: float) -> None:
        """Count one."""
        self.total += seconds
        self._by_bits[int(seconds * SHORTEST_PER_SECOND).bit_length()] += 1

    @property
    def counts(self) -> list[int]:
        """How often it took as long as each bucket says."""
        by_bits = self._by_bits
        pairs = [sum(by_bits[2 * number - 1 : 2 * number + 1]) for number in range(1, BUCKETS - 1)]
        return [by_bits[0], *pairs, sum(by_bits[2 * BUCKETS - 3 :])]


class Statistics:
    """What is counted of a queue."""

    __slots__ = ("accepted", "cancelled", "done", "endings", "expired", "failed", "late", "ran", "unfinished", "waited")

    def __init__(self) -> None:
        self.accepted = 0
        self.done = 0
        self.failed = 0
        self.cancelled = 0
        self.expired = 0
        self.unfinished = 0  # when the broker ended
        self.late = 0  # verbs for attempts that do not run, of tasks that are not settled: of others nothing is known
        self.endings = dict.fromkeys(ENDINGS, 0)  # of attempts without success
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
    queue: str
    status: str
    reason: str
    worker: str  # that had it last; empty: none, or a plain one
    attempts: int
    at: float  # seconds of the broker's clock

    @classmethod
    def of(cls, task: Task, now: float) -> "Failure":
        """Return what is to be remembered of a task."""
        reason, worker = task.reason[:LONGEST_REMEMBERED], task.worker.name
        return cls(task.number, task.key, task.queue.name, task.status, reason, worker, task.attempts, now)
