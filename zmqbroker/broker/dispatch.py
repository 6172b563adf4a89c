"""What the broker decides: which task goes to which worker, when it is tried again, and what its client gets.

The states of a task, and the moves between them, are in `tasks`; here is what makes it move. Events come in as method
calls (`submit`, `ready`, `result`, `fail`, ...), time comes in as `now`: float seconds of a monotonic clock. Three
things come out: pairs of an idle worker and a task (`hand_out`), settled tasks whose reply is to be sent (`settled`),
and what workers are to be told (`told`). `next_due` says when `expire` has something to do again.

A serial worker does its tasks in the order in which it got them, so order tells what it has in hand: the first one
that it told no outcome of. Only that one has a deadline, and only that one is an attempt. When it takes longer than
HELD, those that lie behind it wait again, first in line; the worker may do them all the same, if nobody else has begun.

Nothing here knows a socket or a clock. Bodies are passed through and never looked into; an envelope is a list of
frames whose first one names the connection it came by.
"""

from collections.abc import Iterator, Sized
from math import inf

from zmqbroker.broker.intake import Intake
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.statistics import BY_FAIL, BY_LOSS, BY_REJECT, BY_RELEASE, BY_TIMEOUT
from zmqbroker.broker.store.journal import HandOut
from zmqbroker.broker.task import (
    DELAYED,
    EARLIER,
    OVER,
    RUNNING,
    WAITING,
    Fetch,
    Holder,
    Record,
    Task,
    Worker,
)
from zmqbroker.broker.tasks import HELD, Move
from zmqbroker.wire import DONE, Announce, Frames, announced

MOST_DEATHS = 5  # of the broker with a task at a worker, if the number of attempts has no limit
GRACE = 0.1  # seconds in which a worker that is gone may come back, or its result still come in by the other socket


class Dispatcher(Intake):
    """The state of all unsettled tasks and idle workers, and the rules that move them."""

    @property
    def has_news(self) -> bool:
        """Tell whether there is something in `moves`, `lost`, `held_back` or `unserved`."""
        return bool(self.moves or self.lost or self._records.held_back or self._matching.unserved)

    @property
    def held_back(self) -> list[Record]:
        """The records of workers that are held back since this was last cleared."""
        return self._records.held_back

    @property
    def unserved(self) -> list[Queue]:
        """The queues where tasks wait and no worker asks, to be told of now; the caller clears it."""
        return self._matching.unserved

    def unserved_now(self, most: int) -> Iterator[Queue]:
        """Yield the queues where tasks wait and no worker asks right now, of so many that may be."""
        return self._matching.silent(most)

    def undelivered(self, task: Task, connection: Sized) -> None:
        """Note that a reply could not be sent; its client may come back for it if the task has a key."""
        if task.name is not None:
            self._kept.mark_undelivered(task.name, connection)

    # What workers send

    def may_tell(self, attempt_id: Sized, owner: str) -> bool:
        """Tell whether what is said of an attempt counts if somebody says it whose connection has an owner.

        It does if the attempt was handed to a worker of the same one; and if an earlier run of the broker has handed it
        out: then only who has had the task knows the id.
        """
        return self._find_handed_to(owner, attempt_id) is not None

    def ready(self, envelope: Frames, owner: str | None = None) -> None:
        """Count a plain worker as ready for one more task; for `owner` see `announce`."""
        self._workers.ready(envelope, owner)

    def has_announced(self, worker_id: Sized) -> bool:
        """Tell whether the worker at a connection has announced itself."""
        return self._workers.announced(worker_id) is not None

    def announce(
        self,
        worker_id: Sized,
        announce: Announce,
        attempt_ids: list[bytes],
        now: float,
        owner: str | None = None,
    ) -> None:
        """Note who is at a connection, and which attempts it says that it is at, the first first.

        `owner`: whose connection it is; None: nobody's in particular.
        """
        known = self._workers.find(worker_id)
        is_new = known is None or known.announce is None
        left = () if known is None else known.pool.queues
        worker = self._workers.announce(worker_id, announce, owner)
        self._matching.note_left(left, now)
        self._records.meet(worker, announce, now)
        for attempt_id in attempt_ids:
            self._take_over(worker, attempt_id, now)
        self._begin_first(worker, now)
        self._workers.place(worker)
        if is_new:
            self.moves.append(Move(worker, True))

    def ask(self, worker_id: Sized, number: int) -> None:
        """Count an announced worker as ready for so many more tasks."""
        worker = self._workers.announced(worker_id)
        if worker is not None:
            self._workers.ask(worker, number)

    def withdraw(self, worker_id: Sized, number: int) -> None:
        """Count an announced worker as ready for so many less, and tell it so."""
        worker = self._workers.announced(worker_id)
        if worker is not None:
            self._workers.withdraw(worker, number)
            self._tell(worker, announced.WITHDRAWN, b"%d" % number)

    def answer(self, worker_id: Sized, attempt_id: bytes, asks: int, body: Frames, now: float) -> None:
        """Take in the result of an attempt from an announced worker, which asks for so many more tasks."""
        task = self.answered(worker_id, attempt_id, asks, now)
        if task is None or task.attempt_id != attempt_id:
            self.result(attempt_id, body, now)
        else:  # as nearly always: then the task need not be looked for
            self._succeed(task, body, now)

    def answered(self, worker_id: Sized, attempt_id: bytes, asks: int, now: float) -> Task | None:
        """Note that an announced worker told the outcome of an attempt, and asks for so many more tasks.

        What became of the attempt is told by `result`, `fail`, `reject` or `release`, after this. Returns the task as
        the worker has held it; None when it did not.
        """
        worker = self._workers.announced(worker_id)
        if worker is None:
            return None
        held = worker.held
        was_first = next(iter(held), None) == attempt_id
        task = held.pop(attempt_id, None)
        if task is not None and task.holders:
            task.holders = [holder for holder in task.holders if holder.attempt_id != attempt_id]
        if asks:
            worker.slots.extend([[worker.id]] * asks)
        if was_first:
            self._begin_first(worker, now)
        if worker.line is None or not held:  # else it stands where it belongs, with others that have something
            self._workers.place(worker)
        return task

    def result(self, attempt_id: Sized, body: Frames, now: float) -> None:
        """Settle the task with the result of any of its attempts."""
        task = self.in_hand.get(attempt_id) or self._find(attempt_id)
        if task is None:
            return
        if task.attempt_id == attempt_id:
            self._succeed(task, body, now)
        else:
            task.queue.statistics.overtaken += 1
            self._settle(task, DONE, body, now)

    def fail(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Give up the running attempt, as its worker asks.

        One that seemed to lie behind when its worker was lost was in hand after all, if somebody tells now that it
        failed: the outcome of the one before was lost with the worker. So it counts.
        """
        task = self._find(attempt_id)
        if task is None:
            return
        if task.attempt_id == attempt_id:
            self._lose_attempt(task, BY_FAIL, reason, now)
        elif task.left == attempt_id:
            self._charge_left(task, reason, now)
        else:
            self._count_late(task.queue.statistics)

    def reject(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Fail the task for good, as its worker asks."""
        task = self._find_running(attempt_id)
        if task is not None:
            task.queue.statistics.endings[BY_REJECT] += 1
            self._fail(task, reason, now)

    def release(self, attempt_id: Sized, now: float) -> None:
        """Take the task back unexecuted, as its worker asks; the attempt is not charged."""
        task = self._find_running(attempt_id)
        if task is not None:
            task.queue.statistics.endings[BY_RELEASE] += 1
            self._uncharge(task)
            self.counters.released += 1
            self._stop_running(task, now)
            self._wait(task, now)

    def touch(self, attempt_id: Sized, seconds: float | None, now: float) -> None:
        """Move the running attempt's deadline to `now` + `seconds` (None: + its timeout, if there is one).

        One of an earlier run of the broker, that nobody else has told of, always has one.
        """
        task = self._find_running(attempt_id)
        if task is None or task.worker.lost or task.charged != task.attempt_id:
            return
        seconds = task.timeout if seconds is None else seconds
        if seconds is None and task.worker is EARLIER:
            seconds = self._reclaim_within
        if seconds is not None:
            task.deadline = now + seconds
            self._set_due(task, task.deadline)

    def progress(self, attempt_id: Sized, progress: Sized) -> None:
        """Pass on how far a worker is with an attempt."""
        task = self._find_running(attempt_id)
        if task is not None and task.header is not None:
            self.progressed[task] = progress

    # What the loop does and notices

    def hand_out(self, now: float) -> tuple[Frames, Task] | None:
        """Give the first waiting task to an idle worker; None when either is missing.

        Returns the worker's envelope and the task, whose `attempt_id` names the attempt; it is to be sent at once,
        unless it is among what is `unsent` to the worker. One that has the task already, behind another one, does not
        get it anew.
        """
        while (pair := self._matching.next()) is not None:
            task, worker = pair
            if not task.holders or not self._is_behind(task, worker):
                envelope = worker.slots.pop()
                self._start_running(task, worker, envelope, now)
                return envelope, task
        return None

    def _is_behind(self, task: Task, worker: Worker) -> bool:
        """Have a task run where it lies behind what the worker has in hand, which does not know that it waited.

        False when the worker does not have it; others that do are told not to begin it.
        """
        attempt_id = worker.attempt_behind(task)
        if attempt_id is None:
            self._drop_behind(task)
            return False
        self._run_again(task, worker, attempt_id)
        if worker.due is None:
            self._timers.set(worker, worker.since + HELD)
        self._matching.put_back(worker)
        return True

    def begin(self, hand_out: HandOut, now: float) -> bool:
        """Note that a hand-out is stored, and sent now; False: it does not stand any more."""
        _, task, worker, attempt_id = hand_out
        if worker.unsent.pop(attempt_id, None) is None:
            return False
        if worker.has_in_hand(attempt_id):
            worker.since = now
            self._take_in_hand(task, now)
        elif worker.due is None:
            self._timers.set(worker, worker.since + HELD)
        return True

    def take_back(self, task: Task, now: float) -> None:
        """Undo the hand-out of `task`: its worker is gone. No attempt is charged for it."""
        self.counters.gone += 1
        self.counters.attempts -= 1
        worker = task.worker
        worker.held.pop(task.attempt_id, None)
        self._uncharge(task)
        self._wait_first([task], now)
        self.lose_worker(worker.id, now)

    def lose_worker(self, worker_id: Sized, now: float) -> None:
        """Give up what a worker has and is ready for: the connection that names it has dropped.

        What it has in hand is lost after a grace, for a result that is already on its way.
        """
        gone = self._workers.forget(worker_id)
        if gone is None:
            return
        if gone.announce is not None:
            self.moves.append(Move(gone, False))
        self._timers.clear(gone)
        self._records.part(gone)
        self._matching.note_left(gone.pool.queues, now)
        behind = []
        for attempt_id, task in gone.held.items():
            if task.attempt_id != attempt_id:
                task.holders = [holder for holder in task.holders or () if holder.attempt_id != attempt_id]
            elif task.charged != attempt_id:
                behind.append(task)
            else:
                self.counters.lost += 1
                if task.due is None or task.due > now + GRACE:
                    self._timers.set(task, now + GRACE)
        for task in behind:
            task.left = task.attempt_id
        self.counters.taken_back += len(behind)
        self._wait_first(behind, now)

    def expire(self, now: float) -> None:
        """Lose every attempt whose deadline has come; let wait what was delayed, or lies behind for too long."""
        while (due := self._timers.pop_due(now)) is not None:
            if isinstance(due, Task):
                self._come_due(due, now)
            elif isinstance(due, Worker):
                self._see_whether_stuck(due, now)
            elif isinstance(due, Record):
                self._records.come_due(due)
            elif isinstance(due, Fetch):
                self._end_fetch(due)
            else:
                self._matching.come_due(due, now)
        self._kept.expire(now)
        if self.has_store:
            self.journal.expire(now)

    def next_due(self) -> float | None:
        """Return the instant at which `expire` has something to do again; None when nothing is due ever."""
        due, kept = self._timers.next_due(), self._kept.next_due()
        if kept is None or (due is not None and due <= kept):
            kept = due
        if self.has_store:
            stored = self.journal.next_due()
            if kept is None or (stored is not None and stored < kept):
                return stored
        return kept

    # What comes due

    def _come_due(self, task: Task, now: float) -> None:
        if now >= task.expires_at:
            self._expire(task, now)
        elif task.status is DELAYED:
            self._end_delay(task)
            self._wait(task, now)
            if task.is_durable:
                self.journal.note(task)
        elif task.worker is EARLIER:
            self._lose_to_death(task, now)
        elif task.worker.lost:
            self._lose_attempt(task, BY_LOSS, _lost(task), now)
        else:
            self._lose_attempt(task, BY_TIMEOUT, _timed_out(task), now)

    def _lose_to_death(self, task: Task, now: float) -> None:
        """Give up an attempt of an earlier run of the broker, which nobody has told of."""
        if not task.tries and task.deaths >= MOST_DEATHS:
            self._fail(task, f"the broker ended {task.deaths} times while a worker had it", now)
        else:
            self._lose_attempt(task, BY_LOSS, _ended(task), now)

    def _succeed(self, task: Task, body: Frames, now: float) -> None:
        """Settle a task with the result of its running attempt."""
        if task.worker.record is not None or task.failed_at:
            self._records.succeeded(task, now)
        self._settle(task, DONE, body, now)

    # What serial workers have

    def _begin_first(self, worker: Worker, now: float) -> None:
        """Note that the first of what a worker holds is what it has in hand from now on."""
        worker.since = now
        worker.is_stuck = False
        if not (worker.held and worker.is_serial):
            return
        attempt_id, task = next(iter(worker.held.items()))
        if task.status is WAITING or task.status is DELAYED:
            self._stop_waiting(task)
            self._run_again(task, worker, attempt_id)
        if attempt_id in worker.unsent:
            return
        if task.attempt_id == attempt_id and task.charged != attempt_id:  # else done by others, or taken over in hand
            self._take_in_hand(task, now)
        if len(worker.held) > 1 and worker.due is None:
            self._timers.set(worker, now + HELD)

    def _see_whether_stuck(self, worker: Worker, now: float) -> None:
        """Have those wait again that lie behind a task which takes too long."""
        self._timers.clear(worker)
        if len(worker.held) - len(worker.unsent) < 2:
            return
        if now < worker.since + HELD:
            self._timers.set(worker, worker.since + HELD)
            return
        worker.is_stuck = True
        self._workers.place(worker)
        _, *others = worker.held.items()
        behind = [task for attempt_id, task in others if task.attempt_id == attempt_id != task.charged]
        self.counters.taken_back += len(behind)
        self._wait_first(behind, now)

    def _take_over(self, worker: Worker, attempt_id: bytes, now: float) -> None:
        """Take in an attempt that a worker names after it has connected again."""
        task = self._find_handed_to(worker.owner, attempt_id)
        if task is None:
            worker.held[attempt_id] = OVER
            self._tell(worker, announced.CANCEL, attempt_id)
            return
        self._lose_earlier(task, attempt_id, worker, now)
        worker.held[attempt_id] = task
        if task.status is RUNNING and task.worker is EARLIER:
            self._reclaim(task, worker, attempt_id, now)
        elif task.attempt_id == attempt_id:
            task.worker = worker
            self._set_due(task, task.deadline if task.deadline is not None and task.charged == attempt_id else inf)
        elif task.status is RUNNING:
            task.holders = [*(task.holders or ()), Holder(worker, attempt_id)]
        else:
            self._stop_waiting(task)
            self._run_again(task, worker, attempt_id)
            if worker.has_in_hand(attempt_id):
                if task.charged:  # for this attempt, as far as can be told
                    task.charged = attempt_id
                self._take_in_hand(task, now)

    def _reclaim(self, task: Task, worker: Worker, attempt_id: bytes, now: float) -> None:
        """Have an attempt of an earlier run go on, with all its time again; if it lies behind it is no attempt yet."""
        task.worker = worker
        task.attempt_id = task.charged = attempt_id  # if it is not the last one: it had that one still when it ended
        if worker.has_in_hand(attempt_id):
            self._take_in_hand(task, now)
        else:
            self._uncharge(task)
            self._set_due(task, inf)
        self.journal.note(task)

    def _lose_earlier(self, task: Task, attempt_id: bytes, worker: Worker, now: float) -> None:
        """Give up the connection by which an attempt was handed out: who names it by another one has lost that."""
        had = [holder.worker for holder in task.holders or () if holder.attempt_id == attempt_id]
        if task.attempt_id == attempt_id:
            had.append(task.worker)
        for earlier in had:
            if earlier.announce is None:
                earlier.held.pop(attempt_id, None)
            elif earlier is not worker and not earlier.lost:
                self.lose_worker(earlier.id, now)


def _ended(task: Task) -> str:
    """Say in words that the broker ended while a worker had a task, and that nobody has told of it since."""
    limit = f" of {task.tries}" if task.tries else ""
    return f"the broker ended while a worker had it ({task.attempts}{limit} attempts)"


def _lost(task: Task) -> str:
    """Say in words that the worker of the running attempt is gone."""
    name = task.worker.name
    return f"the worker was lost: {name}" if name else "the worker was lost"


def _timed_out(task: Task) -> str:
    """Say in words that the running attempt has come to its deadline."""
    waited = (task.deadline or 0.0) - task.since
    limit = f" of {task.tries}" if task.tries else ""
    where = f" at {task.worker.name}" if task.worker.name else ""
    return f"timed out after {round(waited, 3):g} s ({task.attempts}{limit} attempts){where}"
