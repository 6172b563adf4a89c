"""What becomes of a task, as a coroutine sees it, and how it asks for what comes at once."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from zmqbroker.client.bodies import Read
from zmqbroker.client.bridge import Bridge
from zmqbroker.client.futures import CLOSED, OnProgress, hear, log, name_of, note, outcome_of
from zmqbroker.client.link import Link
from zmqbroker.client.request import Request
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.wire import Reply


class AsyncTaskFuture(asyncio.Future[Any]):
    """The result of a task to come. Cancelling it cancels the task, waiting or running, if it was submitted by it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read: Read, on_progress: OnProgress | None = None) -> None:
        super().__init__(loop=loop)
        self.progress: dict[str, Any] | None = None  # how far the task has come, when last heard; None: not heard yet
        self.key: str | None = None  # what its client calls the task
        self.number: int | None = None  # that of the task in the broker's log; None: not known yet, or it became none
        self.status: str | None = None  # of the reply: see `wire.Reply`; None: there is none yet
        self.attempts = 0  # that the task has used up; 0 also while that is not known
        self.worker: str | None = None  # the name of the one that had it last; None: nobody had it, or it is not known
        self.on_progress = None if on_progress is None else _in_this_context(on_progress)
        self.on_cancel: Callable[[], object] | None = None  # cancels the task, or waits for it no longer
        self._read = read

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task, or leave it alone if only its outcome was asked for; False when this is done already."""
        if not super().cancel(msg):
            return False
        if self.on_cancel is not None:
            self.on_cancel()
        return True

    def hear(self, replies: list[Reply]) -> None:
        """Have it known how far the task has come. What the hook raises is logged."""
        try:
            hear(self, replies)
        except Exception as error:
            log_safely(log.error, "%s: a callback failed", name_of(replies[0]), exc_info=error)

    def settle(self, replies: list[Reply]) -> None:
        """Become what the first reply says, unless cancelled meanwhile."""
        note(self, replies[0])
        if self.done():
            return
        outcome = outcome_of(replies[0], self._read)
        if not isinstance(outcome, Exception):
            self.set_result(outcome)
            return
        self.set_exception(outcome)
        if replies[0].status == CLOSED:
            self.exception()  # whoever has closed the client knows: that nobody asks is no fault to be logged


def _in_this_context(hook: OnProgress) -> OnProgress:
    """Return the same function, for it to be called with the context variables that there are now, as a loop does."""
    context = copy_context()
    return lambda progress: context.run(hook, progress)


async def ask(bridge: Bridge, link: Link, request: Request, until: float, leave: Callable[[str], bool]) -> Reply | None:
    """Send a request, and wait for its answer; None: it was left without one, at the instant `until` (inf: never).

    To leave it is what `leave` does with its name, and is done as well when this is cancelled.
    """
    arrival: asyncio.Future[Reply] = bridge.loop.create_future()
    request.settle = bridge.carry(partial(_arrive, arrival))
    link.submit([request])
    try:
        if until < inf:
            await asyncio.wait((arrival,), timeout=until - monotonic())
            if not arrival.done() and leave(request.name):
                return None
        return await arrival  # it has come just now, if it could not be left
    except BaseException:
        leave(request.name)
        raise


def _arrive(arrival: "asyncio.Future[Reply]", replies: list[Reply]) -> None:
    if not arrival.done():
        arrival.set_result(replies[0])
