"""What is said of tasks beyond their bodies, as a client is told it, and the numbers that it is told."""

import sys
from math import inf, isnan
from numbers import Integral, Real
from time import monotonic
from typing import Any, TypedDict

from zmqbroker import wire
from zmqbroker.client.request import DETACH, DURABLE, Request, Settle
from zmqbroker.wire import Frames

FROM_SUBMISSION = ("delay", "expires")  # fields that count from there, however often and late a task is sent


class TaskOptions(TypedDict, total=False):
    """What may be said of a task, whoever sends it and however; None, or nothing: as the broker is told."""

    timeout: float | None  # seconds per attempt; 0: no limit
    tries: int | None  # attempts; 0: no limit
    delay: float | None  # seconds before the first attempt
    priority: int | None  # higher first
    queue: str | None  # where it waits for a worker
    group: str | None  # whose tasks take turns, in a queue, with those of other groups
    expires: float | None  # seconds after which it is settled, waiting or running, if it has no result by then
    retry_delay: float | None  # seconds before the second attempt
    retry_factor: float | None  # by which that grows with each further one
    retry_most: float | None  # seconds that it grows to


KNOWN = TaskOptions.__annotations__.keys() | {"key", "durable", "detach", "keep", "progress", "worker"}


class Options:
    """What is said of tasks beyond their bodies, once for all that share it."""

    def __init__(self, **options: float | str | None) -> None:
        """Take it; None is as good as not said. Raises ValueError for what no broker would take, TypeError for more."""
        self.key: str | None = None  # that its user chose; None: the client makes one up
        self._stored = ""  # DURABLE or DETACH; empty: the broker does not store them
        self._spans: dict[str, float] = {}
        self._fields = ""
        if not options.keys() <= KNOWN:
            raise TypeError(f"there is no option {', '.join(options.keys() - KNOWN)}")
        if list(options.values()).count(None) == len(options):
            return
        fields = {name: plain(value) for name, value in options.items() if value is not None}
        wire.check_fields(fields)
        self.key = fields.pop("key", None)
        self._stored = next((name for name in (DETACH, DURABLE) if fields.get(name)), "")
        self._spans = {name: fields.pop(name) for name in FROM_SUBMISSION if name in fields}
        self._fields = wire.more_fields(fields)

    def request(
        self,
        key: str,
        body: Frames,
        settle: Settle | None,
        on_progress: Settle | None = None,
        id: str | None = None,
    ) -> Request:
        """Make a task's request."""
        if not self._spans:
            return Request(key, body, self._fields, settle, None, on_progress, id)
        now = monotonic()
        instants = {name: now + span for name, span in self._spans.items()}
        return Request(key, body, self._fields, settle, instants, on_progress, id, self._stored)


def plain(value: Any) -> Any:
    """Return a number or text of any kind, numpy's or an enumeration's say, as Python's own; anything else as it is."""
    if isinstance(value, str):
        return str.__str__(value)
    return _number(value)


def _number(value: Any) -> Any:
    """Return a number of any kind as Python's own; what is none as it is."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def positive(name: str, value: Any) -> int:
    """Return a whole number above 0; raises ValueError for anything else."""
    number = _number(value)
    if type(number) is not int or not 1 <= number <= sys.maxsize:
        raise ValueError(f"{name} must be a whole number, 1 or more, not {value!r:.50}")
    return number


def until(name: str, value: Any, now: float) -> float:
    """Return the instant so many seconds from now; inf for None, which is never. Raises ValueError for no number."""
    if value is None:
        return inf
    number = _number(value)
    if type(number) not in (int, float) or isnan(number):
        raise ValueError(f"{name} must be a number of seconds, not {value!r:.50}")
    return now + float(number)
