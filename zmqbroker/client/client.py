"""A client: sends tasks from any thread, and turns their replies into futures. What it sends goes by a `Link`."""

import atexit
import itertools
import sys
import uuid
from collections.abc import Iterable, Iterator
from functools import partial
from math import inf, isnan
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX
from time import monotonic
from types import TracebackType
from typing import Any

import zmq

from zmqbroker import wire
from zmqbroker.client import mapping
from zmqbroker.client.futures import TaskFailed, TaskFuture, outcome_of
from zmqbroker.client.link import Link, Settle
from zmqbroker.client.mapping import Sender, frames_of
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.wire import Frames, Reply
from zmqbroker.wire.chunks import Body

DEFAULT_WINDOW = 1000  # tasks outstanding in a `map`
CANCEL = wire.more_fields({"cancel": True})


class Client:
    """Sends tasks to one broker, from any thread. A context manager; closing it fails what is outstanding.

    A signal handler may submit tasks and close the client. It should neither wait for a reply nor cancel a future: it
    may have interrupted what holds the locks of those.
    """

    def __init__(
        self,
        requests: str,
        context: zmq.Context[Any] | None = None,
        *,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
    ) -> None:
        """Connect to the broker's address for requests, whether or not it listens there yet.

        `context` is needed for inproc; None makes one. `keep_alive` says when TCP takes the broker's host for dead:
        then this connects again. Raises ValueError for what is no address.
        """
        self._next_key = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count()).__next__
        self._link = Link(requests, context, keep_alive)
        self._check_can_wait = self._link.check_can_wait  # one for all futures: the collector has less to look at
        atexit.register(self.close)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self,
        body: Body,
        *,
        timeout: float | None = None,
        tries: int | None = None,
        delay: float | None = None,
        priority: int | None = None,
    ) -> TaskFuture:
        """Send a task and return a future of its result, which is bytes, or a list of bytes if `body` is one.

        `timeout` and `delay` are in seconds; None leaves it to the broker. The future raises TaskFailed.
        A result of several frames is a list in any case. Raises RuntimeError when the client is closed.
        """
        fields = _fields(timeout=timeout, tries=tries, delay=delay, priority=priority)
        future = TaskFuture(not isinstance(body, bytes), self._check_can_wait)
        key = self._send(fields, frames_of(body), future.settle)
        future.on_cancel.append(partial(self._cancel, key))
        return future

    def call(
        self,
        body: Body,
        wait: float | None = None,
        *,
        timeout: float | None = None,
        tries: int | None = None,
        delay: float | None = None,
        priority: int | None = None,
    ) -> Any:
        """Submit a task with the options of `submit`, and wait for its result.

        Raises TimeoutError after `wait` seconds (None: never), when the task is cancelled; else as the future does.
        """
        if wait is not None and isnan(wait):
            raise ValueError("wait must be a number of seconds, not nan")
        fields = _fields(timeout=timeout, tries=tries, delay=delay, priority=priority)
        until = inf if wait is None else monotonic() + wait
        # No future: what a signal handler raises could leave that locked, and the background thread would wait for it.
        arrived: SimpleQueue[Reply] = SimpleQueue()
        key, message = self._prepare(fields, frames_of(body))
        try:
            self._link.call(key, message, arrived.put, until)
            self._check_can_wait()
            reply = arrived.get(timeout=None if until == inf else min(max(until - monotonic(), 0.0), TIMEOUT_MAX))
        except Empty:
            self._check_can_wait()
            if self._cancel(key):
                raise TimeoutError(f"no reply within {wait:g} s; the task was cancelled") from None
            reply = arrived.get()  # it has come just now
        except BaseException:
            self._cancel(key)
            raise
        outcome = outcome_of(reply, as_list=not isinstance(body, bytes))
        if isinstance(outcome, TaskFailed):
            raise outcome
        return outcome

    def map(
        self,
        bodies: Iterable[Body],
        *,
        window: int = DEFAULT_WINDOW,
        chunk: int = 1,
        ordered: bool = True,
        return_failures: bool = False,
        timeout: float | None = None,
        tries: int | None = None,
        delay: float | None = None,
        priority: int | None = None,
    ) -> Iterator[Any]:
        """Yield the result of each body, in order or (not `ordered`) as they come, for any iterable, endless or not.

        At most `window` tasks are ahead of what was yielded. A failure raises TaskFailed; with `return_failures` that
        is yielded in its place. Leaving the iterator early cancels what it has outstanding.

        With `chunk`, so many bodies travel as one task, for workers that understand it: see chunks.py.
        """
        for name, number in {"window": window, "chunk": chunk}.items():
            if not (isinstance(number, int) and 1 <= number <= sys.maxsize):
                raise ValueError(f"{name} must be a whole number, 1 or more, not {number}")
        fields = _fields(timeout=timeout, tries=tries, delay=delay, priority=priority)
        sender = Sender(partial(self._send, fields), self._cancel, self._check_can_wait)
        requests = mapping.single_requests(bodies) if chunk == 1 else mapping.chunk_requests(bodies, chunk)
        outcomes = mapping.outcomes(sender, requests, window, ordered)
        return outcomes if return_failures else mapping.raise_failures(outcomes)

    def close(self) -> None:
        """Fail what is outstanding, and disconnect. The broker goes on with the tasks it has.

        Tasks that were cancelled before are cancelled at the broker too, if it can be told within a second.
        """
        atexit.unregister(self.close)
        self._link.close()

    def _prepare(self, fields: str, body: Frames) -> tuple[str, Frames]:
        """Return the key of a new task, and the message that sends it."""
        key = self._next_key()
        return key, wire.request_message(body, key, fields)

    def _send(self, fields: str, body: Frames, settle: Settle) -> str:
        key, message = self._prepare(fields, body)
        self._link.send(key, message, settle)
        return key

    def _cancel(self, key: str, settle: Settle | None = None) -> bool:
        """Cancel a task, and have `settle` given the answer; False when it has its reply, or is of another process."""
        return self._link.cancel(key, wire.request_message([b""], key, CANCEL), settle)


def _fields(**options: float | None) -> str:
    """Write what was said as fields of a header; raises ValueError for what no broker would take."""
    fields = {name: value for name, value in options.items() if value is not None}
    wire.check_fields(fields)
    return wire.more_fields(fields)
