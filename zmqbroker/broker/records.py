"""Which workers fail where others succeed, and how long each of those is held back.

A worker that fails at once is always ready, so it would get nearly every task. It is held back on evidence only: a task
that failed there and then succeeded elsewhere is a mark against it. One that fails everywhere marks nobody: that is the
task's own fault. With MARKS of them and no success in between a worker gets one task at a time, and the next one only
after a pause, doubled at each failure; a success wipes its record clean.

Evidence takes as long as a task takes elsewhere, and a worker that fails at once could lose all tasks before that. So
it is in *doubt* from its first failure without a success, for as long as two tasks take, and as long as it has marks.
A task that has failed waits for a worker that is not in doubt, where there is one; else it takes what is there.

Only workers that have announced themselves have a record. It outlives their connection, for one with the same announce.
"""

from collections import OrderedDict
from math import inf

from zmqbroker.broker.counters import Counters
from zmqbroker.broker.queues import Timers
from zmqbroker.broker.task import MARKS, Record, Task, Worker
from zmqbroker.broker.workers import Workers
from zmqbroker.wire import Announce

FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 30.0
SHORTEST_DOUBT = 1.0  # seconds
FIRST_DOUBT = 10.0  # before anybody knows how long tasks take
LONGEST_DOUBT = 60.0
MEMORY = 8  # tasks that their mean time goes back, roughly
MOST_KEPT = 1000  # records of workers that are not there


class Records:
    """The records of all workers, and the pauses of those that are held back."""

    def __init__(self, workers: Workers, counters: Counters) -> None:
        self.held_back: list[Record] = []  # just now, to be told of; the caller clears it
        self._workers = workers
        self._counters = counters
        self._pauses: Timers[Record] = Timers()
        self._doubted: set[Record] = set()  # of workers that are there; perhaps not any more
        self._mean: float | None = None  # seconds that a task takes which succeeds; None: nobody knows yet
        self._kept: OrderedDict[Announce, Record] = OrderedDict()  # of workers that are not there, the oldest first

    def meet(self, worker: Worker, announce: Announce, now: float) -> None:
        """Give a worker that has announced itself its record."""
        record = worker.record or self._kept.pop(announce, None) or Record(worker)
        worker.record, record.worker = record, worker
        if record.is_in_doubt(now):
            self._doubted.add(record)
        if record.marks >= MARKS and not record.is_held_back:
            self._pause(record, now)

    def part(self, worker: Worker) -> None:
        """Note that the connection of a worker is lost."""
        record = worker.record
        if record is None or worker.announce is None:
            return
        self._pauses.clear(record)
        self._doubted.discard(record)
        record.is_held_back = False
        if record.marks:
            self._kept[worker.announce] = record
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)

    def failed(self, task: Task, now: float) -> None:
        """Note that the running attempt of a task has failed."""
        record = task.worker.record
        if record is None:
            return
        task.failed_at = [*(task.failed_at or ()), record]
        if record.doubted_until == -inf:
            doubt = FIRST_DOUBT if self._mean is None else min(max(2 * self._mean, SHORTEST_DOUBT), LONGEST_DOUBT)
            record.doubted_until = now + doubt
            self._doubted.add(record)
        if record.marks >= MARKS:
            self._hold_back(record, now)

    def succeeded(self, task: Task, now: float) -> None:
        """Note that the running attempt of a task has succeeded."""
        record = task.worker.record
        if record is not None:
            spent = now - task.started
            self._mean = spent if self._mean is None else self._mean + (spent - self._mean) / MEMORY
            if record.doubted_until != -inf:
                self._wipe(record)
        for other in dict.fromkeys(task.failed_at or ()):
            if other is not record:
                other.marks += 1
                if not other.worker.lost:
                    self._doubted.add(other)
                if other.marks == MARKS:
                    self._hold_back(other, now)

    def wants_other_until(self, task: Task, now: float) -> float:
        """Return until when a task that has failed is not for workers in doubt; `now`: it is for all."""
        for record in [record for record in self._doubted if not record.is_in_doubt(now)]:
            self._doubted.remove(record)
        if not 0 < len(self._doubted) < len(self._workers):
            return now
        ends = max(inf if record.marks else record.doubted_until for record in self._doubted)
        return max(now, min(ends, task.started + LONGEST_PAUSE))

    def end_pauses(self, now: float) -> None:
        """Have those asked again that were held back for long enough."""
        while (record := self._pauses.pop_due(now)) is not None:
            self._pauses.clear(record)
            record.is_held_back = False
            self._workers.place(record.worker)

    def next_due(self) -> float | None:
        """Return the instant at which `end_pauses` has something to do; None: never."""
        return self._pauses.next_due()

    def _hold_back(self, record: Record, now: float) -> None:
        """Have a worker wait for its next task, for longer each time."""
        record.pause = min(2 * record.pause, LONGEST_PAUSE) if record.pause else FIRST_PAUSE
        self._counters.held_back += 1
        self.held_back.append(record)
        self._pause(record, now)

    def _pause(self, record: Record, now: float) -> None:
        if not record.worker.lost:
            record.is_held_back = True
            self._pauses.set(record, now + record.pause)
            self._workers.place(record.worker)

    def _wipe(self, record: Record) -> None:
        """Trust a worker again."""
        self._doubted.discard(record)
        record.marks = 0
        record.pause = 0.0
        record.doubted_until = -inf
        record.is_held_back = False
        self._pauses.clear(record)
        self._workers.place(record.worker)
