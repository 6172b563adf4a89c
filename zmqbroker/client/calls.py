"""What becomes of a call of a function, as its `Executor` sees it: what it returned, or what it raised."""

from concurrent.futures import InvalidStateError
from contextlib import suppress
from pickle import UnpicklingError
from typing import Any

from zmqbroker.client.bodies import as_bytes
from zmqbroker.client.futures import TaskFuture, failure_of, hear, note, outcome_of
from zmqbroker.transport import pickling
from zmqbroker.wire import DONE, Reply
from zmqbroker.wire.calls import RAISED, RETURNED, is_marked, parse_raised

NO_CALL = "its worker does not call functions: `zmqbroker work --python` alone is to serve this queue"


class RemoteTraceback(Exception):  # noqa: N818 (as in concurrent.futures)
    """The cause of an exception that a function has raised in a worker: its text is the traceback there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class CallFuture(TaskFuture):
    """The result of a call to come. It is `running` when its worker has said so; then it cannot be cancelled."""

    def hear(self, replies: list[Reply]) -> None:
        """Be running: a worker is at it. What it says of how far it has come is `progress`."""
        hear(self, replies)
        try:
            cancel_task = self.on_cancel.pop()
        except IndexError:  # it runs already, or was cancelled
            return
        if not self.set_running_or_notify_cancel():
            cancel_task(None)

    def settle(self, replies: list[Reply]) -> None:
        """Become what the first reply says, unless cancelled meanwhile."""
        note(self, replies[0])
        if self.done():
            return
        outcome = _read(replies[0])
        with suppress(InvalidStateError):
            if isinstance(outcome, Raised):
                self.set_exception(outcome.error)
            else:
                self.set_result(outcome)


class Raised:
    """What a call has raised, or why it has no result."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _read(reply: Reply) -> Any:
    """Return what a call has returned, or a Raised. To unpickle may raise anything, which is the call's affair."""
    if reply.status != DONE:
        return Raised(outcome_of(reply, as_bytes))
    if is_marked(reply.body, RETURNED):
        try:
            return pickling.load(reply.body[1:])
        except BaseException as error:
            return Raised(_unreadable("the result of the call", error, error))
    if is_marked(reply.body, RAISED):
        return Raised(_read_raised(reply))
    return Raised(failure_of(reply, NO_CALL))


def _read_raised(reply: Reply) -> BaseException:
    """Return what a call has raised, with the traceback as its cause."""
    trace, pickled = parse_raised(reply.body)
    try:
        error = pickling.load(pickled)
        if not isinstance(error, BaseException):
            raise TypeError(f"a {type(error).__name__} is no exception")
        error.__cause__ = RemoteTraceback(trace)
    except BaseException as why:
        last = trace.strip().rpartition("\n")[2]
        return _unreadable(f"what the call has raised ({last})", why, RemoteTraceback(trace))
    return error


def _unreadable(what: str, why: BaseException, cause: BaseException) -> UnpicklingError:
    error = UnpicklingError(f"{what} cannot be unpickled here: {pickling.described(why)}")
    error.__cause__ = cause
    return error
