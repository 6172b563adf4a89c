"""Requests about a task that is known already: they join it, cancel it, ask for its outcome, or have that forgotten."""

from functools import partial

from zmqbroker.broker.kept import KeptReply
from zmqbroker.broker.store.gate import DAMAGED
from zmqbroker.broker.store.journal import STORE_FAILED, Found
from zmqbroker.broker.store.rows import SETTLED, DamagedTask
from zmqbroker.broker.task import WAITING, Fetch, Name, Task, Waiter
from zmqbroker.broker.tasks import Tasks
from zmqbroker.wire import (
    ACCEPTED,
    CANCELLED,
    DONE,
    FAILED,
    INVALID,
    UNAVAILABLE,
    UNKNOWN,
    Frames,
    Header,
    OnlyKey,
    is_same,
)


class Known(Tasks):
    """Answers who asks about a task by its name: its key, and whose it is."""

    def _is_about_known(self, name: Name, envelope: Frames, header: Header, now: float) -> bool:
        """Deal with a request that is about a task, or whose name is known; False when it is a new task."""
        task = self._by_name.get(name)
        if type(header) is not OnlyKey:
            if header.cancel:
                self._cancel(task, envelope, header, now)
                return True
            if header.fetch is not None or header.forget:
                self._look_up(task, name, Waiter(envelope, header), now)
                return True
            if header.is_stored and task is not None and not task.is_durable:
                why = "there is an unsettled task with this key, which was not to be stored"
                self.refuse(envelope, header, INVALID, why)
                return True
        if task is not None:
            self._join_or_accept(task, Waiter(envelope, header))
        elif self.has_store and self.journal.has_settled(name):
            self._answer_stored(name, Waiter(envelope, header))
        else:
            kept = self._kept.take(name, envelope[0], now)
            if kept is None or header.is_stored:  # nobody has stored that one
                return False
            self._kept.add(name, self._answer_kept(kept, Waiter(envelope, header)), now)
        self.counters.joined += 1
        return True

    def _join_or_accept(self, task: Task, waiter: Waiter) -> None:
        """Have the reply go to this one as well; or tell it that the task is stored, if that is what it wants."""
        if waiter.header is not None and waiter.header.detach:
            self._accept(task.number, waiter)
        else:
            self._join(task, waiter)

    def _join(self, task: Task, waiter: Waiter) -> None:
        """Have the reply go to this one as well, and to each connection once for each id of its requests."""
        if task.envelope and _is_from(Waiter(task.envelope, task.header), waiter):
            task.envelope, task.header = waiter.envelope, waiter.header
        else:
            others = [other for other in task.joined or () if not _is_from(other, waiter)]
            task.joined = [*others, waiter]

    def _accept(self, number: int, waiter: Waiter) -> None:
        """Tell who need not wait that a task is stored, once it is."""
        answer = self._make_answer(waiter.envelope, waiter.header, ACCEPTED)
        answer.number = number
        self.journal.answer(answer)

    def _cancel(self, task: Task | None, envelope: Frames, header: Header, now: float) -> None:
        if task is None:
            self.counters.refused += 1
            status = INVALID if self.journal.is_whole else UNAVAILABLE
            self._answer(envelope, header, status, "there is no unsettled task with this key")
            return
        self.cancel(task, "cancelled by its client", now)
        if any(_is_told(waiter, envelope, header) for waiter in task.waiters):
            return
        answer = self._make_answer(envelope, header, CANCELLED, task.reason)  # who cancels wants an answer too
        self._send(answer, task.is_durable)

    def cancel(self, task: Task, reason: str, now: float) -> None:
        """Settle a task that is not wanted any more."""
        task.reason = reason
        self._settle(task, CANCELLED, [], now)

    # Who asks for an outcome, or does not want it any more

    def _look_up(self, task: Task | None, name: Name, waiter: Waiter, now: float) -> None:
        envelope, header = waiter
        assert header is not None  # it has a key
        if task is None and self.has_store and self.journal.has_settled(name):
            self._answer_stored(name, waiter)
        elif task is not None and header.fetch:
            self._wait_for(task, waiter, now + header.fetch)
        elif task is not None:
            self._tell_state(task, waiter)
        elif (kept := self._kept.find(name, now)) is not None:
            self._answer_kept(kept, waiter)
            if header.forget:
                self._kept.forget(name)
        else:
            self.counters.refused += 1
            if self.journal.is_whole:
                self._answer(envelope, header, UNKNOWN, "there is no task with this key, and no outcome of one")
            else:
                self._answer(envelope, header, UNAVAILABLE, "the broker is shutting down, and may have left it stored")
            return
        self.counters.joined += 1

    def _answer_kept(self, kept: KeptReply, waiter: Waiter) -> Task:
        """Have a reply that was kept go out once more."""
        again = self._answer(waiter.envelope, waiter.header, kept.status, kept.reason)
        again.attempts, again.number, again.worker = kept.attempts, kept.number, kept.worker
        if _wants_body(waiter.header):
            again.body = kept.body
        return again

    def _wait_for(self, task: Task, waiter: Waiter, until: float) -> None:
        """Have somebody get the outcome of a task if it comes by an instant, else be told where the task stands."""
        fetch = Fetch(task, waiter)
        self._timers.set(fetch, until)
        if task.fetches is None:
            task.fetches = []
        task.fetches.append(fetch)
        task.joined = [*(task.joined or ()), waiter]

    def _end_fetch(self, fetch: Fetch) -> None:
        """Tell somebody who has waited for long enough where the task stands."""
        self._timers.clear(fetch)
        task = fetch.task
        task.fetches = [other for other in task.fetches or () if other is not fetch] or None
        task.joined = [waiter for waiter in task.joined or () if waiter is not fetch.waiter] or None
        self._tell_state(task, fetch.waiter)

    def _tell_state(self, task: Task, waiter: Waiter) -> None:
        reason = task.queue.plight if task.status is WAITING else ""
        answer = self._make_answer(waiter.envelope, waiter.header, task.status, reason)
        answer.attempts, answer.number = task.attempts, task.number
        self._send(answer, task.is_durable)

    def _answer_stored(self, name: Name, waiter: Waiter) -> None:
        """Have an outcome read from the store for somebody, or told that it is there, if that will do."""
        header = waiter.header
        number = self.journal.number_of(name)
        if header is not None and header.detach:
            self._accept(number, waiter)
        elif self.journal.outcomes.find(name) is None:
            self._answer_found(name, waiter, DamagedTask(number))
        else:
            self.journal.want(number, partial(self._answer_found, name, waiter))

    def _answer_found(self, name: Name, waiter: Waiter, found: Found) -> None:
        """Tell somebody what was found in the store."""
        envelope, header = waiter
        is_wanted = header is not None and header.fetch is not None  # then it is not dropped before it is sent
        is_question = is_wanted or (header is not None and header.forget)
        if found is None:  # it was forgotten in this very turn: who wants it done sends it again
            has_failed = self.journal.has_failed
            status = UNKNOWN if is_question and not has_failed else UNAVAILABLE
            self._answer(envelope, header, status, STORE_FAILED if has_failed else "it has just been forgotten")
            return
        if isinstance(found, DamagedTask):
            answer = self._make_answer(envelope, header, FAILED, DAMAGED)
            answer.number = found.number
        else:
            state = found.state
            status = SETTLED[SETTLED.index(state.status)]  # the very object: they are told apart by identity
            answer = self._make_answer(envelope, header, status, state.reason)
            answer.attempts, answer.number = state.attempts, found.request.number
            answer.was_at = state.worker if state.hand_outs else None
            if answer.status is DONE and _wants_body(header):
                answer.body = found.body or []
        is_forgotten = header is not None and header.forget
        if is_forgotten:
            self.journal.forget(name, answer.number)
        self._send(answer, is_forgotten and not is_wanted)

    # How answers are made

    def refuse(self, envelope: Frames, header: Header | None, status: str, reason: str) -> None:
        """Answer a request that becomes no task: INVALID, or FAILED or UNAVAILABLE for a proper one."""
        if status is INVALID:
            self.counters.malformed += 1
        else:
            self.counters.refused += 1
        self._answer(envelope, header, status, reason)

    def _answer(self, envelope: Frames, header: Header | None, status: str, reason: str) -> Task:
        """Answer a request that is no task."""
        answer = self._make_answer(envelope, header, status, reason)
        self.settled.append(answer)
        return answer

    def _send(self, answer: Task, is_to_be_stored: bool) -> None:
        """Have an answer sent, once what it says is stored if that is to be."""
        if is_to_be_stored:
            self.journal.answer(answer)
        else:
            self.settled.append(answer)

    def _make_answer(self, envelope: Frames, header: Header | None, status: str, reason: str = "") -> Task:
        answer = Task(envelope, [], self._queues.default, header=header)
        answer.status, answer.reason, answer.is_answer = status, reason, True
        return answer


def _is_from(other: Waiter, waiter: Waiter) -> bool:
    """Tell whether a request is one that has been sent before, by the same connection."""
    if other.envelope[0] != waiter.envelope[0] or other.header is None or waiter.header is None:
        return False
    return other.header.id == waiter.header.id and other.header.fetch is None


def _is_told(waiter: Waiter, envelope: Frames, header: Header) -> bool:
    """Tell whether who cancels a task gets its outcome, as one that waits for it under the same name."""
    return is_same(waiter.envelope, envelope) and (waiter.header is None or waiter.header.id == header.id)


def _wants_body(header: Header | None) -> bool:
    return header is None or (header.body if header.fetch is not None else not header.forget)
