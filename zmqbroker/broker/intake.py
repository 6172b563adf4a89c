"""How tasks come in: from clients, and from a store where an earlier run of the broker has left them."""

from collections.abc import Callable, Iterable
from itertools import count
from math import inf

from zmqbroker.broker.known import Known
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.store.journal import NO_STORE, UNSTORED, Journal, header_of, request_of
from zmqbroker.broker.store.rows import DamagedTask, QueueSettings, State, StoredTask, unstorable
from zmqbroker.broker.task import EARLIER, NO_BACK_OFF, RUNNING, BackOff, Task, Waiter
from zmqbroker.wire import FAILED, INVALID, UNAVAILABLE, Frames, Header, OnlyKey

DEFAULT_TRIES = 3
DEFAULT_RECLAIM = 30.0  # seconds in which a worker may tell of a task that it had when an earlier run ended


class Intake(Known):
    """Makes tasks of requests."""

    def __init__(
        self,
        *,
        tries: int | None = DEFAULT_TRIES,
        timeout: float | None = None,
        back_off: BackOff = NO_BACK_OFF,
        is_fair: bool = False,
        reclaim: float = DEFAULT_RECLAIM,
        run: bytes = b"",
        random_bytes: Callable[[int], bytes] = bytes,
        journal: Journal | None = None,
    ) -> None:
        """Start with nothing to do.

        `tries` limits the attempts of a task, `timeout` is in seconds per attempt (0 or None: no limit), `back_off`
        says when a task is tried again. With `is_fair` tasks of different connections take turns, unless their clients
        say which group they belong to. `run` starts every attempt id: random bytes, so that ids of an earlier run match
        nothing. `random_bytes` returns so many of them; each attempt id ends with some of its task. `journal` takes
        down what is to be stored, and says what is; None: there is no store. What an earlier run has left at workers is
        lost when they have told nothing of it for `reclaim` seconds.
        """
        super().__init__(journal.run if journal else run, random_bytes, journal)
        self.tries = tries or 0
        self.timeout = timeout or None
        self.back_off = back_off
        self._is_fair = is_fair
        self._reclaim_within = reclaim
        self.refusing = ""  # why there are no new tasks; empty: there are
        self._next_number = count(self.journal.highest + 1).__next__

    def submit(
        self, envelope: Frames, body: Frames, now: float, header: Header | None = None, owner: str | None = None
    ) -> None:
        """Take in a request: a new task, or what its header says."""
        if header is not None and header.key is not None and self._is_about_known(header.key, envelope, header, now):
            return
        if self.refusing:
            self.refuse(envelope, header, FAILED if header is None else UNAVAILABLE, self.refusing)
            return
        wishes = None if header is None or type(header) is OnlyKey else header  # None: as nearly all, it has none
        queue = self._queues.default if wishes is None or wishes.queue is None else self._queues.find(wishes.queue)
        if queue.limit_waiting is not None and queue.waiting + queue.delayed >= queue.limit_waiting:
            why = f"{queue.limit_waiting} tasks wait in the queue {queue.name}, and no more may"
            self.refuse(envelope, header, FAILED if header is None else UNAVAILABLE, why)
            return
        number = self._next_number()
        if wishes is None:
            task = Task(envelope, body, queue, self.tries, self.timeout, self.back_off, header, number, now)
        else:
            task = self._task(envelope, body, queue, wishes, number, now)
            if wishes.is_stored and not self._store(task, wishes, now):
                self._queues.forget_if_empty(queue)
                return
        if header is not None and header.key is not None:
            self._by_key[header.key] = task
        if self._is_fair and task.group is None:
            task.group = bytes(envelope[0])  # type: ignore[call-overload]  # any frame has a buffer
        self.counters.accepted += 1
        queue.statistics.accepted += 1
        self.ledger.add(number, task)
        if wishes is not None and wishes.delay:
            self._delay(task, now + wishes.delay)
        else:
            self._matching.put(task, now)
            if task.expires_at < inf:
                self._set_due(task, inf)

    def _task(self, envelope: Frames, body: Frames, queue: Queue, header: Header, number: int, now: float) -> Task:
        """Make a task as its client wants it."""
        tries = self.tries if header.tries is None else header.tries
        timeout = self.timeout if header.timeout is None else header.timeout or None
        task = Task(envelope, body, queue, tries, timeout, self._back_off(header), header, number, now)
        task.group = header.group
        if header.expires is not None:
            task.expires_at = now + header.expires
        return task

    def _store(self, task: Task, header: Header, now: float) -> bool:
        """Have a new task stored; False: it was refused."""
        why = "" if self.has_store else NO_STORE
        task.size = sum(map(len, task.body))
        why = why or unstorable(header.key or "", task.size)
        if why:
            self.refuse(task.envelope, header, INVALID, why)
            return False
        if self.journal.is_low:
            self.refuse(task.envelope, header, UNAVAILABLE, "the disk of the broker's store is nearly full")
            return False
        task.is_durable = True
        task.token = self._ids.next_token()
        request = request_of(task, header, self.journal.offset)
        task.keep = request.keep
        self.journal.add(request, task)
        if header.detach:
            self._accept(task.number, Waiter(task.envelope, header))
            task.envelope = []
        return True

    def _back_off(self, header: Header) -> BackOff:
        delay, factor, most = self.back_off
        if header.retry_delay is None and header.retry_factor is None and header.retry_most is None:
            return self.back_off
        return BackOff(
            delay if header.retry_delay is None else header.retry_delay,
            factor if header.retry_factor is None else header.retry_factor,
            most if header.retry_most is None else header.retry_most or inf,
        )

    # What the store has from before

    def restore(self, stored: StoredTask | DamagedTask, has_ended_well: bool, now: float) -> None:
        """Take in what the store has of a task; `has_ended_well`: no worker had it in hand when the broker ended."""
        if isinstance(stored, DamagedTask):
            if stored.key is not None:
                self.journal.damaged[stored.key] = stored.number
        elif stored.state.until is not None:
            self.journal.restore(stored)
        else:
            self._restore_task(stored, has_ended_well, now)

    def restore_queues(self, stored: Iterable[QueueSettings]) -> None:
        """Take in what the store has been told of queues."""
        for name, limit, limit_waiting, is_paused in stored:
            self._queues.set_limit(name, limit)
            self._queues.set_limit_waiting(name, limit_waiting)
            if is_paused:
                self._queues.pause(name)

    def note_settings(self, name: str) -> None:
        """Have stored what is set of a queue now."""
        if self.has_store:
            queue = self._queues.get(name)
            settings = QueueSettings(name)
            if queue is not None:
                settings = QueueSettings(name, queue.limit, queue.limit_waiting, queue.is_paused)
            self.journal.set_queue(settings)

    def retry(self, stored: StoredTask, now: float) -> None:
        """Have a task wait again that was settled without a result, as if it had just come; only hand-outs count on."""
        request, state, _, _ = stored
        accepted = now + self.journal.offset
        expires = None if request.expires is None else accepted + request.expires - request.accepted
        request = request._replace(accepted=accepted, expires=expires)
        state = state._replace(attempts=0, deaths=0, reason="")
        self.journal.renew(request)
        task = self._task_of(stored._replace(request=request, state=state), now)
        self.counters.accepted += 1
        self.ledger.insert(task.number, task)
        self.journal.note(task)
        self._matching.put(task, now)
        self._set_due(task, inf)

    def _restore_task(self, stored: StoredTask, has_ended_well: bool, now: float) -> None:
        state = stored.state
        task = self._task_of(stored, now)
        self.counters.restored += 1
        self.ledger.add(task.number, task)
        if state.status == RUNNING:
            task.deaths += not has_ended_well
            self._resume(task, now)
        elif state.due is not None:
            self._delay(task, state.due - self.journal.offset)
        else:
            self._matching.put(task, now)
            if task.expires_at < inf:
                self._set_due(task, inf)

    def _task_of(self, stored: StoredTask, now: float) -> Task:
        """Return a task that was stored; it is known by its key, and neither waits nor runs yet."""
        request, state, body, size = stored
        offset = self.journal.offset
        header = header_of(request)
        queue = self._queues.default if request.queue is None else self._queues.find(request.queue)
        task = self._task([], body or [], queue, header, request.number, request.accepted - offset)
        task.is_durable, task.size, task.token, task.since = True, size, request.secret, now
        if request.keep is not None:
            task.keep = request.keep
        if state.hand_outs:
            task.rank -= 1
            task.hand_outs, task.attempts, task.deaths = state.hand_outs, state.attempts, state.deaths
            task.reason = state.reason
        queue.statistics.accepted += 1
        self._by_key[request.key] = task
        return task

    def _resume(self, task: Task, now: float) -> None:
        """Have a task run at a worker that has not told of it yet since the broker has begun anew."""
        task.status, task.worker = RUNNING, EARLIER
        task.attempt_id = task.charged = self._ids.make(task.number, task.hand_outs, task.token)
        task.queue.running += 1
        if task.queue.limit is not None:
            task.queue.update()
        within = self._reclaim_within
        task.deadline = now + (within if task.timeout is None else min(task.timeout, within))
        self._set_due(task, task.deadline)
        self.journal.note(task)

    # What the store refuses

    def unstore(self, numbers: Iterable[int], now: float) -> None:
        """Refuse new tasks that could not be stored."""
        for number in numbers:
            unstored = self.ledger.get(number)
            if unstored is not None:
                unstored.reason = UNSTORED
                self._settle(unstored, UNAVAILABLE, [], now)

    def spoil(self, task: Task, state: State) -> None:
        """Have a task fail whose result does not fit on the disk."""
        self.journal.spoil(task, state)
        self.counters.done -= 1
        self.counters.failed += 1
        task.queue.statistics.done -= 1
        task.queue.statistics.failed += 1
        task.status, task.reason, task.body = FAILED, state.reason, []

    def recall(self, reply: Task, reason: str) -> None:
        """Have a reply say that the request is to be sent again, as what it says is not stored."""
        self.journal.recall(reply)
        reply.status, reply.reason, reply.body = UNAVAILABLE, reason, []

    # The end

    def stop_accepting(self, reason: str) -> None:
        """Take in no new tasks from now on; what is said of those that there are still counts."""
        self.refusing = reason

    def abandon(self, reason: str, now: float) -> None:
        """Give up every unsettled task: it fails, unless its client can be told to send it again.

        Those that are stored stay there; only who waits for one is told.
        """
        for task in list(self.ledger):
            if task.is_durable and not task.waiters:
                continue
            if task.header is None:
                self._fail(task, reason, now)
            else:
                task.reason = reason
                self._settle(task, UNAVAILABLE, [], now)
