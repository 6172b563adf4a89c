"""The workers that there are, what each has, and which of them are ready for a task.

A plain worker says *ready* once for each task. A worker that has announced itself asks for several, and says what came
of each by the same connection. If it is *serial* it does them in the order in which it got them: so the first one
without an outcome is in hand, and the others lie behind.

Whoever is ready stands in one of two lines: those that have nothing, and plain ones, come before those that ask ahead.
A worker that stands there no more, or in the other one, leaves a stale entry behind, to be passed over later.
"""

from collections import deque
from collections.abc import Sized
from itertools import count

from zmqbroker.broker.task import Worker
from zmqbroker.wire import Announce, Frames

STALE_KEPT = 1000  # fewer stale entries of a line are not worth a rebuild

Line = deque[tuple[int, Worker]]  # each with the ticket of its entry


class Workers:
    """Workers by their connection; those ready for a task in the order in which they became so.

    A worker that is ready for several goes to the end of its line when it gets one, so workers take turns.
    """

    def __init__(self) -> None:
        self.idle = 0  # workers in a line
        self._workers: dict[Sized, Worker] = {}  # by connection
        self._free: Line = deque()
        self._ahead: Line = deque()  # of those that have something
        self._next_ticket = count(1).__next__

    def __len__(self) -> int:
        return len(self._workers)

    def find(self, worker_id: Sized) -> Worker | None:
        """Return the worker of a connection, if it is known."""
        return self._workers.get(worker_id)

    def announced(self, worker_id: Sized) -> Worker | None:
        """Return the worker of a connection that has announced itself; None: it has not."""
        worker = self._workers.get(worker_id)
        return None if worker is None or worker.announce is None else worker

    def announce(self, worker_id: Sized, announce: Announce) -> Worker:
        """Note who is at a connection."""
        worker = self._workers.setdefault(worker_id, Worker(worker_id))
        worker.announce = announce
        return worker

    def ready(self, envelope: Frames) -> None:
        """Note that a plain worker is ready for one more task."""
        worker = self._workers.get(envelope[0])
        if worker is None:
            worker = self._workers[envelope[0]] = Worker(envelope[0])
        worker.slots.append(envelope)
        if worker.line is None:
            self.place(worker)

    def ask(self, worker: Worker, number: int) -> None:
        """Note that a worker that has announced itself is ready for so many more tasks."""
        worker.slots.extend([[worker.id]] * number)
        self.place(worker)

    def withdraw(self, worker: Worker, number: int) -> None:
        """Note that it is ready for so many less."""
        del worker.slots[max(len(worker.slots) - number, 0) :]
        self.place(worker)

    def pop(self, last: Worker) -> tuple[Frames, Worker]:
        """Use one ready message, of the worker that had the task last only if there is no other; one must be idle."""
        worker = self._take()
        if worker.id == last.id and self.idle:  # also by another connection, where it chose its own id
            other = self._take()
            self.place(worker, first=True)
            worker = other
        return worker.slots.pop(), worker

    def pop_trusted(self, now: float) -> tuple[Frames, Worker] | None:
        """Use one ready message of a worker that is not in doubt; None when no such one is idle."""
        passed = []
        found = None
        while self.idle and found is None:
            worker = self._take()
            if worker.record is not None and worker.record.is_in_doubt(now):
                passed.append(worker)
            else:
                found = worker.slots.pop(), worker
        for worker in reversed(passed):
            self.place(worker, first=True)
        return found

    def place(self, worker: Worker, first: bool = False) -> None:
        """Have a worker stand in the line where it belongs now, if in any."""
        if not worker.slots or not worker.may_have_more:
            right = None
        elif worker.announce is None or not worker.held:
            right = self._free
        else:
            right = self._ahead
        if worker.line is right:
            return
        if worker.line is None:
            self.idle += 1
        worker.line = right
        if right is None:
            self.idle -= 1
            self._forget_stale()
            return
        worker.ticket = self._next_ticket()
        if first:
            right.appendleft((worker.ticket, worker))
        else:
            right.append((worker.ticket, worker))

    def leave(self, worker: Worker, attempt_id: bytes) -> None:
        """Note that a plain worker is not at an attempt any more."""
        worker.held.pop(attempt_id, None)
        if not worker.held and not worker.slots and not worker.lost:
            del self._workers[worker.id]

    def forget(self, worker_id: Sized) -> Worker | None:
        """Forget a worker whose connection has dropped, and what it was ready for; None when it is not known."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            worker.lost = True
            worker.slots.clear()
            self.place(worker)
        return worker

    def _take(self) -> Worker:
        """Take the first worker out of its line."""
        while True:
            line = self._free or self._ahead
            ticket, worker = line.popleft()
            if worker.line is line and worker.ticket == ticket:
                worker.line = None
                self.idle -= 1
                return worker

    def _forget_stale(self) -> None:
        for line in (self._free, self._ahead):
            if len(line) > 2 * self.idle + STALE_KEPT:
                live = [(ticket, worker) for ticket, worker in line if worker.line is line and worker.ticket == ticket]
                line.clear()
                line.extend(live)
