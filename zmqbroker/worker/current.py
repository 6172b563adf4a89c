"""The task in hand, for whoever works on it: `current_task()`."""

from contextvars import ContextVar
from math import nan
from typing import Any

from zmqbroker.transport.limited_log import task_name
from zmqbroker.wire import LONGEST_SPAN
from zmqbroker.wire.announced import LARGEST_PROGRESS, Given
from zmqbroker.wire.header import quote
from zmqbroker.worker.keeper import Keeper


class CurrentTask:
    """A task that a worker has in hand: what it tells about itself, and what can be said of it.

    When it is done, what is said of it counts no more.
    """

    __slots__ = ("_fields", "_given", "_keeper")

    def __init__(self, keeper: Keeper, given: Given) -> None:
        self._keeper = keeper
        self._given = given
        self._fields: dict[str, Any] | None = None  # None: nobody has asked

    @property
    def attempt_id(self) -> bytes:
        """What names task and attempt to the broker."""
        return self._given.attempt_id

    @property
    def key(self) -> str | None:
        """The key that the client has chosen; None: none."""
        key: str | None = self._field("key")
        return key

    @property
    def queue(self) -> str:
        """The queue that the task was sent to."""
        return self._field("queue") or "default"

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._field("attempt") or 1

    @property
    def tries(self) -> int:
        """How many attempts there may be; 0: no limit."""
        return self._field("tries") or 0

    @property
    def timeout(self) -> float | None:
        """How many seconds the attempt may take; None: no limit."""
        timeout: float | None = self._field("timeout")
        return timeout

    @property
    def number(self) -> int:
        """The number of the task in the log of the broker."""
        return self._field("number") or 0

    @property
    def name(self) -> str:
        """What the logs of broker, worker and client call it: `task NUMBER (KEY)`."""
        return task_name(self.number, self.key, "a task")

    @property
    def worker(self) -> str:
        """What the broker's log calls the worker that has it: `LABEL (HOST:PID)`, or `HOST:PID` without a label."""
        return self._keeper.worker_name

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the result any more. It is known after 50 ms of a task at the earliest."""
        return self._keeper.is_cancelled(self._given)

    def touch(self, seconds: float | None = None) -> None:
        """Ask for more time: `seconds` from now, or (None) the timeout once more.

        From any thread. Raises ValueError for what is no number of seconds, RuntimeError in a process forked since.
        """
        self._keeper.touch(self._given, None if seconds is None else span(seconds))

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the task has come, as often as you like: the last word counts, ten times a second.

        From any thread. Raises ValueError for more than 4,096 bytes of JSON and for what is no finite number, TypeError
        for what is not to be told in JSON, RuntimeError in a process forked since.
        """
        said = quote({"done": done, "total": total, "text": text}).encode()
        if len(said) > LARGEST_PROGRESS:
            raise ValueError(f"progress of {len(said):,} bytes: {LARGEST_PROGRESS:,} is the most")
        self._keeper.progress(self._given, said)

    def _field(self, name: str) -> Any:
        if self._fields is None:
            self._fields = self._given.fields
        return self._fields.get(name)


in_hand: ContextVar[CurrentTask | None] = ContextVar("zmqbroker task in hand", default=None)


def current_task() -> CurrentTask:
    """Return the task in hand, in a handler; raises RuntimeError anywhere else."""
    task = in_hand.get()
    if task is None:
        raise RuntimeError("there is no task in hand: current_task() is for a handler, while it runs")
    return task


def span(seconds: Any) -> float:
    """Return seconds as a number; raises ValueError for what a touch does not take."""
    try:
        number = float(seconds)
    except (TypeError, ValueError, OverflowError):
        number = nan
    if not 0 < number <= LONGEST_SPAN:
        raise ValueError(f"touch takes seconds above 0 and up to {LONGEST_SPAN:,.0f}, not {seconds!r:.100}")
    return number
