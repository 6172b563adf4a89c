"""What becomes of a task, as its client sees it: a result, or a TaskFailed that says why there is none."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, Protocol

from zmqbroker import wire
from zmqbroker.client.bodies import Read, as_bytes, value_of
from zmqbroker.client.request import Settle
from zmqbroker.transport.limited_log import log_safely, printable, task_name
from zmqbroker.wire import ACCEPTED, DONE, FAILED, UNKNOWN, UNSETTLED, Reply

OnProgress = Callable[[dict[str, Any]], object]

CLOSED = "closed"  # the status of a task whose client was closed
UNREACHABLE = "unreachable"  # the status of a task whose address is wrong, or whose broker did not answer in time

log = logging.getLogger("zmqbroker.client")


class TaskFailed(Exception):  # noqa: N818 (it is the task that failed)
    """A task has no result: `reason` says why in words, `status` in one, `attempts` how often it was tried.

    `number` is that of the task in the broker's log; None: it became none there. `key` is what this client calls it.
    """

    def __init__(
        self, reason: str, status: str, attempts: int, number: int | None = None, key: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.attempts = attempts
        self.number = number
        self.key = key

    def __reduce__(self) -> Any:
        return type(self), (self.reason, self.status, self.attempts, self.number, self.key)

    @property
    def task(self) -> str:
        """What the logs of broker, worker and client call the task: `task NUMBER (KEY)`."""
        return task_name(self.number, self.key)


class Unreachable(TaskFailed, ConnectionError):  # noqa: N818 (it is a kind of TaskFailed)
    """A task has no result, as no broker was there."""


class Hearing(Protocol):
    """A future that hears how far its task has come."""

    progress: dict[str, Any] | None
    on_progress: OnProgress | None


class Settled(Protocol):
    """A future that says what the reply to its request has told."""

    status: str | None
    number: int | None
    attempts: int
    worker: str | None


def hear(future: Hearing, replies: list[Reply]) -> None:
    """Have it known how far a task has come: only the last one counts. What the hook raises is raised."""
    try:
        future.progress = wire.parse_progress(replies[-1].body)
    except wire.MalformedError as error:
        log_safely(log.warning, "%s: %s", name_of(replies[-1]), error)
        return
    hook, future.on_progress = future.on_progress, None  # one that raises is not called again
    if hook is not None:
        hook(future.progress)
        future.on_progress = hook


def note(future: Settled, reply: Reply) -> None:
    """Have a future say what a reply tells besides the result."""
    future.status, future.number, future.attempts, future.worker = (
        reply.status,
        reply.number,
        reply.attempts,
        reply.worker,
    )


def check_hook(on_progress: OnProgress | None, detach: bool | None) -> None:
    """Raise ValueError for what is no function, and for one that would never be called."""
    if on_progress is not None and (detach or not callable(on_progress)):
        what = "goes with no detach" if detach else f"must be a function, not {on_progress!r:.50}"
        raise ValueError(f"on_progress {what}")


class TaskFuture(Future[Any]):
    """The result of a task to come. Cancelling it cancels the task, waiting or running, if it was submitted by it."""

    def __init__(self, read: Read, check_can_wait: Callable[[], None], on_progress: OnProgress | None = None) -> None:
        super().__init__()
        self.progress: dict[str, Any] | None = None  # how far the task has come, when last heard; None: not heard yet
        self.key: str | None = None  # what its client calls the task
        self.number: int | None = None  # that of the task in the broker's log; None: not known yet, or it became none
        self.status: str | None = None  # of the reply: see `wire.Reply`; None: there is none yet
        self.attempts = 0  # that the task has used up; 0 also while that is not known
        self.worker: str | None = None  # the name of the one that had it last; None: nobody had it, or it is not known
        self.on_progress = on_progress
        self._read = read
        self._check_can_wait = check_can_wait
        # What cancels the task, or waits for it no longer, and gives the answer to whom it is called with; empty once
        # that is done.
        self.on_cancel: list[Callable[[Settle | None], object]] = []

    def cancel(self) -> bool:
        """Cancel the task, or leave it alone if only its outcome was asked for; False when it has its reply already."""
        if not super().cancel():
            return False
        try:
            cancel_task = self.on_cancel.pop()
        except IndexError:  # another call was first
            return True
        self.set_running_or_notify_cancel()  # tells those who wait for several futures
        cancel_task(None)
        return True

    def withdraw(self) -> None:
        """Cancel the task, but become what the broker answers: a TaskFailed, or a result that was on its way."""
        for cancel_task in list(self.on_cancel):
            cancel_task(self.settle)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, in seconds.

        Raises RuntimeError where it cannot come: in a process that was forked since, and in a signal handler that has
        interrupted the client in the middle of a message.
        """
        self._check()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for what `result` raises, as that does."""
        self._check()
        return super().exception(timeout)

    def __await__(self) -> NoReturn:
        raise TypeError(
            "the future of a Client is for threads: await asyncio.wrap_future(future), or use an AsyncClient instead"
        )

    def _check(self) -> None:
        if not self.done():
            self._check_can_wait()

    def add_done_callback(self, fn: "Callable[[Future[Any]], object]") -> None:
        """Have `fn` called with this future when it is done, in the thread that receives replies, or at once.

        Others wait as long as it takes. What it raises is logged.
        """
        super().add_done_callback(partial(_call, fn))

    def settle(self, replies: list[Reply]) -> None:
        """Become what the first reply says, unless cancelled meanwhile."""
        note(self, replies[0])
        outcome = outcome_of(replies[0], self._read)
        with suppress(InvalidStateError):
            if isinstance(outcome, Exception):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)


def failed(error: Exception) -> TaskFuture:
    """Return the future of a task that was not even sent."""
    future = TaskFuture(as_bytes, lambda: None)
    future.set_exception(error)
    return future


def _call(callback: "Callable[[Future[Any]], object]", future: TaskFuture) -> None:
    """Call a callback: the standard library sees to its exceptions, but what is no Exception would end our thread."""
    try:
        callback(future)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        name = task_name(future.number, future.key)
        log_safely(log.error, "%s: a callback of its future failed", name, exc_info=error)


def outcome_of(reply: Reply, read: Read) -> Any:
    """Return what a reply means: the result as it is to be read, or the exception that says why there is none.

    A task that was left has its key for a result. That there is no outcome yet is a TimeoutError, that there is no such
    task a KeyError, and a result that cannot be read a ValueError.
    """
    return value_of(reply.body, read) if reply.status == DONE else _other_outcome(reply)


def result_of(reply: Reply, read: Read) -> Any:
    """Return the result that a reply has, and raise what says why there is none."""
    outcome = outcome_of(reply, read)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _other_outcome(reply: Reply) -> Any:
    if reply.status == ACCEPTED:
        return reply.key
    if reply.status == UNKNOWN:
        return KeyError(reply.key)
    if reply.status in UNSETTLED:
        return TimeoutError(f"it has no outcome yet: {reply.status}")
    return failure_of(reply, reply.reason, reply.status)


def failure_of(reply: Reply, reason: str, status: str = FAILED) -> TaskFailed:
    """Return why a task, or a body of a chunk, has no result; a verbose log tells it."""
    kind = Unreachable if status == UNREACHABLE else TaskFailed
    failure = kind(reason, status, reply.attempts, reply.number, reply.key)
    if log.isEnabledFor(logging.DEBUG):
        attempts = f"{reply.attempts} attempt{'' if reply.attempts == 1 else 's'}"
        log_safely(log.debug, "%s %s after %s: %s", failure.task, status, attempts, printable(reason))
    return failure


def name_of(reply: Reply) -> str:
    """Return what logs call the task of a reply."""
    return task_name(reply.number, reply.key)
