"""Answers to questions about what goes on, and changes of it: see PROTOCOL.md, part 4.

No answer walks all tasks: lists come in pages, each with a cursor from where the next one goes on, and what cannot be
had in a bounded number of steps is in the next page.
"""

from collections.abc import Callable, Iterable, Sized
from dataclasses import asdict
from functools import partial
from itertools import islice

from zmqbroker.broker.about import Answer, about_failure, about_queue, about_store, about_task, about_worker
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.questions import (
    LARGEST_NUMBER,
    Later,
    Question,
    RefusedError,
    called,
    choice,
    number,
    page,
    page_size,
    queue_name,
    text,
    which,
)
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.statistics import BOUNDS, MOST_FAILURES, Failure
from zmqbroker.broker.store.gate import Store
from zmqbroker.broker.stored import StoredTasks
from zmqbroker.broker.task import DELAYED, RUNNING, WAITING, Name, Task, name_of
from zmqbroker.wire import LARGEST_COUNT

QUEUES_IN_PAGE = 25  # as many as take a millisecond
MOST_COMPARED = 500  # queues, for those that `status` names
MOST_LOOKED_AT = 1000  # queues, for those that no worker asks from
MOST_STEPS = 1000  # in looks for the oldest tasks of queues, in one answer
QUEUES_NAMED = 20  # in `status`
SLOWEST_NAMED = 10
FAILURES_NAMED = 10
STATES = (WAITING, DELAYED, RUNNING)
ORDERS = OLDEST, SLOWEST = ("oldest", "slowest")


class Control:
    """What can be asked of a broker, and told."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        address_of: Callable[[Sized], str],
        drain: Callable[[], None],
        store: Store | None = None,
    ) -> None:
        """Prepare; `address_of` tells where a worker's connection comes from, `drain` begins the end.

        `store` is only looked at; None: there is none.
        """
        self._dispatcher = dispatcher
        self._address_of = address_of
        self._drain = drain
        self._store = store
        self._stored = StoredTasks(dispatcher)
        self._answers: dict[str, Callable[[Question, float], Answer | Later]] = {
            "status": self._status,
            "queues": self._queues,
            "workers": self._workers,
            "tasks": self._tasks,
            "task": self._task,
            "failures": self._failures,
            "failed": self._stored.failed,
            "retry": self._stored.retry,
            "forget": self._stored.forget,
            "pause": self._pause,
            "resume": self._resume,
            "limit": self._limit,
            "cancel": self._cancel,
            "drain": self._begin_drain,
        }

    def answer(self, question: Question, now: float) -> Answer | Later:
        """Return the answer to a question, or do what it says; raises RefusedError when that cannot be."""
        ask = question.get("ask")
        answer = self._answers.get(ask) if isinstance(ask, str) else None
        if answer is None:
            raise RefusedError(f"ask for one of {', '.join(self._answers)}, not {ask!r:.50}")
        if self._dispatcher.owners and "key" in question and "owner" not in question:
            question = question | self._whose(question)
        return answer(question, now)

    # Questions

    def _status(self, question: Question, now: float) -> Answer:
        dispatcher = self._dispatcher
        unserved = list(dispatcher.unserved_now(MOST_LOOKED_AT))
        compared = {*islice(dispatcher.queues, MOST_COMPARED), *unserved[:QUEUES_NAMED]}
        first = set(unserved)
        named = sorted(compared, key=lambda queue: (queue not in first, -queue.unsettled, queue.name))[:QUEUES_NAMED]
        failures = islice(reversed(dispatcher.failures), FAILURES_NAMED)
        return {
            "waiting": dispatcher.waiting,
            "delayed": dispatcher.delayed,
            "running": dispatcher.running,
            "workers": len(dispatcher.workers),
            "idle": dispatcher.idle,
            "unserved": len(unserved),
            "totals": asdict(dispatcher.counters),
            "total_queues": len(dispatcher.queues),
            "queues": _about_queues(named, now),
            "slowest": [about_task(task, now) for task in islice(dispatcher.in_hand.values(), SLOWEST_NAMED)],
            "failures": [about_failure(failure, now) for failure in failures],
            "store": None if self._store is None else about_store(self._store, dispatcher.journal),
        }

    def _queues(self, question: Question, now: float) -> Answer:
        queues = self._dispatcher.queues
        found: list[Queue]
        if "queue" in question:
            found, cursor = [self._queue(question)], None
        else:
            found, cursor = page(queues, question, QUEUES_IN_PAGE)
        return {"queues": _about_queues(found, now), "total": len(queues), "cursor": cursor, "bounds": BOUNDS}

    def _workers(self, question: Question, now: float) -> Answer:
        workers = self._dispatcher.workers
        found, cursor = page(workers, question)
        about = [about_worker(worker, self._address_of(worker.id), now) for worker in found]
        return {"workers": about, "total": len(workers), "cursor": cursor}

    def _tasks(self, question: Question, now: float) -> Answer:
        """Return unsettled tasks, the oldest first; or those in hand, the longest first."""
        order = choice(question, "order", ORDERS) or OLDEST
        state = choice(question, "state", STATES)
        queue = queue_name(question) if "queue" in question else None
        worker, owner = text(question, "worker"), text(question, "owner")
        tasks: Iterable[Task]
        if order == SLOWEST:
            tasks, cursor = page(self._dispatcher.in_hand.values(), question)
        else:
            tasks, cursor = self._dispatcher.ledger.after(number(question, "after", 0, LARGEST_NUMBER))
        wanted = (
            task
            for task in tasks
            if state in (None, task.status)
            and queue in (None, task.queue.name)
            and owner in (None, task.owner or "")
            and (worker is None or (task.status is RUNNING and worker in task.worker.name))
        )
        most = page_size(question)
        found = list(islice(wanted, most + 1))
        if len(found) > most:
            found = found[:most]
            cursor = found[-1].number
        return {
            "tasks": [about_task(task, now) for task in found],
            "total": self._dispatcher.unsettled,
            "cursor": cursor,
        }

    def _task(self, question: Question, now: float) -> Answer | Later:
        task = self._find(question)
        if task is not None:
            return {"task": about_task(task, now)}
        return self._stored.show(question, partial(self._failure, question, now), now)

    def _failure(self, question: Question, now: float) -> Answer:
        failure = self._find_failure(question)
        if failure is not None:
            return {"failure": about_failure(failure, now)}
        raise RefusedError(f"{_no_task(question)}, and it is none of the last {MOST_FAILURES} that failed")

    def _failures(self, question: Question, now: float) -> Answer:
        failures = self._dispatcher.failures
        found, cursor = page(reversed(failures), question)
        return {
            "failures": [about_failure(failure, now) for failure in found],
            "total": len(failures),
            "cursor": cursor,
        }

    # Changes

    def _pause(self, question: Question, now: float) -> Answer:
        self._dispatcher.queues.pause(queue_name(question))
        return self._changed(question, now)

    def _resume(self, question: Question, now: float) -> Answer:
        self._dispatcher.queues.resume(queue_name(question))
        return self._changed(question, now)

    def _limit(self, question: Question, now: float) -> Answer:
        name = queue_name(question)
        if not {"running", "waiting"} & question.keys():
            raise RefusedError("limit needs running, waiting, or both: whole numbers from 0 up (0: no limit)")
        running = number(question, "running", 0, LARGEST_COUNT)
        waiting = number(question, "waiting", 0, LARGEST_COUNT)
        if "running" in question:
            self._dispatcher.queues.set_limit(name, running or None)
        if "waiting" in question:
            self._dispatcher.queues.set_limit_waiting(name, waiting or None)
        return self._changed(question, now)

    def _cancel(self, question: Question, now: float) -> Answer:
        task = self._find(question)
        if task is None:
            raise RefusedError(_no_task(question))
        about = about_task(task, now)
        self._dispatcher.cancel(task, "cancelled by control", now)
        return {"task": about}

    def _begin_drain(self, question: Question, now: float) -> Answer:
        self._drain()
        return {"unsettled": self._dispatcher.unsettled}

    def _changed(self, question: Question, now: float) -> Answer:
        """Tell of a queue that was changed; None: it has been forgotten, as there is nothing to know of it."""
        self._dispatcher.note_settings(queue_name(question))
        queue = self._dispatcher.queues.get(queue_name(question))
        return {"queue": None if queue is None else about_queue(queue, MOST_STEPS, now)}

    # How things are found

    def _queue(self, question: Question) -> Queue:
        name = queue_name(question)
        queue = self._dispatcher.queues.get(name)
        if queue is None:
            raise RefusedError(f"there is no queue {name}: no tasks, no workers, no settings")
        return queue

    def _find(self, question: Question) -> Task | None:
        """Return the unsettled task with a key or a number; None: there is none."""
        name, numbered = which(question)
        return self._dispatcher.ledger.get(numbered) if name is None else self._dispatcher.known_by(name)

    def _whose(self, question: Question) -> Question:
        """Return the owner of the task that is meant by its key alone, if it has one and no other has such a key."""
        key = text(question, "key") or ""
        failed = {failure.owner for failure in self._dispatcher.failures if failure.key == key}
        owners = [
            owner
            for owner in (None, *sorted(self._dispatcher.owners))
            if owner in failed or self._is_known(name_of(key, owner))
        ]
        if len(owners) > 1:
            several = ", ".join(owner or "nobody in particular" for owner in owners)
            raise RefusedError(f"several have a task with {called(question)}, say whose is meant: {several}")
        return {"owner": owners[0]} if owners and owners[0] is not None else {}

    def _is_known(self, name: Name) -> bool:
        return self._dispatcher.known_by(name) is not None or self._dispatcher.journal.has_settled(name)

    def _find_failure(self, question: Question) -> Failure | None:
        """Return the last failure with a key or a number; None: none is remembered."""
        name, numbered = which(question)
        for failure in reversed(self._dispatcher.failures):
            if failure.number == numbered if name is None else failure.name == name:
                return failure
        return None


def _about_queues(queues: list[Queue], now: float) -> list[Answer]:
    """Tell of queues; the fewer there are, the further the oldest task of each is looked for."""
    steps = MOST_STEPS // max(len(queues), 1)
    return [about_queue(queue, steps, now) for queue in queues]


def _no_task(question: Question) -> str:
    return f"there is no unsettled task with {called(question)}"
