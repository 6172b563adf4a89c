"""What the broker decides: which task goes to which worker, when it is tried again, and what its client gets.

The life of a task:

    submit -> waiting -> running -> settled: done, failed or cancelled
                 ^          |
                 +----------+  the attempt was lost and tries are left; with a retry delay
                               the task is *delayed* in between

Events come in as method calls (`submit`, `ready`, `result`, `fail`, ...), time comes in as `now`: float seconds
of a monotonic clock. Two things come out: pairs of an idle worker and a task (`hand_out`), and settled tasks
whose reply is to be sent (`settled`). `next_due` says when `expire` has something to do again.

Nothing here knows a socket or a clock. Bodies are passed through and never looked into; an envelope is a list of
frames whose first one names the connection it came by.
"""

import struct
from collections.abc import Sized
from dataclasses import dataclass
from itertools import count

from zmqbroker.broker.kept import KeptReplies
from zmqbroker.broker.queues import Timers, WaitingTasks, Workers
from zmqbroker.broker.task import DELAYED, RUNNING, WAITING, Task, Worker
from zmqbroker.wire import CANCELLED, DONE, FAILED, INVALID, UNAVAILABLE, Frames, Header, is_same

DEFAULT_TRIES = 3
GRACE = 0.1  # seconds in which the result of a worker that is gone may still come in by the other socket


@dataclass(slots=True)
class Counters:
    """What happened so far, in numbers of tasks, attempts or messages."""

    accepted: int = 0  # tasks taken in
    done: int = 0  # tasks settled with a result
    failed: int = 0  # tasks settled without one
    cancelled: int = 0  # tasks settled because their client asked for it
    unfinished: int = 0  # tasks left when the broker ended, whose clients were told to send them again
    joined: int = 0  # requests that joined an unsettled task, or got a reply that was kept
    refused: int = 0  # proper requests that became no task: too large, while shutting down, nothing to cancel
    attempts: int = 0  # hand-outs, without those that found their worker gone
    retried: int = 0  # attempts lost with another one to come
    released: int = 0  # attempts given back unexecuted
    late: int = 0  # results for tasks settled (or never seen), and verbs for attempts not running
    malformed: int = 0  # messages that fit no rule of the protocol
    undeliverable: int = 0  # replies whose client was gone or did not read
    gone: int = 0  # idle workers found gone at hand-out
    lost: int = 0  # connections of busy workers that dropped


class Dispatcher:
    """The state of all unsettled tasks and idle workers, and the rules that move them."""

    def __init__(
        self,
        *,
        tries: int | None = DEFAULT_TRIES,
        timeout: float | None = None,
        retry_delay: float = 0.0,
        run: bytes = b"",
    ) -> None:
        """Start with nothing to do.

        `tries` limits the attempts of a task, `timeout` is in seconds per attempt (0 or None: no limit), `retry_delay`
        is in seconds. `run` starts every attempt id: random bytes, so that ids of an earlier run match nothing.
        """
        self.tries = tries or 0
        self.timeout = timeout or None
        self.retry_delay = retry_delay
        self.counters = Counters()
        self.settled: list[Task] = []  # whose reply is to be sent; the caller clears it
        self.delayed = 0
        self.running = 0
        self._refusing = ""  # why there are no new tasks; empty: there are
        self._run = run
        self._attempt_id = struct.Struct(f">{len(run)}sQQ")  # the run, the task's number, the number of the hand-out
        self._next_number = count(1).__next__
        self._waiting = WaitingTasks()
        self._workers = Workers()
        self._timers = Timers()  # deadlines and delays
        self._handed_out: dict[int, Task] = {}  # by number: the unsettled tasks that were running at least once
        self._by_key: dict[str, Task] = {}  # the unsettled tasks that have a key
        self._kept = KeptReplies()

    @property
    def waiting(self) -> int:
        """The number of tasks that an idle worker would get now."""
        return self._waiting.live

    @property
    def idle(self) -> int:
        """The number of workers with an unused ready message."""
        return self._workers.idle

    @property
    def unsettled(self) -> int:
        """The number of tasks whose reply has not been decided."""
        return self._waiting.live + self.delayed + self.running

    # What clients send

    def submit(self, envelope: Frames, body: Frames, now: float, header: Header | None = None) -> None:
        """Take in a request: a new task, or what its header says."""
        if header is not None and header.key is not None and self._is_about_known(header.key, envelope, header, now):
            return
        if self._refusing:
            self.refuse(envelope, header, FAILED if header is None else UNAVAILABLE, self._refusing)
            return
        if header is None:
            task = Task(envelope, body, self.tries, self.timeout)
        else:
            tries = self.tries if header.tries is None else header.tries
            timeout = self.timeout if header.timeout is None else header.timeout or None
            task = Task(envelope, body, tries, timeout, header)
            if header.key is not None:
                self._by_key[header.key] = task
        self.counters.accepted += 1
        if header is not None and header.delay:
            self._delay(task, now + header.delay)
        else:
            self._waiting.append(task)

    def refuse(self, envelope: Frames, header: Header | None, status: str, reason: str) -> None:
        """Answer a request that becomes no task: INVALID, or FAILED or UNAVAILABLE for a proper one."""
        if status is INVALID:
            self.counters.malformed += 1
        else:
            self.counters.refused += 1
        self._answer(envelope, header, status, reason)

    def undelivered(self, task: Task) -> None:
        """Count a reply that could not be sent; its client may come back for it if it has a key."""
        self.counters.undeliverable += 1
        if task.key is not None:
            self._kept.mark_undelivered(task.key, task.envelope[0])

    # What workers send

    def ready(self, envelope: Frames) -> None:
        """Count a worker as ready for one more task."""
        self._workers.append(envelope)

    def result(self, attempt_id: Sized, body: Frames, now: float) -> None:
        """Settle the task with the result of any of its attempts."""
        task = self._find(attempt_id)
        if task is not None:
            self._settle(task, DONE, body, now)

    def fail(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Give up the running attempt, as its worker asks."""
        task = self._find_running(attempt_id)
        if task is not None:
            self._lose_attempt(task, reason, now)

    def reject(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Fail the task for good, as its worker asks."""
        task = self._find_running(attempt_id)
        if task is not None:
            self._fail(task, reason, now)

    def release(self, attempt_id: Sized) -> None:
        """Take the task back unexecuted, as its worker asks; the attempt is not charged."""
        task = self._find_running(attempt_id)
        if task is not None:
            task.attempts -= 1
            self.counters.released += 1
            self._stop_running(task)
            self._wait(task)

    def touch(self, attempt_id: Sized, seconds: float | None, now: float) -> None:
        """Move the running attempt's deadline to `now` + `seconds` (None: + its timeout, if there is one)."""
        task = self._find_running(attempt_id)
        if task is None or task.worker.lost:
            return
        seconds = task.timeout if seconds is None else seconds
        if seconds is not None:
            self._timers.set(task, now + seconds)

    # What the loop does and notices

    def hand_out(self, now: float) -> tuple[Frames, Task] | None:
        """Give the first waiting task to an idle worker, counting the attempt; None when either is missing.

        Returns the worker's envelope and the task, whose `attempt_id` names the attempt.
        """
        if not (self._waiting.live and self._workers.idle):
            return None
        task = self._waiting.pop()
        envelope, worker = self._workers.pop(avoided=task.worker.id)
        self._start_running(task, worker, now)
        return envelope, task

    def take_back(self, task: Task, now: float) -> None:
        """Undo the hand-out of `task`: its worker is gone. No attempt is charged for it."""
        self.counters.gone += 1
        self.counters.attempts -= 1
        task.attempts -= 1
        self._stop_running(task)
        task.status = WAITING
        self._waiting.append_first(task)
        self.lose_worker(task.worker.id, now)

    def lose_worker(self, worker: Sized, now: float) -> None:
        """Give up what a worker has and is ready for: the connection that names it has dropped.

        What it is running is lost after a grace, for a result that is already on its way.
        """
        gone = self._workers.forget(worker)
        for task in gone.running if gone is not None else ():
            self.counters.lost += 1
            if task.due is None or task.due > now + GRACE:
                self._timers.set(task, now + GRACE)

    def expire(self, now: float) -> None:
        """Lose every attempt whose deadline has come; let delayed tasks wait whose delay is over."""
        while (task := self._timers.pop_due(now)) is not None:
            if task.status is DELAYED:
                self.delayed -= 1
                self._wait(task)
            elif task.worker.lost:
                self._lose_attempt(task, "the worker was lost", now)
            else:
                self._lose_attempt(task, _timed_out(task), now)
        self._kept.expire(now)

    def next_due(self) -> float | None:
        """Return the instant at which `expire` has something to do again; None when nothing is due ever."""
        due, end_of_kept = self._timers.next_due(), self._kept.next_due()
        return end_of_kept if due is None else due if end_of_kept is None else min(due, end_of_kept)

    def stop_accepting(self, reason: str) -> None:
        """Take in no new tasks from now on; what is said of those that there are still counts."""
        self._refusing = reason

    def abandon(self, reason: str, now: float) -> None:
        """Give up every unsettled task: it fails, unless its client can be told to send it again."""
        for task in dict.fromkeys([*self._waiting, *self._timers, *self._handed_out.values()]):
            if task.header is None:
                self._fail(task, reason, now)
            else:
                task.reason = reason
                self.counters.unfinished += 1
                self._settle(task, UNAVAILABLE, [], now)

    # How a task moves

    def _wait(self, task: Task) -> None:
        task.status = WAITING
        self._timers.clear(task)
        self._waiting.append(task)

    def _delay(self, task: Task, until: float) -> None:
        task.status = DELAYED
        self.delayed += 1
        self._timers.set(task, until)

    def _start_running(self, task: Task, worker: Worker, now: float) -> None:
        if not task.number:
            task.number = self._next_number()
            self._handed_out[task.number] = task
        task.hand_outs += 1
        task.attempts += 1
        task.attempt_id = self._attempt_id.pack(self._run, task.number, task.hand_outs)
        task.status = RUNNING
        task.worker = worker
        task.started = now
        worker.running.add(task)
        self.counters.attempts += 1
        self.running += 1
        if task.timeout is not None:
            self._timers.set(task, now + task.timeout)

    def _stop_running(self, task: Task) -> None:
        self.running -= 1
        self._workers.leave(task)
        task.attempt_id = b""
        self._timers.clear(task)

    def _lose_attempt(self, task: Task, reason: str, now: float) -> None:
        if task.tries and task.attempts >= task.tries:
            self._fail(task, reason, now)
            return
        task.reason = reason
        self.counters.retried += 1
        self._stop_running(task)
        if self.retry_delay:
            self._delay(task, now + self.retry_delay)
        else:
            self._wait(task)

    def _fail(self, task: Task, reason: str, now: float) -> None:
        task.reason = reason
        self.counters.failed += 1
        self._settle(task, FAILED, [], now)

    def _settle(self, task: Task, status: str, body: Frames, now: float) -> None:
        before, task.status = task.status, status
        if before is RUNNING:
            self._stop_running(task)
        elif before is DELAYED:
            self.delayed -= 1
            self._timers.clear(task)
        else:
            self._waiting.withdraw()
        if task.number:
            del self._handed_out[task.number]
        task.body = body
        if status is DONE:
            self.counters.done += 1
        if task.header is not None and task.header.key is not None:
            del self._by_key[task.header.key]
            if status is not UNAVAILABLE:
                self._kept.add(task.header.key, task, now)
        self.settled.append(task)

    # Requests about a task that is known already

    def _is_about_known(self, key: str, envelope: Frames, header: Header, now: float) -> bool:
        """Deal with a request that cancels, or whose key is known; False when it is a new task."""
        task = self._by_key.get(key)
        if header.cancel:
            self._cancel(task, envelope, header, now)
            return True
        if task is not None:
            task.envelope = envelope
        else:
            kept = self._kept.take(key, envelope[0], now)
            if kept is None:
                return False
            again = self._answer(envelope, header, kept.status, kept.reason)
            again.body, again.attempts = kept.body, kept.attempts
            self._kept.add(key, again, now)
        self.counters.joined += 1
        return True

    def _cancel(self, task: Task | None, envelope: Frames, header: Header, now: float) -> None:
        if task is None:
            self.counters.refused += 1
            self._answer(envelope, header, INVALID, "there is no unsettled task with this key")
            return
        task.reason = "cancelled by its client"
        self.counters.cancelled += 1
        self._settle(task, CANCELLED, [], now)
        if not is_same(task.envelope, envelope):  # whoever cancels waits for an answer as well
            self._answer(envelope, header, CANCELLED, task.reason)

    def _answer(self, envelope: Frames, header: Header | None, status: str, reason: str) -> Task:
        answer = Task(envelope, [], header=header)
        answer.status, answer.reason = status, reason
        self.settled.append(answer)
        return answer

    # How tasks are found

    def _find(self, attempt_id: Sized) -> Task | None:
        """Return the unsettled task whose attempt this is or was; else count the message and return None."""
        try:
            run, number, hand_out = self._attempt_id.unpack(attempt_id)  # type: ignore[arg-type]
        except struct.error:  # it has another length
            self.counters.malformed += 1
            return None
        task = self._handed_out.get(number) if run == self._run else None
        if task is None:
            self.counters.late += 1
        elif not 1 <= hand_out <= task.hand_outs:
            self.counters.malformed += 1
            return None
        return task

    def _find_running(self, attempt_id: Sized) -> Task | None:
        """Return the task if this is its running attempt; else count the message and return None."""
        task = self._find(attempt_id)
        if task is not None and task.attempt_id != attempt_id:
            self.counters.late += 1
            return None
        return task


def _timed_out(task: Task) -> str:
    """Say in words that the running attempt has come to its deadline."""
    waited = (task.due or 0.0) - task.started
    limit = f" of {task.tries}" if task.tries else ""
    return f"timed out after {round(waited, 3):g} s ({task.attempts}{limit} attempts)"
