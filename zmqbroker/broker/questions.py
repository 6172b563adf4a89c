"""What questions to the control socket say: their fields are read, and pages cut, for who answers them."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from zmqbroker.broker.about import Answer
from zmqbroker.broker.task import Name, name_of
from zmqbroker.wire import is_queue

LARGEST_PAGE = 50  # workers, tasks or failures: as many as take a millisecond
LAST_PLACE = 50_000  # in a list that has to be walked from its beginning
LARGEST_NUMBER = 2**63 - 1  # of a task

Question = dict[str, Any]
Thing = TypeVar("Thing")


class RefusedError(Exception):
    """A question that makes no sense; its text says why."""


class Later:
    """An answer that is not there yet, as the store is asked for it, or has to store something first."""

    def __init__(self) -> None:
        """Begin; who waits for the answer sets `then`, before the turn is stored."""
        self.then: Callable[[Answer | RefusedError], None] = _ignore


def _ignore(answer: Answer | RefusedError) -> None:
    """Do nothing: nobody waits for it."""


def which(question: Question) -> tuple[Name | None, int]:
    """Return the name of the task that is meant, or None and its number."""
    if ("key" in question) == ("number" in question):
        raise RefusedError("say which task, by its key or its number")
    key = text(question, "key")
    name = None if key is None else name_of(key, text(question, "owner") or None)  # empty: nobody's in particular
    return name, number(question, "number", 0, LARGEST_NUMBER)


def called(question: Question) -> str:
    """Return what the task that is meant is called."""
    if "key" not in question:
        return f"the number {question['number']}"
    whose = f" of {question['owner']:.50}" if question.get("owner") else ""
    return f"the key {question['key']:.50}{whose}"


def queue_name(question: Question) -> str:
    """Return the name of the queue that is meant."""
    name = question.get("queue")
    if not is_queue(name):
        raise RefusedError(f"queue must be the name of one, not {name!r:.50}")
    return str(name)


def text(question: Question, field: str) -> str | None:
    """Return what a field says; None: it is not there."""
    said = question.get(field)
    if field in question and not isinstance(said, str):
        raise RefusedError(f"{field} must be text, not {said!r:.50}")
    return said


def choice(question: Question, field: str, choices: tuple[str, ...]) -> str | None:
    """Return one of several words; None: the field is not there."""
    chosen = text(question, field)
    if chosen is not None and chosen not in choices:
        raise RefusedError(f"{field} must be one of {', '.join(choices)}, not {chosen!r:.50}")
    return chosen


def number(question: Question, field: str, default: int, most: int, least: int = 0) -> int:
    """Return a whole number in these bounds."""
    said = question.get(field, default)
    if type(said) is not int or not least <= said <= most:
        raise RefusedError(f"{field} must be a whole number from {least} to {most}, not {said!r:.50}")
    return said


def page_size(question: Question) -> int:
    """Return how many things are wanted at most."""
    return number(question, "most", LARGEST_PAGE, LARGEST_PAGE, 1)


def page(things: Iterable[Thing], question: Question, most: int = LARGEST_PAGE) -> tuple[list[Thing], int | None]:
    """Return a page of things, and after how many of them to go on; None: there are no more, or it goes no further."""
    after = number(question, "after", 0, LAST_PLACE)
    end = after + min(page_size(question), most)
    found = list(islice(things, after, end + 1))
    return found[: end - after], end if len(found) > end - after and end <= LAST_PLACE else None
