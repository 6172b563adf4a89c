"""An executor, as those of concurrent.futures: it has functions called by workers, on whichever machines these are.

calls    what becomes of a call

It is a third face over the `Link` of a Client. Each call is a task; how it travels is in wire/calls.py.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import zmq

from zmqbroker.client.bodies import as_bytes
from zmqbroker.client.calls import CallFuture
from zmqbroker.client.link import Link
from zmqbroker.client.options import Options
from zmqbroker.client.requests import Requests
from zmqbroker.transport import pickling, threads
from zmqbroker.transport.destination import destination
from zmqbroker.transport.identity import FilePath
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.trust import refuse_strangers
from zmqbroker.wire.calls import CALL, QUEUE, first_frame, is_for_calls

DANGER = "answers there may run code here, as results are unpickled"
IDENTITIES = "identity= and broker_identity="
TRUST = "trust_the_network=True"

Value = TypeVar("Value")


class Executor(AnyExecutor):
    """Has functions called by the workers of `zmqbroker work --python`. Leaving its `with` block waits for all calls.

    One may be used by any threads of one process. At the end of the program the calls that are left are waited for, as
    long as a broker is there: without one for 10 seconds they are given up, which the log says. Ctrl-C ends that wait.
    """

    def __init__(
        self,
        requests: str,
        *,
        queue: str = QUEUE,
        timeout: float | None = None,
        tries: int | None = None,
        priority: int | None = None,
        group: str | None = None,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        connect_timeout: float | None = None,
        context: zmq.Context[Any] | None = None,
        identity: FilePath | None = None,
        broker_identity: FilePath | None = None,
        trust_the_network: bool = False,
    ) -> None:
        """Connect to the broker's address for requests, as a `Client` does, with the same arguments.

        `timeout` is seconds that an attempt at a call may take, `tries` how often it is begun when workers are lost;
        None leaves these, `priority` and `group` to the broker. `queue` is `python`, or `python.NAME` for workers of
        some kind. Raises ImportError without cloudpickle; ValueError as a Client does, for any other queue and, unless
        one is to `trust_the_network`, for an address of another machine without identities.
        """
        if not is_for_calls(queue):
            raise ValueError(f"an Executor has the queue {QUEUE}, or {QUEUE}.NAME, not {queue!r:.50}")
        self._first = first_frame(CALL, pickling.own_python("an Executor"))
        self._options = Options(
            queue=queue, timeout=timeout, tries=tries, priority=priority, group=group, progress=True
        )
        broker = destination(requests, keep_alive, identity=identity, broker_identity=broker_identity)
        if not trust_the_network:
            refuse_strangers(broker, DANGER, IDENTITIES, TRUST)
        self._link = Link(broker, context, connect_timeout)
        self._link.outlive(self)
        self._requests = Requests()
        self._pending: set[CallFuture] = set()
        self._lock = threading.RLock()  # a signal handler may submit, too
        self._is_shut_down = False

    def __repr__(self) -> str:
        return f"<Executor of {self._link}>"

    def submit(self, fn: Callable[..., Value], /, *args: Any, **kwargs: Any) -> Future[Value]:
        """Have a function called with these arguments, and return a future of what it returns or raises.

        What cannot be pickled is an exception of the future, as with a ProcessPoolExecutor. It raises TaskFailed where
        nothing came of the call: its workers were lost, or it timed out, as often as `tries` says. It is running, and
        cannot be cancelled, when its worker has said so, which one that takes less than 0.1 s may not. Raises
        RuntimeError after `shutdown`, and at the end of the program.
        """
        self._check_open()
        future = CallFuture(as_bytes, self._link.check_can_wait)
        try:
            pickled = pickling.dump((fn, args, kwargs))
        except Exception as error:
            future.set_exception(error)
            return future
        with self._lock:
            self._check_open()
            request = self._requests.task(self._options, [self._first, *pickled], future.settle, future.hear)
            self._link.begin(request, future, self._link.cancel)
            self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def map(
        self,
        fn: Callable[..., Value],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **more: Any,
    ) -> Iterator[Value]:
        """Return an iterator of what `map` would yield, with all calls submitted at once, as that of any executor.

        With a `chunksize`, so many calls travel as one, and the function is pickled once for them: for calls that take
        less than a millisecond. `more` is what else Executor.map of this Python takes. Raises ValueError for a
        `chunksize` below 1; the iterator raises TimeoutError when a result is not there `timeout` seconds after this
        call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return _one_by_one(super().map(partial(pickling.call_each, fn), chunks, timeout=timeout, **more))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait for those there are, or (not `wait`) have them go on.

        With `cancel_futures` those are cancelled that are not known to run. It disconnects when the last one is done.
        Raises RuntimeError where it cannot wait, in a callback of a future say.
        """
        with self._lock:
            self._is_shut_down = True
        if cancel_futures:
            for future in self._pending.copy():
                future.cancel()
        self._link.close_when_idle()
        if wait:
            self._link.finish()

    def _check_open(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if threads.has_main_ended():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def _chunks(calls: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(calls, size)):
        yield chunk


def _one_by_one(chunks: Iterator[list[Value]]) -> Iterator[Value]:
    """Yield the results of each chunk, and keep none of them."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
