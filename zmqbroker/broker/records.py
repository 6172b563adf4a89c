"""Which workers fail where others succeed, and how long each of those is held back.

A worker that fails at once is always ready, so it would get nearly every task. It is held back on evidence only: a task
that failed there and then succeeded elsewhere is a mark against it. One that fails everywhere marks nobody: that is the
task's own fault. With MARKS of them and no success in between a worker gets one task at a time, and the next one only
after a pause, doubled at each failure; a success wipes its record clean.

Evidence takes as long as a task takes elsewhere, and a worker that fails at once could lose all tasks before that. So
it is in *doubt* from its first failure without a success, for as long as two tasks take, and as long as it has marks.
A task that has failed waits for a worker that is not in doubt, where there is one; else it takes what is there.

Only workers that have announced themselves have a record. It outlives their connection, for one with the same announce
and owner.
"""

from collections import OrderedDict
from typing import Any

from zmqbroker.broker.counters import Counters
from zmqbroker.broker.task import GONE, MARKS, Record, Task, Worker
from zmqbroker.broker.timers import Timers
from zmqbroker.broker.workers import Workers
from zmqbroker.wire import Announce

FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 30.0
SHORTEST_DOUBT = 1.0  # seconds
FIRST_DOUBT = 10.0  # before anybody knows how long tasks take
LONGEST_DOUBT = 60.0
MEMORY = 8  # tasks that their mean time goes back, roughly
MOST_KEPT = 1000  # records of workers that are not there
MOST_BLAMED = 16  # workers that failed at a task, the last ones


class Records:
    """The records of all workers, and when those in doubt are trusted again, or those held back asked again."""

    def __init__(self, workers: Workers, counters: Counters, timers: Timers[Any]) -> None:
        self.held_back: list[Record] = []  # just now, to be told of; the caller clears it
        self._workers = workers
        self._counters = counters
        self._timers = timers  # the broker's
        self._mean: float | None = None  # seconds that a task takes which succeeds; None: nobody knows yet
        # Of workers that are not there, by whose they are and what they said, the oldest first.
        self._kept: OrderedDict[tuple[str | None, Announce], Record] = OrderedDict()

    def meet(self, worker: Worker, announce: Announce, now: float) -> None:
        """Give a worker that has announced itself its record."""
        if worker.record is not None:
            return
        record = worker.record = self._kept.pop((worker.owner, announce), None) or Record(worker)
        record.worker = worker
        if record.is_in_doubt:
            self._workers.note_doubt(worker, 1)
        if record.marks >= MARKS:
            self._pause(record, now)

    def part(self, worker: Worker) -> None:
        """Note that the connection of a worker is lost."""
        record = worker.record
        if record is None or worker.announce is None:
            return
        self._timers.clear(record)
        record.is_held_back = False
        record.worker = GONE  # else each would keep the other one until Python's garbage collector finds them
        if record.marks:
            self._kept[worker.owner, worker.announce] = record
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)

    def failed(self, task: Task, now: float) -> None:
        """Note that the running attempt of a task has failed."""
        record = task.worker.record
        if record is None:
            return
        record.failed += 1
        others = [other for other in task.failed_at or () if other is not record]
        task.failed_at = [*others[-(MOST_BLAMED - 1) :], record]
        if record.worker.lost:
            return
        if not record.has_failed:
            record.has_failed = True
            doubt = FIRST_DOUBT if self._mean is None else min(max(2 * self._mean, SHORTEST_DOUBT), LONGEST_DOUBT)
            self._timers.set(record, now + doubt)
            self._doubt(record)
        if record.marks >= MARKS:
            self._hold_back(record, now)

    def succeeded(self, task: Task, now: float) -> None:
        """Note that the running attempt of a task has succeeded."""
        record = task.worker.record
        if record is not None:
            record.done += 1
            spent = now - task.since
            self._mean = spent if self._mean is None else self._mean + (spent - self._mean) / MEMORY
            if record.has_failed:
                self._wipe(record)
        for other in task.failed_at or ():
            if other is not record:
                self._mark(other, now)

    def come_due(self, record: Record) -> None:
        """Trust a worker again that was in doubt without evidence, or ask one again that was held back long enough."""
        self._timers.clear(record)
        if record.is_held_back:
            record.is_held_back = False
            self._workers.place(record.worker)
        else:
            self._trust(record)

    def _mark(self, record: Record, now: float) -> None:
        """Note evidence against a worker: it is in doubt until it succeeds."""
        record.marks += 1
        if record.worker.lost:
            return
        self._doubt(record)
        if not record.is_held_back:
            self._timers.clear(record)
        if record.marks == MARKS:
            self._hold_back(record, now)

    def _hold_back(self, record: Record, now: float) -> None:
        """Have a worker wait for its next task, for longer each time."""
        record.pause = min(2 * record.pause, LONGEST_PAUSE) if record.pause else FIRST_PAUSE
        self._counters.held_back += 1
        self.held_back.append(record)
        self._pause(record, now)

    def _pause(self, record: Record, now: float) -> None:
        record.is_held_back = True
        self._timers.set(record, now + record.pause)
        self._workers.place(record.worker)

    def _doubt(self, record: Record) -> None:
        if not record.is_in_doubt:
            record.is_in_doubt = True
            self._workers.note_doubt(record.worker, 1)

    def _trust(self, record: Record) -> None:
        if record.is_in_doubt:
            record.is_in_doubt = False
            self._workers.note_doubt(record.worker, -1)

    def _wipe(self, record: Record) -> None:
        """Forget what was said against a worker that has succeeded."""
        record.has_failed = record.is_held_back = False
        record.marks = 0
        record.pause = 0.0
        self._timers.clear(record)
        if record.worker.lost:
            record.is_in_doubt = False
        else:
            self._trust(record)
            self._workers.place(record.worker)
