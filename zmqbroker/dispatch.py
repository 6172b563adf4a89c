"""What the broker decides: which task goes to which worker, when it is tried again, and what its client gets.

The life of a task:

    submit -> waiting -> running -> settled (done or failed)
                 ^          |
                 +----------+  the attempt was lost and tries are left; with a retry delay
                               the task is *delayed* in between

Events come in as method calls (`submit`, `ready`, `result`, `fail`, ...), time comes in as `now`: float seconds
of a monotonic clock. Two things come out: pairs of an idle worker and a task (`hand_out`), and settled tasks
whose reply is to be sent (`settled`). `next_due` says when `expire` has something to do again.

Nothing here knows a socket or a clock. Frames are passed through and never looked into; an envelope is a list
of frames whose first one names the connection it came by.
"""

from collections import deque
from collections.abc import Sized
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count

from zmqbroker.wire import Frames

DEFAULT_TRIES = 3
TASK_NUMBER_BYTES = 8
ATTEMPT_NUMBER_BYTES = 8
STALE_ENTRIES_KEPT = 1000  # stale entries a heap or a queue may hold, beyond as many as it has live ones

WAITING = "waiting"
DELAYED = "delayed"  # waiting, not before an instant
RUNNING = "running"
DONE = "done"
FAILED = "failed"


class Task:
    """One request of a client, from its acceptance to its reply."""

    __slots__ = (
        "attempt_id",
        "attempts",
        "body",
        "due",
        "envelope",
        "hand_outs",
        "id",
        "reason",
        "started",
        "status",
        "timer",
        "worker",
    )

    def __init__(self, envelope: Frames, body: Frames) -> None:
        self.envelope = envelope  # where the reply goes
        self.body = body  # what to do; once settled, the reply's body (empty for a failure)
        self.status = WAITING
        self.id = b""  # given at the first hand-out
        self.attempt_id = b""  # of the attempt that is running; else empty
        self.attempts = 0  # hand-outs that count against the limit
        self.hand_outs = 0  # all of them: the attempts, and what was given back unexecuted
        self.worker: Sized = b""  # the connection of the worker that had it last
        self.started = 0.0  # when the running attempt was handed out
        self.due: float | None = None  # when the running attempt is given up, or a delayed task waits again
        self.timer = 0  # the number of that instant's entry in the heap; 0: there is none
        self.reason = ""  # why its last attempt was lost

    @property
    def number(self) -> int:
        """Which of the tasks handed out this is, from 1; 0 before its first hand-out."""
        return int.from_bytes(self.id[-TASK_NUMBER_BYTES:], "big")


class Worker:
    """A connection by which ready messages came, as long as one of them is unused."""

    __slots__ = ("id", "slots")

    def __init__(self, id: Sized) -> None:
        self.id = id
        self.slots: list[Frames] = []  # the envelope of each ready message; each is worth one task


@dataclass(slots=True)
class Counters:
    """What happened so far, in numbers of tasks, attempts or messages."""

    accepted: int = 0  # tasks taken in
    done: int = 0  # tasks settled with a result
    failed: int = 0  # tasks settled without one
    refused: int = 0  # requests answered with a failure at once: too large, or while shutting down
    attempts: int = 0  # hand-outs, without those that found their worker gone
    retried: int = 0  # attempts lost with another one to come
    released: int = 0  # attempts given back unexecuted
    late: int = 0  # results for tasks settled (or never seen), and control messages for attempts not running
    malformed: int = 0  # messages that fit no rule of the protocol
    undeliverable: int = 0  # replies whose client was gone or did not read
    gone: int = 0  # idle workers found gone at hand-out


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
        self.waiting = 0  # tasks that an idle worker would get now
        self.delayed = 0
        self.running = 0
        self.idle = 0  # workers with an unused ready message
        self._run = run
        self._task_id_bytes = len(run) + TASK_NUMBER_BYTES
        self._next_task = count(1).__next__
        self._next_timer = count(1).__next__
        self._tasks: dict[bytes, Task] = {}  # the unsettled tasks that were handed out at least once, by their id
        self._retries: deque[Task] = deque()  # goes before _fresh; both may hold tasks settled since
        self._fresh: deque[Task] = deque()
        self._workers: dict[Sized, Worker] = {}
        self._idle: deque[Worker] = deque()  # each once, however many slots; may hold workers forgotten since
        self._timers: list[tuple[float, int, Task]] = []  # a heap; an entry is live while its number is task.timer

    # What clients send

    def submit(self, envelope: Frames, body: Frames) -> Task:
        """Take in a task."""
        task = Task(envelope, body)
        self.counters.accepted += 1
        self.waiting += 1
        self._fresh.append(task)
        return task

    # What workers send

    def ready(self, envelope: Frames) -> None:
        """Count a worker as ready for one more task."""
        worker_id = envelope[0]
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = Worker(worker_id)
            self._idle.append(worker)
            self.idle += 1
        worker.slots.append(envelope)

    def result(self, attempt_id: Sized, body: Frames) -> None:
        """Settle the task with the result of any of its attempts."""
        task = self._find(attempt_id)
        if task is not None:
            self._settle(task, DONE, body)

    def fail(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Give up the running attempt, as its worker asks."""
        task = self._find_running(attempt_id)
        if task is not None:
            self._lose_attempt(task, reason, now)

    def reject(self, attempt_id: Sized, reason: str) -> None:
        """Fail the task for good, as its worker asks."""
        task = self._find_running(attempt_id)
        if task is not None:
            self._fail(task, reason)

    def release(self, attempt_id: Sized) -> None:
        """Take the task back unexecuted, as its worker asks; the attempt is not charged."""
        task = self._find_running(attempt_id)
        if task is not None:
            task.attempts -= 1
            self.counters.released += 1
            self._stop_running(task)
            self._enqueue_retry(task)

    def touch(self, attempt_id: Sized, seconds: float | None, now: float) -> None:
        """Move the running attempt's deadline to `now` + `seconds` (None: + its timeout, if there is one)."""
        task = self._find_running(attempt_id)
        seconds = self.timeout if seconds is None else seconds
        if task is not None and seconds is not None:
            self._set_due(task, now + seconds)

    # What the loop does

    def hand_out(self, now: float) -> tuple[Frames, Task] | None:
        """Give the first waiting task to an idle worker, counting the attempt; None when either is missing.

        Returns the worker's envelope and the task, whose `attempt_id` names the attempt.
        """
        if not (self.waiting and self.idle):
            return None
        task = self._next_task_waiting()
        worker = self._next_worker_idle(avoided=task.worker)
        envelope = worker.slots.pop()
        if worker.slots:
            self._idle.append(worker)
        else:
            self.idle -= 1
            del self._workers[worker.id]
        self._start_running(task, worker, now)
        return envelope, task

    def take_back(self, task: Task) -> None:
        """Undo the hand-out of `task`: its worker is gone. No attempt is charged; the worker is forgotten."""
        self.forget_worker(task.worker)
        self.counters.gone += 1
        self.counters.attempts -= 1
        task.attempts -= 1
        self._stop_running(task)
        task.status = WAITING
        self.waiting += 1
        self._retries.appendleft(task)

    def forget_worker(self, worker_id: Sized) -> None:
        """Drop every unused ready message of a worker."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            worker.slots.clear()
            self.idle -= 1
            if self._is_mostly_stale(self._idle, self.idle):
                self._idle = deque(worker for worker in self._idle if worker.slots)

    def expire(self, now: float) -> None:
        """Lose every attempt whose deadline has come; let delayed tasks wait again whose delay is over."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            due, number, task = heappop(timers)
            if task.timer != number:
                continue  # settled, touched or handed out anew since
            if task.status is DELAYED:
                self.delayed -= 1
                self._enqueue_retry(task)
            else:
                limit = f" of {self.tries}" if self.tries else ""
                waited = f"{due - task.started:.3f}".rstrip("0").rstrip(".")
                self._lose_attempt(task, f"timed out after {waited} s ({task.attempts}{limit} attempts)", now)

    def next_due(self) -> float | None:
        """Return the instant at which `expire` has something to do again; None when nothing is due ever."""
        timers = self._timers
        while timers:
            due, number, task = timers[0]
            if task.timer == number:
                return due
            heappop(timers)
        return None

    def abandon(self, reason: str) -> None:
        """Fail every unsettled task."""
        unsettled = [*self._retries, *self._fresh, *self._tasks.values(), *(task for _, _, task in self._timers)]
        for task in unsettled:
            if task.status in (WAITING, DELAYED, RUNNING):
                self._fail(task, reason)

    @property
    def unsettled(self) -> int:
        """The number of tasks whose reply has not been decided."""
        return self.waiting + self.delayed + self.running

    # How a task moves

    def _start_running(self, task: Task, worker: Worker, now: float) -> None:
        if not task.id:
            task.id = self._run + self._next_task().to_bytes(TASK_NUMBER_BYTES, "big")
            self._tasks[task.id] = task
        task.hand_outs += 1
        task.attempts += 1
        task.attempt_id = task.id + task.hand_outs.to_bytes(ATTEMPT_NUMBER_BYTES, "big")
        task.status = RUNNING
        task.worker = worker.id
        task.started = now
        self.counters.attempts += 1
        self.running += 1
        if self.timeout is not None:
            self._set_due(task, now + self.timeout)

    def _stop_running(self, task: Task) -> None:
        self.running -= 1
        task.attempt_id = b""
        self._clear_due(task)

    def _lose_attempt(self, task: Task, reason: str, now: float) -> None:
        if self.tries and task.attempts >= self.tries:
            self._fail(task, reason)
            return
        task.reason = reason
        self.counters.retried += 1
        self._stop_running(task)
        if self.retry_delay:
            task.status = DELAYED
            self.delayed += 1
            self._set_due(task, now + self.retry_delay)
        else:
            self._enqueue_retry(task)

    def _enqueue_retry(self, task: Task) -> None:
        task.status = WAITING
        self._clear_due(task)
        self.waiting += 1
        self._retries.append(task)

    def _fail(self, task: Task, reason: str) -> None:
        task.reason = reason
        self._settle(task, FAILED, [])

    def _settle(self, task: Task, status: str, body: Frames) -> None:
        if task.status is RUNNING:
            self._stop_running(task)
        elif task.status is DELAYED:
            self.delayed -= 1
        else:
            self.waiting -= 1  # the task stays in its queue, to be passed over there
        if task.id:
            del self._tasks[task.id]
        task.status = status
        self._clear_due(task)
        task.body = body
        if status is DONE:
            self.counters.done += 1
        else:
            self.counters.failed += 1
        self.settled.append(task)
        self._compact_queues()

    # How they are found

    def _find(self, attempt_id: Sized) -> Task | None:
        """Return the unsettled task whose attempt this is or was; else count the message and return None."""
        if not isinstance(attempt_id, bytes) or len(attempt_id) != self._task_id_bytes + ATTEMPT_NUMBER_BYTES:
            self.counters.malformed += 1
            return None
        task = self._tasks.get(attempt_id[: self._task_id_bytes])
        if task is None:
            self.counters.late += 1
        return task

    def _find_running(self, attempt_id: Sized) -> Task | None:
        """Return the task if this is its running attempt; else count the message and return None."""
        task = self._find(attempt_id)
        if task is not None and task.attempt_id != attempt_id:
            self.counters.late += 1
            return None
        return task

    def _next_task_waiting(self) -> Task:
        while True:
            task = self._retries.popleft() if self._retries else self._fresh.popleft()
            if task.status is WAITING:  # else settled since
                self.waiting -= 1
                return task

    def _next_worker_idle(self, avoided: Sized) -> Worker:
        """Take the worker that has been idle longest, but not the avoided one if there is another."""
        worker = self._pop_idle()
        if worker.id != avoided or self.idle == 1:
            return worker
        other = self._pop_idle()
        self._idle.appendleft(worker)
        return other

    def _pop_idle(self) -> Worker:
        while True:
            worker = self._idle.popleft()
            if worker.slots:  # else forgotten since
                return worker

    # Deadlines and delays

    def _set_due(self, task: Task, due: float) -> None:
        """Make `due` the one instant at which something happens to the task by itself."""
        task.due = due
        task.timer = self._next_timer()
        heappush(self._timers, (due, task.timer, task))
        if self._is_mostly_stale(self._timers, self.running + self.delayed):
            self._timers = [entry for entry in self._timers if entry[2].timer == entry[1]]
            heapify(self._timers)

    @staticmethod
    def _clear_due(task: Task) -> None:
        task.due = None
        task.timer = 0

    def _compact_queues(self) -> None:
        if len(self._retries) + len(self._fresh) > 2 * self.waiting + STALE_ENTRIES_KEPT:
            self._retries = deque(task for task in self._retries if task.status is WAITING)
            self._fresh = deque(task for task in self._fresh if task.status is WAITING)

    @staticmethod
    def _is_mostly_stale(entries: Sized, live: int) -> bool:
        return len(entries) > 2 * live + STALE_ENTRIES_KEPT
