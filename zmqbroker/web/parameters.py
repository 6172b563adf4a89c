"""What the addresses of answers take after their `?`: it is checked here, before a broker is asked."""

from collections.abc import Iterable

from zmqbroker.wire.control import LARGEST_QUESTION, write

LARGEST = 2**63 - 1
LONGEST = 1000  # characters of a text
ROOM = 100  # bytes that a question takes without its fields
WHOLE = ("after", "most", "number")
LISTS = "after", "most"
ALLOWED = {  # by what is asked for; besides `broker`
    "status": (),
    "queues": (*LISTS, "queue"),
    "workers": LISTS,
    "tasks": (*LISTS, "state", "queue", "worker", "owner", "order"),
    "task": ("key", "owner", "number"),
    "failures": LISTS,
    "failed": (*LISTS, "queue", "owner", "reason", "order"),
}
WALKED = {"queues": ("find", "sort", *LISTS), "workers": ("find", "sort", *LISTS)}  # of all that a broker has
BROKER = "broker"

Value = int | str


class ParameterError(ValueError):
    """What is given makes no sense."""


def read(given: Iterable[tuple[str, str]], allowed: Iterable[str]) -> dict[str, Value]:
    """Return the fields that are given, but for the broker that is meant; raises ParameterError for others."""
    taken = (*allowed, BROKER)
    fields: dict[str, Value] = {}
    for name, text in given:
        if name not in taken:
            raise ParameterError(f"there is no {name!r:.50} here, but {', '.join(taken)}")
        if name in fields:
            raise ParameterError(f"{name} is given twice")
        fields[name] = _whole(name, text) if name in WHOLE else _text(name, text)
    fields.pop(BROKER, None)
    if len(write(fields)) + ROOM > LARGEST_QUESTION:
        raise ParameterError("this is more than a broker can be asked: it takes shorter texts")
    return fields


def _whole(name: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST)) and int(text) <= LARGEST:
        return int(text)
    raise ParameterError(f"{name} must be a whole number from 0 to {LARGEST}, not {text!r:.50}")


def _text(name: str, text: str) -> str:
    if len(text) > LONGEST:
        raise ParameterError(f"{name} has {LONGEST} characters at most")
    return text
