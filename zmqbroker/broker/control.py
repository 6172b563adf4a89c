"""Answers to questions about what goes on, and changes of it: see PROTOCOL.md, part 4.

No answer walks all tasks: lists come in pages, each with a cursor from where the next one goes on, and what cannot be
had in a bounded number of steps is in the next page.
"""

from collections.abc import Callable, Iterable, Sized
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

from zmqbroker.broker.about import Answer, about_failure, about_queue, about_task, about_worker
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.statistics import BOUNDS, MOST_FAILURES, Failure
from zmqbroker.broker.task import DELAYED, RUNNING, WAITING, Task
from zmqbroker.wire import LARGEST_COUNT, is_queue

LARGEST_PAGE = 50  # workers, tasks or failures: as many as take a millisecond
QUEUES_IN_PAGE = 25  # in a page, for the same reason
LAST_PLACE = 50_000  # in a list that has to be walked from its beginning
MOST_COMPARED = 500  # queues, for those that `status` names
MOST_LOOKED_AT = 1000  # queues, for those that no worker asks from
MOST_STEPS = 1000  # in looks for the oldest tasks of queues, in one answer
QUEUES_NAMED = 20  # in `status`
SLOWEST_NAMED = 10
FAILURES_NAMED = 10
STATES = (WAITING, DELAYED, RUNNING)
ORDERS = OLDEST, SLOWEST = ("oldest", "slowest")
LARGEST_NUMBER = 2**63 - 1  # of a task

Question = dict[str, Any]
Thing = TypeVar("Thing")


class RefusedError(Exception):
    """A question that makes no sense; its text says why."""


class Control:
    """What can be asked of a broker, and told."""

    def __init__(self, dispatcher: Dispatcher, address_of: Callable[[Sized], str], drain: Callable[[], None]) -> None:
        """Prepare; `address_of` tells where a worker's connection comes from, `drain` begins the end."""
        self._dispatcher = dispatcher
        self._address_of = address_of
        self._drain = drain
        self._answers: dict[str, Callable[[Question, float], Answer]] = {
            "status": self._status,
            "queues": self._queues,
            "workers": self._workers,
            "tasks": self._tasks,
            "task": self._task,
            "failures": self._failures,
            "pause": self._pause,
            "resume": self._resume,
            "limit": self._limit,
            "cancel": self._cancel,
            "drain": self._begin_drain,
        }

    def answer(self, question: Question, now: float) -> Answer:
        """Return the answer to a question, or do what it says; raises RefusedError when that cannot be."""
        ask = question.get("ask")
        answer = self._answers.get(ask) if isinstance(ask, str) else None
        if answer is None:
            raise RefusedError(f"ask for one of {', '.join(self._answers)}, not {ask!r:.50}")
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
        }

    def _queues(self, question: Question, now: float) -> Answer:
        queues = self._dispatcher.queues
        found: list[Queue]
        if "queue" in question:
            found, cursor = [self._queue(question)], None
        else:
            found, cursor = _page(queues, question, QUEUES_IN_PAGE)
        return {"queues": _about_queues(found, now), "total": len(queues), "cursor": cursor, "bounds": BOUNDS}

    def _workers(self, question: Question, now: float) -> Answer:
        workers = self._dispatcher.workers
        found, cursor = _page(workers, question)
        about = [about_worker(worker, self._address_of(worker.id), now) for worker in found]
        return {"workers": about, "total": len(workers), "cursor": cursor}

    def _tasks(self, question: Question, now: float) -> Answer:
        """Return unsettled tasks, the oldest first; or those in hand, the longest first."""
        order = _choice(question, "order", ORDERS) or OLDEST
        state = _choice(question, "state", STATES)
        queue = _queue_name(question) if "queue" in question else None
        worker = _text(question, "worker")
        tasks: Iterable[Task]
        if order == SLOWEST:
            tasks, cursor = _page(self._dispatcher.in_hand.values(), question)
        else:
            tasks, cursor = self._dispatcher.ledger.after(_number(question, "after", 0, LARGEST_NUMBER))
        wanted = (
            task
            for task in tasks
            if state in (None, task.status)
            and queue in (None, task.queue.name)
            and (worker is None or (task.status is RUNNING and worker in task.worker.name))
        )
        most = _page_size(question)
        found = list(islice(wanted, most + 1))
        if len(found) > most:
            found = found[:most]
            cursor = found[-1].number
        return {
            "tasks": [about_task(task, now) for task in found],
            "total": self._dispatcher.unsettled,
            "cursor": cursor,
        }

    def _task(self, question: Question, now: float) -> Answer:
        task = self._find(question)
        if task is not None:
            return {"task": about_task(task, now)}
        failure = self._find_failure(question)
        if failure is not None:
            return {"failure": about_failure(failure, now)}
        raise RefusedError(f"{_no_task(question)}, and it is none of the last {MOST_FAILURES} that failed")

    def _failures(self, question: Question, now: float) -> Answer:
        failures = self._dispatcher.failures
        found, cursor = _page(reversed(failures), question)
        return {
            "failures": [about_failure(failure, now) for failure in found],
            "total": len(failures),
            "cursor": cursor,
        }

    # Changes

    def _pause(self, question: Question, now: float) -> Answer:
        self._dispatcher.queues.pause(_queue_name(question))
        return self._changed(question, now)

    def _resume(self, question: Question, now: float) -> Answer:
        self._dispatcher.queues.resume(_queue_name(question))
        return self._changed(question, now)

    def _limit(self, question: Question, now: float) -> Answer:
        name = _queue_name(question)
        if not {"running", "waiting"} & question.keys():
            raise RefusedError("limit needs running, waiting, or both: whole numbers from 0 up (0: no limit)")
        running = _number(question, "running", 0, LARGEST_COUNT)
        waiting = _number(question, "waiting", 0, LARGEST_COUNT)
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
        queue = self._dispatcher.queues.get(_queue_name(question))
        return {"queue": None if queue is None else about_queue(queue, MOST_STEPS, now)}

    # How things are found

    def _queue(self, question: Question) -> Queue:
        name = _queue_name(question)
        queue = self._dispatcher.queues.get(name)
        if queue is None:
            raise RefusedError(f"there is no queue {name}: no tasks, no workers, no settings")
        return queue

    def _find(self, question: Question) -> Task | None:
        """Return the unsettled task with a key or a number; None: there is none."""
        if ("key" in question) == ("number" in question):
            raise RefusedError("say which task, by its key or its number")
        key = _text(question, "key")
        if key is not None:
            return self._dispatcher.with_key(key)
        return self._dispatcher.ledger.get(_number(question, "number", 0, LARGEST_NUMBER))

    def _find_failure(self, question: Question) -> Failure | None:
        """Return the last failure with a key or a number; None: none is remembered."""
        for failure in reversed(self._dispatcher.failures):
            if (
                question.get("key", failure.key) == failure.key
                and question.get("number", failure.number) == failure.number
            ):
                return failure
        return None


def _about_queues(queues: list[Queue], now: float) -> list[Answer]:
    """Tell of queues; the fewer there are, the further the oldest task of each is looked for."""
    steps = MOST_STEPS // max(len(queues), 1)
    return [about_queue(queue, steps, now) for queue in queues]


def _no_task(question: Question) -> str:
    which = f"key {question['key']:.50}" if "key" in question else f"number {question['number']}"
    return f"there is no unsettled task with the {which}"


def _queue_name(question: Question) -> str:
    name = question.get("queue")
    if not is_queue(name):
        raise RefusedError(f"queue must be the name of one, not {name!r:.50}")
    return str(name)


def _text(question: Question, field: str) -> str | None:
    text = question.get(field)
    if field in question and not isinstance(text, str):
        raise RefusedError(f"{field} must be text, not {text!r:.50}")
    return text


def _choice(question: Question, field: str, choices: tuple[str, ...]) -> str | None:
    chosen = _text(question, field)
    if chosen is not None and chosen not in choices:
        raise RefusedError(f"{field} must be one of {', '.join(choices)}, not {chosen!r:.50}")
    return chosen


def _number(question: Question, field: str, default: int, most: int, least: int = 0) -> int:
    number = question.get(field, default)
    if type(number) is not int or not least <= number <= most:
        raise RefusedError(f"{field} must be a whole number from {least} to {most}, not {number!r:.50}")
    return number


def _page_size(question: Question) -> int:
    return _number(question, "most", LARGEST_PAGE, LARGEST_PAGE, 1)


def _page(things: Iterable[Thing], question: Question, most: int = LARGEST_PAGE) -> tuple[list[Thing], int | None]:
    """Return a page of things, and after how many of them to go on; None: there are no more, or it goes no further."""
    after = _number(question, "after", 0, LAST_PLACE)
    end = after + min(_page_size(question), most)
    found = list(islice(things, after, end + 1))
    return found[: end - after], end if len(found) > end - after and end <= LAST_PLACE else None
