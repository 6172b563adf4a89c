"""The workers that there are, what each has, and which of them are ready for a task.

A plain worker says *ready* once for each task. A worker that has announced itself asks for several, and says what came
of each by the same connection. If it is *serial* it does them in the order in which it got them: so the first one
without an outcome is in hand, and the others lie behind.

Workers that ask from the same queues are a *pool*. Whoever is ready stands in one of its two lines: those that have
nothing, and plain ones, come before those that ask ahead. A worker that stands there no more, or in the other one,
leaves a stale entry behind, to be passed over later. A line where somebody has come, or for which there may be a task
now, is *to be looked at*, until that was in vain.
"""

from collections import deque
from collections.abc import Iterator, Sized
from itertools import count

from zmqbroker.broker.queues import Queue, Queues
from zmqbroker.broker.task import Worker
from zmqbroker.wire import Announce, Frames

STALE_KEPT = 1000  # fewer stale entries of a line are not worth a rebuild


class Line:
    """Workers of a pool that are ready, in the order in which they became so; those in doubt stand apart."""

    __slots__ = (
        "_doubted",
        "_entries",
        "_look_at",
        "_next_first",
        "_next_ticket",
        "idle",
        "is_ahead",
        "is_to_be_looked_at",
        "queues",
    )

    def __init__(self, queues: tuple[Queue, ...], is_ahead: bool, look_at: "deque[Line]") -> None:
        self.queues = queues
        self.is_ahead = is_ahead  # of workers that have something
        self.idle = 0
        self.is_to_be_looked_at = False
        self._look_at = look_at
        self._entries: deque[tuple[int, Worker]] = deque()  # each with the ticket of its entry, the lowest first
        self._doubted: deque[tuple[int, Worker]] = deque()  # the same, of those in doubt
        self._next_ticket = count(1).__next__
        self._next_first = count(-1, -1).__next__

    def consider(self) -> None:
        """Have it looked at whether there is a task for the first one."""
        if self.idle and not self.is_to_be_looked_at:
            self.is_to_be_looked_at = True
            self._look_at.append(self)

    def add(self, worker: Worker, first: bool = False) -> None:
        """Have a worker stand here, at the end or (`first`) at the front."""
        worker.line = self
        record = worker.record
        entries = self._doubted if record is not None and record.is_in_doubt else self._entries
        if first:
            worker.ticket = self._next_first()
            entries.appendleft((worker.ticket, worker))
        else:
            worker.ticket = self._next_ticket()
            entries.append((worker.ticket, worker))
        self.idle += 1
        if not self.is_to_be_looked_at:
            self.is_to_be_looked_at = True
            self._look_at.append(self)

    def remove(self, worker: Worker) -> None:
        """Have a worker stand here no more."""
        worker.line = None
        self.idle -= 1
        if len(self._entries) + len(self._doubted) > 2 * self.idle + STALE_KEPT:
            self._entries = deque(entry for entry in self._entries if self._is_live(entry))
            self._doubted = deque(entry for entry in self._doubted if self._is_live(entry))

    def take(self) -> Worker:
        """Take the first worker; there must be one."""
        if not self._doubted:
            ticket, worker = entry = self._entries.popleft()
            while worker.line is not self or worker.ticket != ticket:
                ticket, worker = entry = self._entries.popleft()
            if len(worker.slots) > 1 and (self.is_ahead or worker.announce is None):  # it stays, at the end
                self._entries.append(entry)
            else:
                worker.line = None
                self.idle -= 1
            return worker
        self._drop_stale(self._entries)
        self._drop_stale(self._doubted)
        first, *others = [entries for entries in (self._entries, self._doubted) if entries]
        return self._take(others[0] if others and others[0][0] < first[0] else first)

    def take_trusted(self) -> Worker | None:
        """Take the first worker that is not in doubt; None when there is none."""
        self._drop_stale(self._entries)
        return self._take(self._entries) if self._entries else None

    def _take(self, entries: deque[tuple[int, Worker]]) -> Worker:
        while True:
            ticket, worker = entries.popleft()
            if worker.line is self and worker.ticket == ticket:
                worker.line = None
                self.idle -= 1
                return worker

    def _drop_stale(self, entries: deque[tuple[int, Worker]]) -> None:
        while entries and not self._is_live(entries[0]):
            entries.popleft()

    def _is_live(self, entry: tuple[int, Worker]) -> bool:
        ticket, worker = entry
        return worker.line is self and worker.ticket == ticket


class Pool:
    """Workers that ask from the same queues, the first first."""

    def __init__(self, queues: tuple[Queue, ...], free: "deque[Line]", ahead: "deque[Line]") -> None:
        self.queues = queues
        self.free = Line(queues, False, free)
        self.ahead = Line(queues, True, ahead)
        self.members = 0
        self.doubted = 0  # members that are in doubt: see `records`
        for queue in queues:
            queue.pools.append(self)

    def consider(self) -> None:
        """Have it looked at whether there are tasks for those that are ready."""
        if self.free.idle:
            self.free.consider()
        if self.ahead.idle:
            self.ahead.consider()

    def consider_aside(self) -> None:
        """Have it looked at who may have the tasks that wait for a worker that is not in doubt."""
        for queue in self.queues:
            if queue.aside:
                queue.consider()


class Workers:
    """Workers by their connection; those ready for a task in the order in which they became so.

    A worker that is ready for several goes to the end of its line when it gets one, so workers take turns.
    """

    def __init__(self, queues: Queues) -> None:
        self.free: deque[Line] = deque()  # lines to be looked at, of workers that have nothing
        self.ahead: deque[Line] = deque()  # and of those that have something
        self._queues = queues
        self._workers: dict[Sized, Worker] = {}  # by connection
        self._plain = Pool((queues.default,), self.free, self.ahead)
        self._pools: dict[tuple[str, ...], Pool] = {(queues.default.name,): self._plain}

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def idle(self) -> int:
        """The number of workers that stand in a line."""
        return sum(pool.free.idle + pool.ahead.idle for pool in self._pools.values())

    def find(self, worker_id: Sized) -> Worker | None:
        """Return the worker of a connection, if it is known."""
        return self._workers.get(worker_id)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def announced(self, worker_id: Sized) -> Worker | None:
        """Return the worker of a connection that has announced itself; None: it has not."""
        worker = self._workers.get(worker_id)
        return None if worker is None or worker.announce is None else worker

    def announce(self, worker_id: Sized, announce: Announce, owner: str | None = None) -> Worker:
        """Note who is at a connection, and which queues it asks from; `owner`: whose it is; None: nobody's."""
        worker = self._workers.get(worker_id)
        pool = self._pool(announce.queues)
        if worker is None:
            worker = self._meet(worker_id, pool)
        elif worker.pool is not pool:
            if worker.line is not None:
                worker.line.remove(worker)
            self._leave_pool(worker)
            self._join_pool(worker, pool)
        worker.announce, worker.owner = announce, owner
        worker.is_serial, worker.wants_headers = announce.serial, announce.headers
        return worker

    def ready(self, envelope: Frames, owner: str | None = None) -> None:
        """Note that a plain worker is ready for one more task; for `owner` see `announce`."""
        worker = self._workers.get(envelope[0]) or self._meet(envelope[0], self._plain, owner)
        worker.slots.append(envelope)
        if worker.line is None:
            self.put_last(worker)

    def ask(self, worker: Worker, number: int) -> None:
        """Note that a worker that has announced itself is ready for so many more tasks."""
        worker.slots.extend([[worker.id]] * number)
        self.place(worker)

    def withdraw(self, worker: Worker, number: int) -> None:
        """Note that it is ready for so many less."""
        del worker.slots[max(len(worker.slots) - number, 0) :]
        self.place(worker)

    def place(self, worker: Worker, first: bool = False) -> None:
        """Have a worker stand in the line where it belongs now, if in any."""
        if not worker.slots:
            right = None
        elif worker.announce is None:
            right = worker.pool.free
        elif not worker.may_have_more:
            right = None
        else:
            right = worker.pool.ahead if worker.held else worker.pool.free
        if worker.line is right:
            return
        if worker.line is not None:
            worker.line.remove(worker)
        if right is not None:
            right.add(worker, first)

    def put_last(self, worker: Worker) -> None:
        """Have a worker that was taken from its line, and is ready for more, stand at the end of the right one."""
        if worker.announce is None:
            worker.pool.free.add(worker)
        else:
            self.place(worker)

    def note_doubt(self, worker: Worker, more: int) -> None:
        """Note that a worker is in doubt (`more` is 1), or not any more (-1): it goes to the end of its line."""
        worker.pool.doubted += more
        line = worker.line
        if line is not None:
            line.remove(worker)
            line.add(worker)
        worker.pool.consider_aside()

    def forget(self, worker_id: Sized) -> Worker | None:
        """Forget a worker whose connection has dropped, and what it was ready for; None when it is not known."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            worker.lost = True
            worker.slots.clear()
            self.place(worker)
            self._leave_pool(worker)
        return worker

    def _meet(self, worker_id: Sized, pool: Pool, owner: str | None = None) -> Worker:
        worker = self._workers[worker_id] = Worker(worker_id, pool)
        worker.owner = owner
        pool.members += 1
        return worker

    def _join_pool(self, worker: Worker, pool: Pool) -> None:
        worker.pool = pool
        pool.members += 1
        pool.doubted += worker.record is not None and worker.record.is_in_doubt

    def _pool(self, names: tuple[str, ...]) -> Pool:
        pool = self._pools.get(names)
        if pool is None:
            pool = self._pools[names] = Pool(tuple(map(self._queues.find, names)), self.free, self.ahead)
        return pool

    def _leave_pool(self, worker: Worker) -> None:
        """Count a worker less in its pool, and forget a pool without workers."""
        pool = worker.pool
        pool.members -= 1
        pool.doubted -= worker.record is not None and worker.record.is_in_doubt
        if pool.members or pool is self._plain:
            return
        del self._pools[tuple(queue.name for queue in pool.queues)]
        for queue in pool.queues:
            queue.pools.remove(pool)
            self._queues.forget_if_empty(queue)
