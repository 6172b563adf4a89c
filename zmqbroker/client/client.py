"""A client: sends tasks from any thread, and turns their replies into futures. What it sends goes by a `Link`."""

import atexit
import itertools
import sys
import uuid
import warnings
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from math import inf, isnan
from numbers import Integral, Real
from operator import is_not
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX
from time import monotonic
from types import TracebackType
from typing import Any

import zmq

from zmqbroker import wire
from zmqbroker.client import mapping
from zmqbroker.client.futures import OnProgress, TaskFailed, TaskFuture, outcome_of
from zmqbroker.client.link import Link
from zmqbroker.client.mapping import Sender
from zmqbroker.client.session import Request, Settle
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.wire import Frames, Reply, frames_of, is_list
from zmqbroker.wire.chunks import Body

DEFAULT_WINDOW = 1000  # tasks outstanding in a `map`


class Client:
    """Sends tasks to one broker, from any thread. Leaving its `with` block closes it and fails what is outstanding.

    One that is dropped instead is closed when it has nothing outstanding, with a ResourceWarning. A signal handler may
    submit tasks and close the client. It should neither wait for a reply nor cancel a future: it may have interrupted
    what holds the locks of those.
    """

    def __init__(
        self,
        requests: str,
        context: zmq.Context[Any] | None = None,
        *,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        connect_timeout: float | None = None,
    ) -> None:
        """Connect to the broker's address for requests, whether or not it listens there yet.

        `context` is needed for inproc; None makes one. `keep_alive` says when TCP takes the broker's host for dead:
        then this connects again. After `connect_timeout` seconds without a broker that answers, tasks fail with a
        ConnectionError, and at an address for others they do so at once; None: they wait for it. Raises ValueError for
        what is no address, OSError without descriptors.
        """
        self._next_key = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count()).__next__
        self._link = Link(requests, context, keep_alive, connect_timeout)
        self._check_can_wait = self._link.check_can_wait  # one for all futures: the collector has less to look at
        self._finalizer = weakref.finalize(self, _let_go, self._link)
        self._finalizer.atexit = False
        atexit.register(self._link.close)

    def __repr__(self) -> str:
        return f"<Client of {self._link}>"

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
        queue: str | None = None,
        group: str | None = None,
        expires: float | None = None,
        retry_delay: float | None = None,
        retry_factor: float | None = None,
        retry_most: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> TaskFuture:
        """Send a task and return a future of its result, which is bytes, or a list of bytes if `body` is one.

        `timeout`, `delay`, `expires` (without a result by then it is settled), `retry_delay` and `retry_most` are in
        seconds; None leaves it to the broker. In a `queue` the tasks of each `group` take turns with the others. The
        future raises TaskFailed. A result of several frames is a list in any case. `on_progress` is called, in the
        thread that receives replies, with what the worker says of how far it has come, which is the future's `progress`
        then; None: that is not asked for. One that raises is logged, and not called again. Raises ValueError for what
        no broker would take and for what is no function, RuntimeError when the client is closed.
        """
        if on_progress is not None and not callable(on_progress):
            raise ValueError(f"on_progress must be a function, not {on_progress!r:.50}")
        asks = None if on_progress is None else True
        options = _options(
            timeout=timeout,
            tries=tries,
            delay=delay,
            priority=priority,
            queue=queue,
            group=group,
            expires=expires,
            retry_delay=retry_delay,
            retry_factor=retry_factor,
            retry_most=retry_most,
            progress=asks,
        )
        future = TaskFuture(is_list(body), self._check_can_wait, on_progress)
        request = self._request(options, frames_of(body), future.settle, future.hear if asks else None)
        future.key = request.key
        self._link.submit([request])
        future.on_cancel.append(partial(self._link.cancel, request.key))
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
        queue: str | None = None,
        group: str | None = None,
        expires: float | None = None,
        retry_delay: float | None = None,
        retry_factor: float | None = None,
        retry_most: float | None = None,
    ) -> Any:
        """Submit a task with the options of `submit`, and wait for its result.

        Raises TimeoutError after `wait` seconds (None: never), when the task is cancelled; else as the future does.
        """
        wait = None if wait is None else _seconds("wait", wait)
        options = _options(
            timeout=timeout,
            tries=tries,
            delay=delay,
            priority=priority,
            queue=queue,
            group=group,
            expires=expires,
            retry_delay=retry_delay,
            retry_factor=retry_factor,
            retry_most=retry_most,
        )
        until = inf if wait is None else monotonic() + wait
        # No future: what a signal handler raises could leave that locked, and the background thread would wait for it.
        arrived: SimpleQueue[list[Reply]] = SimpleQueue()
        request = self._request(options, frames_of(body), arrived.put)
        try:
            self._link.call(request, until)
            self._check_can_wait()
            replies = arrived.get(timeout=None if until == inf else min(max(until - monotonic(), 0.0), TIMEOUT_MAX))
        except Empty:
            self._check_can_wait()
            if self._link.cancel(request.key):
                raise TimeoutError(f"no reply within {wait:g} s; the task was cancelled") from None
            replies = arrived.get()  # it has come just now
        except BaseException:
            self._link.cancel(request.key)
            raise
        outcome = outcome_of(replies[0], as_list=is_list(body))
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
        queue: str | None = None,
        group: str | None = None,
        expires: float | None = None,
        retry_delay: float | None = None,
        retry_factor: float | None = None,
        retry_most: float | None = None,
    ) -> Iterator[Any]:
        """Yield the result of each body, in order or (not `ordered`) as they come, for any iterable, endless or not.

        At most `window` tasks are ahead of what was yielded. A failure raises TaskFailed; with `return_failures` that
        is yielded in its place. Leaving the iterator early cancels what it has outstanding. What is no sequence is
        iterated in a thread of its own, so that bodies that come slowly do not hold up results.

        With `chunk`, so many bodies travel as one task, for workers that understand it: see chunks.py.
        """
        window, chunk = _positive("window", window), _positive("chunk", chunk)
        options = _options(
            timeout=timeout,
            tries=tries,
            delay=delay,
            priority=priority,
            queue=queue,
            group=group,
            expires=expires,
            retry_delay=retry_delay,
            retry_factor=retry_factor,
            retry_most=retry_most,
        )
        sender = Sender(partial(self._request, options), self._link.submit, self._link.cancel, self._check_can_wait)
        outcomes = mapping.outcomes(sender, bodies, chunk, window, ordered)
        return outcomes if return_failures else mapping.raise_failures(outcomes)

    def close(self) -> None:
        """Fail what is outstanding, and disconnect. The broker goes on with the tasks it has.

        Tasks that were cancelled before are cancelled at the broker too, if it can be told within a second.
        """
        self._finalizer.detach()
        atexit.unregister(self._link.close)
        self._link.close()

    def _request(self, options: "_Options", body: Frames, settle: Settle, on_progress: Settle | None = None) -> Request:
        return options.request(self._next_key(), body, settle, on_progress)


def _let_go(link: Link) -> None:
    """Have the link of a client that was dropped closed as soon as can be."""
    atexit.unregister(link.close)
    text = f"a client was not closed: {link}"
    if link.close_when_idle():
        warnings.warn(text, ResourceWarning, stacklevel=2)


class _Options:
    """What is said of tasks beyond their bodies, once for all that share it."""

    def __init__(self, **options: float | str | None) -> None:
        """Take it; None is as good as not said. Raises ValueError for what no broker would take."""
        fields = {name: _plain(value) for name, value in options.items() if value is not None}
        wire.check_fields(fields)
        self._delay = fields.pop("delay", None)  # of each from its own submission on, however often it is sent
        self._expires = fields.pop("expires", None)  # the same
        self._fields = wire.more_fields(fields)

    def request(self, key: str, body: Frames, settle: Settle, on_progress: Settle | None = None) -> Request:
        """Make a task's request."""
        if self._delay is None and self._expires is None:
            return Request(key, body, self._fields, settle, None, on_progress)
        now = monotonic()
        not_before = None if self._delay is None else now + self._delay
        expires_at = None if self._expires is None else now + self._expires
        return Request(key, body, self._fields, settle, not_before, on_progress, expires_at)


_NOTHING_SAID = _Options()


def _options(**options: float | str | None) -> _Options:
    """Return what is said of tasks; of most that is nothing, which costs `submit` a tenth less."""
    return _Options(**options) if any(map(is_not, options.values(), itertools.repeat(None))) else _NOTHING_SAID


def _plain(value: Any) -> Any:
    """Return a number or text of any kind, numpy's or an enumeration's say, as Python's own; anything else as it is."""
    if isinstance(value, str):
        return str.__str__(value)
    return _number(value)


def _number(value: Any) -> Any:
    """Return a number of any kind as Python's own; what is none as it is."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def _positive(name: str, value: Any) -> int:
    number = _number(value)
    if type(number) is not int or not 1 <= number <= sys.maxsize:
        raise ValueError(f"{name} must be a whole number, 1 or more, not {value!r:.50}")
    return number


def _seconds(name: str, value: Any) -> float:
    number = _number(value)
    if type(number) not in (int, float) or isnan(number):
        raise ValueError(f"{name} must be a number of seconds, not {value!r:.50}")
    return float(number)
