"""What is asked of tasks that are settled and in the store, and what is done to them: see PROTOCOL.md, part 4.

Lists of those that failed are in memory. What has to be read from the store, and what has to be stored, is answered
later. What is for all of some kind is done in pieces, each with a cursor from where the next one goes on.
"""

import re
from collections.abc import Callable, Iterator
from fnmatch import translate
from functools import partial
from math import inf

from zmqbroker.broker.about import Answer, about_failed, about_stored
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.questions import (
    LARGEST_NUMBER,
    Later,
    Question,
    RefusedError,
    called,
    choice,
    number,
    page_size,
    queue_name,
    text,
    which,
)
from zmqbroker.broker.store.gate import DAMAGED
from zmqbroker.broker.store.journal import NO_STORE, STORE_FAILED, Found
from zmqbroker.broker.store.outcomes import FailedTask
from zmqbroker.broker.store.rows import DamagedTask, StoredTask

LARGEST_READ = 16 << 20  # bytes; a larger body is not read to show its beginning
MOST_RETRIED = 200  # tasks in one answer
MOST_RETRIED_BYTES = 1 << 20  # of their bodies; one task may have more
MOST_FORGOTTEN = 500  # tasks in one answer
MOST_FORGOTTEN_BYTES = 16 << 20
LONGEST_GLOB = 1000  # characters: no reason is longer
FAILED_ORDERS = OLDEST, NEWEST = ("oldest", "newest")


class StoredTasks:
    """Answers what is asked of settled tasks in the store."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._journal = dispatcher.journal
        self._failed = dispatcher.journal.outcomes.failed

    def failed(self, question: Question, now: float) -> Answer:
        """Return tasks that were settled without a result."""
        self._need_store()
        found, cursor = self._choose(question, page_size(question))
        return {
            "failed": [about_failed(failed, now) for failed in found],
            "total": len(self._failed),
            "cursor": cursor,
        }

    def show(self, question: Question, otherwise: Callable[[], Answer], now: float) -> Answer | Later:
        """Return what is stored of a settled task; where there is nothing, what is to be said `otherwise`."""
        name, stored = which(question)
        if not self._dispatcher.has_store or (name is not None and not self._journal.has_settled(name)):
            return otherwise()
        later = Later()
        show = partial(self._show, later, otherwise, now)
        self._journal.want(stored if name is None else self._journal.number_of(name), show, LARGEST_READ)
        return later

    def _show(self, later: Later, otherwise: Callable[[], Answer], now: float, found: Found) -> None:
        if isinstance(found, DamagedTask):
            later.then(_damaged(found.number))
        elif self._journal.has_failed:
            later.then(RefusedError(STORE_FAILED))
        elif found is not None and found.state.until is not None:
            later.then({"stored": about_stored(found, self._journal.offset, now)})
        else:
            try:
                later.then(otherwise())
            except RefusedError as refusal:
                later.then(refusal)

    # Changes

    def retry(self, question: Question, now: float) -> Answer | Later:
        """Have tasks wait again that were settled without a result."""
        self._need_store()
        if self._dispatcher.refusing:
            raise RefusedError(self._dispatcher.refusing)
        is_all = _is_all(question)
        if is_all:
            chosen, cursor = self._choose(question, MOST_RETRIED, MOST_RETRIED_BYTES)
        else:
            chosen, cursor = [self._find_failed(question)], None
        if not chosen:
            return {"retried": 0, "left": 0, "cursor": cursor}
        later = Later()
        found: list[Found] = []

        def take(one: Found) -> None:
            found.append(one)
            if len(found) == len(chosen):
                self._retry(later, found, None if is_all else _damaged(chosen[0].number), cursor, now)

        for failed in chosen:
            self._journal.want(failed.number, take)
        return later

    def _retry(
        self, later: Later, found: list[Found], refusal: RefusedError | None, cursor: int | None, now: float
    ) -> None:
        """Have those wait again of which all was found, and which nobody has forgotten or retried meanwhile."""
        retried = 0
        for one in found:
            if isinstance(one, StoredTask) and self._failed.get(one.request.number) is not None:
                self._dispatcher.retry(one, now)
                retried += 1
        if retried or refusal is None:
            self._tell_stored(later, {"retried": retried, "left": len(found) - retried, "cursor": cursor})
        elif isinstance(found[0], DamagedTask):
            later.then(refusal)
        else:
            later.then(
                RefusedError(STORE_FAILED if self._journal.has_failed else "it was retried or forgotten just now")
            )

    def forget(self, question: Question, now: float) -> Answer | Later:
        """Drop tasks that were settled without a result from the store, or one of which anything is kept."""
        self._need_store()
        later = Later()
        if _is_all(question):
            chosen, cursor = self._choose(question, MOST_FORGOTTEN, MOST_FORGOTTEN_BYTES)
            for failed in chosen:
                self._journal.forget(failed.name, failed.number)
            self._tell_stored(later, {"forgotten": len(chosen), "cursor": cursor})
            return later
        name, stored = which(question)
        failed_one = self._failed.get(stored)
        if name is None and failed_one is not None:
            name = failed_one.name
        if name is None:
            self._refuse_unsettled(question)
            self._journal.want(stored, partial(self._forget, later, question), 0)
        elif self._journal.has_settled(name):
            self._journal.forget(name, self._journal.number_of(name))
            self._tell_stored(later, {"forgotten": 1, "cursor": None})
        else:
            self._refuse_unsettled(question)
            raise _nothing(question)
        return later

    def _forget(self, later: Later, question: Question, found: Found) -> None:
        """Drop what was found under a number."""
        if self._journal.has_failed:
            later.then(RefusedError(STORE_FAILED))
        elif found is None or (isinstance(found, StoredTask) and found.state.until is None):
            later.then(_nothing(question))
        else:
            name = found.name if isinstance(found, DamagedTask) else found.request.name
            self._journal.forget_number(question["number"], name)
            self._tell_stored(later, {"forgotten": 1, "cursor": None})

    def _tell_stored(self, later: Later, answer: Answer) -> None:
        """Give an answer once what it says is stored."""
        self._journal.after(lambda: later.then(RefusedError(STORE_FAILED) if self._journal.has_failed else answer))

    # How tasks are found

    def _choose(self, question: Question, most: int, most_bytes: float = inf) -> tuple[list[FailedTask], int | None]:
        """Return some of the failed tasks that are meant, and from where to go on; None: there are no more."""
        some, cursor = self._some(question)
        chosen: list[FailedTask] = []
        for failed in some:
            most_bytes -= failed.size
            if chosen and (len(chosen) == most or most_bytes < 0):
                return chosen, chosen[-1].number
            chosen.append(failed)
        return chosen, cursor

    def _some(self, question: Question) -> tuple[Iterator[FailedTask], int | None]:
        queue = queue_name(question) if "queue" in question else None
        matches, owner = _glob(question), text(question, "owner")
        if choice(question, "order", FAILED_ORDERS) == NEWEST:
            some, cursor = self._failed.before(number(question, "after", 0, LARGEST_NUMBER) or LARGEST_NUMBER)
        else:
            some, cursor = self._failed.after(number(question, "after", 0, LARGEST_NUMBER))
        wanted = (
            failed
            for failed in some
            if queue in (None, failed.queue) and owner in (None, failed.owner or "") and matches(failed.state.reason)
        )
        return wanted, cursor

    def _find_failed(self, question: Question) -> FailedTask:
        name, stored = which(question)
        if name is not None and self._journal.has_settled(name):
            stored = self._journal.number_of(name)
        failed = self._failed.get(stored)
        if failed is not None:
            return failed
        self._refuse_unsettled(question)
        if name is not None and self._journal.has_settled(name):
            raise _damaged(stored) if name in self._journal.damaged else RefusedError(f"task {stored} has not failed")
        raise RefusedError(f"there is no failed task with {called(question)} in the store")

    def _refuse_unsettled(self, question: Question) -> None:
        name, unsettled = which(question)
        dispatcher = self._dispatcher
        task = dispatcher.ledger.get(unsettled) if name is None else dispatcher.known_by(name)
        if task is not None:
            raise RefusedError(f"task {task.number} is {task.status}, and not settled")

    def _need_store(self) -> None:
        if not self._dispatcher.has_store:
            raise RefusedError(NO_STORE)


def _is_all(question: Question) -> bool:
    """Tell whether a question is about all tasks that fit it."""
    is_all = question.get("all", False)
    if type(is_all) is not bool:
        raise RefusedError(f"all must be true or false, not {is_all!r:.50}")
    if is_all and ("key" in question or "number" in question):
        raise RefusedError("say which task, by its key or its number, or say all")
    return is_all


def _glob(question: Question) -> Callable[[str], object]:
    """Return what tells whether a reason is one that is meant."""
    glob = text(question, "reason")
    if glob is None:
        return lambda reason: True
    if len(glob) > LONGEST_GLOB:
        raise RefusedError(f"reason must have {LONGEST_GLOB} characters at most")
    try:
        return re.compile(translate(glob)).match
    except re.error:  # as with some Pythons, for a range of characters that is none
        raise RefusedError(f"reason must be a pattern like `timed out*`, not {glob!r:.50}") from None


def _damaged(number: int) -> RefusedError:
    return RefusedError(f"task {number} is {DAMAGED}: forget it to be rid of it")


def _nothing(question: Question) -> RefusedError:
    return RefusedError(f"the store keeps nothing of a task with {called(question)}")
