"""Who gets which task: each worker that is ready, in turn, the first task of the first queue of its list that has one.

A queue that is paused, or of which as many tasks run as may, has none. A task of a queue with a limit is only for a
worker that has nothing: it would count as running while it lies behind another one. A task that is tried again goes to
another worker than the one that had it last, where another one is ready; and one that has failed, to a worker that is
not in doubt, where there is one: see `records`.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from zmqbroker.broker.queues import Queue, Queues
from zmqbroker.broker.task import NOBODY, Task, Worker
from zmqbroker.broker.timers import Timers
from zmqbroker.broker.workers import Line, Workers

FIRST_SILENCE = 5.0  # seconds that tasks wait in a queue that no worker asks from, before that is said
SECOND_SILENCE = 10.0  # seconds until it is said again; doubled for each that follows
LONGEST_SILENCE = 600.0


class Matching:
    """The tasks that wait, in their queues, and the workers that are ready."""

    def __init__(self, timers: Timers[Any]) -> None:
        self.queues = Queues()
        self.workers = Workers(self.queues)
        self.waiting = 0  # tasks, in all queues
        self._lines = (self.workers.free, self.workers.ahead)  # to be looked at, in this order
        self.unserved: list[Queue] = []  # queues that no worker asks from, to be told of now; the caller clears it
        self._watched: dict[Queue, None] = {}  # queues that have an instant, to say that no worker asks from them
        self._timers = timers  # the broker's

    def put(self, task: Task, now: float) -> None:
        """Have a task wait at the end of its line."""
        queue = task.queue
        queue.append(task)
        self.waiting += 1
        if queue.live == 1:
            self._begin(queue, now)

    def put_first(self, task: Task, now: float) -> None:
        """Have a task wait at the front of its line."""
        queue = task.queue
        queue.append_first(task)
        self.waiting += 1
        if queue.live == 1:
            self._begin(queue, now)

    def withdraw(self, task: Task) -> None:
        """Have a task wait no more."""
        queue = task.queue
        queue.withdraw(task)
        self.waiting -= 1
        if not queue.live:
            queue.is_served = True  # nothing waits there: when something does again, the silence begins anew

    def next(self) -> tuple[Task, Worker] | None:
        """Take the next worker that gets a task, and that task; None when there is no such pair."""
        for lines in self._lines:
            while lines:
                line = lines[0]
                for queue in line.queues if line.idle else ():
                    if queue.is_closed or (line.is_ahead and queue.limit is not None):
                        continue
                    pair = self._match(queue, line)
                    if pair is not None:
                        if len(lines) > 1:
                            lines.rotate(-1)
                        self.waiting -= 1
                        queue.is_served = True
                        return pair
                lines.popleft()
                line.is_to_be_looked_at = False
        return None

    def put_back(self, worker: Worker) -> None:
        """Have a worker be the first of its line again: it needs no task yet."""
        if worker.line is not None:
            worker.line.remove(worker)
        self.workers.place(worker, first=True)

    def come_due(self, queue: Queue, now: float) -> None:
        """See whether a queue has had tasks and no workers for long enough to say so."""
        if not queue.waiting or queue.has_workers:
            self._timers.clear(queue)
            del self._watched[queue]
            queue.said = 0
        elif queue.is_served:  # meanwhile
            self._watch(queue, now)
        else:
            self.unserved.append(queue)
            self._timers.set(queue, now + min(SECOND_SILENCE * 2**queue.said, LONGEST_SILENCE))
            queue.said = min(queue.said + 1, 10)

    def silent(self, most: int) -> Iterator[Queue]:
        """Yield the queues where tasks wait and no worker asks, of so many that may be."""
        return (queue for queue in islice(self._watched, most) if queue.waiting and not queue.has_workers)

    def note_left(self, queues: Iterable[Queue], now: float) -> None:
        """Note that a worker asks no more from these queues: perhaps nobody does, or nobody who is not in doubt."""
        for queue in queues:
            if queue.aside:
                queue.consider()
            if queue.waiting and queue.due is None and not queue.has_workers:
                self._watch(queue, now)

    def _watch(self, queue: Queue, now: float) -> None:
        queue.is_served = False
        queue.said = 0
        self._watched[queue] = None
        self._timers.set(queue, now + FIRST_SILENCE)

    def _begin(self, queue: Queue, now: float) -> None:
        """Note that a queue has tasks from now on."""
        for pool in queue.pools:
            if pool.free.idle:
                pool.free.consider()
            if pool.ahead.idle:
                pool.ahead.consider()
        if queue.due is None and not queue.has_workers:
            self._watch(queue, now)

    def _match(self, queue: Queue, line: Line) -> tuple[Task, Worker] | None:
        """Take a task of a queue for a line, and whom it goes to: nearly always its first worker."""
        if queue.aside:
            task = next(iter(queue.aside))
            worker = self._choose(task, queue, line)
            if worker is not None:
                del queue.aside[task]
                return task, worker
        while queue.live:
            task = queue.pop()
            worker = line.take() if task.worker is NOBODY else self._choose(task, queue, line)
            if worker is not None:
                return task, worker
            queue.aside[task] = None
        return None

    def _choose(self, task: Task, queue: Queue, line: Line) -> Worker | None:
        """Take the first worker of a line for a task that had one, or a better one; None: it waits for another."""
        if task.failed_at and _has_trusted(queue):
            return line.take_trusted() or next(filter(None, (other.take_trusted() for other in _lines(queue))), None)
        worker = line.take()
        if worker.id != task.worker.id:  # nor by another connection, where it chose its own id
            return worker
        if worker.line is not None:
            line.remove(worker)
        for other in (line, *_lines(queue)):
            if other.idle:
                better = other.take()
                line.add(worker, first=True)
                return better
        return worker


def _lines(queue: Queue) -> list[Line]:
    """Return the lines of all workers that ask from a queue and may have its tasks, those that have nothing first."""
    ahead = [pool.ahead for pool in queue.pools] if queue.limit is None else []
    return [*(pool.free for pool in queue.pools), *ahead]


def _has_trusted(queue: Queue) -> bool:
    """Tell whether some that ask from a queue are in doubt, and others are not."""
    doubted = trusted = 0
    for pool in queue.pools:
        doubted += pool.doubted
        trusted += pool.members - pool.doubted
    return doubted > 0 and trusted > 0
