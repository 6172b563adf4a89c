"""All unsettled tasks, and the moves between their states.

    waiting -> running -> settled: done, failed, cancelled, expired or unavailable
       ^          |
       +----------+  the attempt was lost and tries are left; with a retry delay the task is *delayed* in between

What makes them move is in `dispatch`. Nothing here knows a socket or a clock: time comes in as `now`, float seconds of
a monotonic clock.
"""

import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Sized
from functools import partial
from math import inf
from typing import NamedTuple

from zmqbroker.broker.attempt_ids import AttemptIds
from zmqbroker.broker.counters import Counters
from zmqbroker.broker.kept import KeptReplies
from zmqbroker.broker.ledger import Ledger
from zmqbroker.broker.matching import Matching
from zmqbroker.broker.queues import Queue, Queues
from zmqbroker.broker.records import Records
from zmqbroker.broker.statistics import (
    MOST_FAILURES,
    MOST_OUTLIVED,
    Failure,
    Statistics,
)
from zmqbroker.broker.store.journal import Journal
from zmqbroker.broker.task import (
    DELAYED,
    RUNNING,
    WAITING,
    Fetch,
    Holder,
    Name,
    Record,
    Task,
    Worker,
    name_of,
)
from zmqbroker.broker.timers import Timers
from zmqbroker.broker.workers import Workers
from zmqbroker.wire import (
    CANCELLED,
    DONE,
    EXPIRED,
    FAILED,
    UNAVAILABLE,
    Frames,
    announced,
)

MOST_HANDED_TO = 16  # attempts at a task whose workers' owners may speak for them, the last ones
HELD = 0.01  # seconds; a task in hand for longer holds up those behind it


class Told(NamedTuple):
    """What a worker is to be told."""

    worker_id: Sized
    verb: bytes  # DROP, CANCEL or WITHDRAWN
    what: bytes  # an attempt id, or a number


class Move(NamedTuple):
    """A worker that has announced itself, or whose connection has dropped since."""

    worker: Worker
    has_come: bool


class Tasks:
    """All unsettled tasks: where they wait, at whom they run, and what was counted of them."""

    def __init__(self, run: bytes, random_bytes: Callable[[int], bytes], journal: Journal | None) -> None:
        """Start without any; for all of these see `Dispatcher`."""
        self.counters = Counters()
        self.settled: list[Task] = []  # whose reply is to be sent; the caller clears it
        self.lost: list[tuple[Task, float]] = []  # tasks to be tried again, after so many seconds; the caller clears it
        self.told: list[Told] = []  # what workers are to be told; the caller clears it
        self.progressed: dict[Task, Sized] = {}  # how far tasks have come, to be passed on; the caller clears it
        self.moves: list[Move] = []  # workers that have come or left; the caller clears it
        self.delayed = 0
        self.ledger: Ledger[Task] = Ledger()  # the unsettled ones
        self.in_hand: dict[Sized, Task] = {}  # those that a worker is at, by attempt id, the longest first
        self.failures: deque[Failure] = deque(maxlen=MOST_FAILURES)  # the last ones
        self._run = run
        self._ids = AttemptIds(run, random_bytes)
        self._timers: Timers[Task | Worker | Record | Queue | Fetch] = Timers()  # when something happens by itself
        self._matching = Matching(self._timers)
        self._queues, self._workers = self._matching.queues, self._matching.workers
        self._records = Records(self._workers, self.counters, self._timers)
        self._outlived: OrderedDict[int, Statistics] = OrderedDict()  # of settled ones by number: see `_expect_late`
        self._by_name: dict[Name, Task] = {}  # the unsettled tasks that have a key
        self.owners: set[str] = set()  # whose tasks there were
        self._kept = KeptReplies()
        self.journal = journal or Journal()  # without a store nothing comes into it
        self.has_store = journal is not None

    @property
    def queues(self) -> Queues:
        """All queues."""
        return self._matching.queues

    @property
    def workers(self) -> Workers:
        """All workers."""
        return self._matching.workers

    def known_by(self, name: Name) -> Task | None:
        """Return the unsettled task of a name; None: there is none."""
        return self._by_name.get(name)

    @property
    def waiting(self) -> int:
        """The number of tasks that an idle worker would get now."""
        return self._matching.waiting

    @property
    def running(self) -> int:
        """The number of tasks that were handed out, and whose attempt may still succeed."""
        return len(self.ledger) - self._matching.waiting - self.delayed

    @property
    def idle(self) -> int:
        """The number of workers with an unused ready message."""
        return self._workers.idle

    @property
    def unsettled(self) -> int:
        """The number of tasks whose reply has not been decided."""
        return len(self.ledger)

    # How a task moves

    def _wait(self, task: Task, now: float) -> None:
        task.status = WAITING
        task.since = now
        self._set_due(task, inf)
        self._matching.put(task, now)

    def _wait_first(self, tasks: list[Task], now: float) -> None:
        """Have running tasks that nobody has in hand wait again, in this order, before all others."""
        for task in reversed(tasks):
            self._stop_running(task, now)
            task.status = WAITING
            self._set_due(task, inf)
            self._matching.put_first(task, now)

    def _delay(self, task: Task, until: float) -> None:
        task.status = DELAYED
        self.delayed += 1
        task.queue.delayed += 1
        self._set_due(task, until)

    def _end_delay(self, task: Task) -> None:
        self.delayed -= 1
        task.queue.delayed -= 1
        self._timers.clear(task)

    def _set_due(self, task: Task, due: float) -> None:
        """Have something happen to a task at an instant (inf: never), or when it expires, if that comes first."""
        if due > task.expires_at:
            due = task.expires_at
        if due < inf:
            self._timers.set(task, due)
        else:
            self._timers.clear(task)

    def _start_running(self, task: Task, worker: Worker, envelope: Frames, now: float) -> None:
        """Hand out a task: at once, unless that is to be stored first, or something else to its worker is."""
        if not task.hand_outs:
            if not task.token:
                task.token = self._ids.next_token()
            task.rank -= 1
        if task.is_durable:
            self.journal.note(task)
        task.hand_outs += 1
        attempt_id = task.attempt_id = self._ids.make(task.number, task.hand_outs, task.token)
        task.status = RUNNING
        task.worker = worker
        self.counters.attempts += 1
        queue = task.queue
        queue.running += 1
        if queue.limit is not None:
            queue.update()
        is_first = not worker.held
        worker.held[attempt_id] = task
        if worker.owner is not None:
            self._note_handed_to(task, worker.owner)
        if is_first:
            worker.since = now
        if task.is_durable or worker.unsent:
            worker.unsent[attempt_id] = envelope
        elif is_first or not worker.is_serial:
            self._take_in_hand(task, now)
        elif worker.due is None:
            self._timers.set(worker, worker.since + HELD)
        if worker.slots and worker.line is None:
            self._workers.put_last(worker)

    def _note_handed_to(self, task: Task, owner: str) -> None:
        """Note whose worker the running attempt is at: nobody else may speak for it."""
        handed_to = task.handed_to = task.handed_to or {}
        handed_to[task.attempt_id] = owner
        if len(handed_to) > MOST_HANDED_TO:
            del handed_to[next(iter(handed_to))]

    def _call_back(self, task: Task) -> None:
        """Undo a hand-out before it was sent: the worker is as ready as it was."""
        worker = task.worker
        envelope = worker.unsent.pop(task.attempt_id)
        worker.held.pop(task.attempt_id, None)
        self.counters.attempts -= 1
        if not worker.lost:
            worker.slots.append(envelope)
            self._workers.place(worker)

    def _drop_behind(self, task: Task) -> None:
        """Tell those who have a task behind another one not to begin it: it is handed to somebody else."""
        for holder in task.holders or ():
            if not holder.worker.has_in_hand(holder.attempt_id):
                self._tell(holder.worker, announced.DROP, holder.attempt_id)

    def _stop_waiting(self, task: Task) -> None:
        if task.status is WAITING:
            self._matching.withdraw(task)
            self._timers.clear(task)
        else:
            self._end_delay(task)

    def _run_again(self, task: Task, worker: Worker, attempt_id: bytes) -> None:
        """Have a task that waits no more run under an earlier attempt that its worker still has."""
        if task.holders:
            task.holders = [holder for holder in task.holders if holder.attempt_id != attempt_id]
        task.attempt_id = attempt_id
        task.status = RUNNING
        task.worker = worker
        if task.is_durable:
            self.journal.note(task)
        task.queue.running += 1
        if task.queue.limit is not None:
            task.queue.update()
        self._set_due(task, inf)

    def _take_in_hand(self, task: Task, now: float) -> None:
        """Charge the running attempt: its worker has it in hand from now on."""
        attempt_id = task.attempt_id
        if task.charged != attempt_id:
            task.charged = attempt_id
            task.attempts += 1
        task.queue.statistics.waited.add(now - task.since)
        task.since = now
        self.in_hand[attempt_id] = task  # the last one: who was in hand has left
        if task.timeout is None:
            task.deadline = None
            return
        deadline = task.deadline = now + task.timeout
        self._timers.set(task, deadline if deadline < task.expires_at else task.expires_at)

    def _charge(self, task: Task) -> None:
        if task.charged != task.attempt_id:
            task.charged = task.attempt_id
            task.attempts += 1

    def _uncharge(self, task: Task) -> None:
        if task.charged == task.attempt_id:
            task.charged = b""
            task.attempts -= 1

    def _stop_running(self, task: Task, now: float) -> None:
        queue = task.queue
        queue.running -= 1
        if queue.limit is not None:
            queue.update()
        worker = task.worker
        if worker.unsent and task.attempt_id in worker.unsent:
            self._call_back(task)
        elif worker.announce is None or worker.lost:
            worker.held.pop(task.attempt_id, None)
        elif task.attempt_id in worker.held:
            task.holders = [*(task.holders or ()), Holder(worker, task.attempt_id)]
        if task.is_durable:
            self.journal.note(task)
        if self.in_hand.pop(task.attempt_id, None):
            queue.statistics.ran.add(now - task.since)
        task.attempt_id = b""
        self._timers.clear(task)

    def _lose_attempt(self, task: Task, ending: str, reason: str, now: float) -> None:
        task.queue.statistics.endings[ending] += 1
        self._charge(task)
        self._records.failed(task, now)
        if task.tries and task.attempts >= task.tries:
            self._fail(task, reason, now)
            return
        task.reason = reason
        self.counters.retried += 1
        self._stop_running(task, now)
        pause = task.back_off.after(task.attempts)
        self.lost.append((task, pause))
        if pause:
            self._delay(task, now + pause)
        else:
            self._wait(task, now)

    def _charge_left(self, task: Task, reason: str, now: float) -> None:
        task.left = b""
        task.attempts += 1
        task.reason = reason
        if task.is_durable:
            self.journal.note(task)
        if task.status is not RUNNING and task.tries and task.attempts >= task.tries:
            self._fail(task, reason, now)

    def _fail(self, task: Task, reason: str, now: float) -> None:
        task.reason = reason
        self._settle(task, FAILED, [], now)

    def _expire(self, task: Task, now: float) -> None:
        """Settle a task that has no result in time."""
        expires = 0.0 if task.header is None else task.header.expires or 0.0
        within = round(expires, 2) or expires  # a client tells what is left of it
        task.reason = f"no result within {within:g} s" + (f" ({task.reason})" if task.reason else "")
        self._settle(task, EXPIRED, [], now)

    def _settle(self, task: Task, status: str, body: Frames, now: float) -> None:
        if task.status is RUNNING:
            self._stop_running(task, now)
        else:
            self._stop_waiting(task)
        task.status = status
        if task.holders:
            self._call_off(task)
        self.ledger.remove(task.number)
        task.body = body
        queue = task.queue
        if status is DONE:
            self.counters.done += 1
            queue.statistics.done += 1
            if task.hand_outs > 1:
                self._expect_late(task)
        else:
            self._count_undone(task, now)
        if not queue.pools:  # it has workers as a rule
            self._queues.forget_if_empty(queue)
        key = None if task.header is None else task.header.key
        if key is not None:
            name = key if task.owner is None else name_of(key, task.owner)
            del self._by_name[name]
            if task.fetches:
                self._end_fetches(task)
            if task.is_durable:
                self._settle_stored(task, now)
                return
            if status is not UNAVAILABLE:
                self._kept.add(name, task, now)
        self.settled.append(task)

    def _settle_stored(self, task: Task, now: float) -> None:
        """Have an outcome stored, and sent then. What is left when the broker ends stays in the store as it is."""
        if task.status is UNAVAILABLE:
            self.journal.leave(task)
            self.settled.append(task)
            return
        self.journal.settle(task, now)
        if any(waiter.header is not None and waiter.header.forget for waiter in task.waiters):
            self.journal.after(partial(self.journal.forget, task.name or "", task.number))  # not before it is sent

    def _end_fetches(self, task: Task) -> None:
        """Note that those who fetch a task get its outcome, and no word before."""
        for fetch in task.fetches or ():
            self._timers.clear(fetch)
        task.fetches = None

    def _count_undone(self, task: Task, now: float) -> None:
        """Count a task that was settled without a result, and remember it."""
        if task.hand_outs:
            self._expect_late(task)
        counters, statistics = self.counters, task.queue.statistics
        if task.status is FAILED:
            counters.failed += 1
            statistics.failed += 1
        elif task.status is EXPIRED:
            counters.expired += 1
            statistics.expired += 1
        elif task.status is CANCELLED:
            counters.cancelled += 1
            statistics.cancelled += 1
        else:
            counters.unfinished += 1
            statistics.unfinished += 1
        if task.status is not CANCELLED:
            self.failures.append(Failure.of(task, now))

    def _expect_late(self, task: Task) -> None:
        """Remember where a settled task came from, as an attempt of it may have a result yet; the last ones only."""
        self._outlived[task.number] = task.queue.statistics
        if len(self._outlived) > MOST_OUTLIVED:
            self._outlived.popitem(last=False)

    def _call_off(self, task: Task) -> None:
        """Tell all who have a task that nobody wants it any more."""
        for holder in task.holders or ():
            is_at = holder.worker.has_in_hand(holder.attempt_id)
            self._tell(holder.worker, announced.CANCEL if is_at else announced.DROP, holder.attempt_id)
        task.holders = None

    def _tell(self, worker: Worker, verb: bytes, what: bytes) -> None:
        if not worker.lost:
            self.told.append(Told(worker.id, verb, what))

    # How tasks are found

    def _find(self, attempt_id: Sized) -> Task | None:
        """Return the unsettled task whose attempt this is or was; else count the message and return None."""
        try:
            run, number, hand_out, token = self._ids.read(attempt_id)
        except struct.error:  # it has another length
            self.counters.malformed += 1
            return None
        task = self.ledger.get(number) if run == self._run else None
        if task is None:
            self._count_late(self._outlived.get(number) if run == self._run else None)
            return None
        if token != task.token or not 1 <= hand_out <= task.hand_outs:
            self.counters.malformed += 1
            return None
        return task

    def _find_handed_to(self, owner: str | None, attempt_id: Sized) -> Task | None:
        """Return what `_find` does if the attempt may have gone to a worker of somebody; else count the message too."""
        task = self._find(attempt_id)
        if task is not None and not task.was_handed_to(owner, attempt_id):
            self.counters.malformed += 1
            return None
        return task

    def _find_running(self, attempt_id: Sized) -> Task | None:
        """Return the task if this is its running attempt; else count the message and return None."""
        task = self._find(attempt_id)
        if task is not None and task.attempt_id != attempt_id:
            self._count_late(task.queue.statistics)
            return None
        return task

    def _count_late(self, statistics: Statistics | None) -> None:
        """Count what came too late, also at its queue; None: that is not known any more."""
        self.counters.late += 1
        if statistics is not None:
            statistics.late += 1
