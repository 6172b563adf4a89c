"""A client: sends tasks from any thread, and turns their replies into futures. What it sends goes by a `Link`.

options    what is said of tasks beyond their bodies
bodies     what is given for a body, and how the result of that is read
asking     what a thread asks and waits for itself, and questions about tasks
mapping    any number of tasks through a window: what is decided
iterating  and how it is done in threads
futures    what becomes of a task, as its client sees it
"""

from collections.abc import Iterable, Iterator
from functools import partial
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq

from zmqbroker.client import asking, iterating
from zmqbroker.client.asking import ask
from zmqbroker.client.bodies import UNSAID, prepare, reading
from zmqbroker.client.futures import OnProgress, TaskFuture, check_hook, hear, result_of
from zmqbroker.client.link import Link
from zmqbroker.client.mapping import Sender
from zmqbroker.client.options import Options, TaskOptions, positive, until
from zmqbroker.client.requests import Requests
from zmqbroker.transport.destination import destination
from zmqbroker.transport.identity import FilePath
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.wire.chunks import Body

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_WINDOW = 1000  # tasks outstanding in a `map`
ANSWER = 30.0  # seconds that a broker has to answer a `fetch`, in addition to those that it may wait


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
        identity: FilePath | None = None,
        broker_identity: FilePath | None = None,
    ) -> None:
        """Connect to the broker's address for requests, whether or not it listens there yet.

        `context` is needed for inproc; None makes one. `keep_alive` says when TCP takes the broker's host for dead:
        then this connects again. After `connect_timeout` seconds without a broker that answers, tasks fail with a
        ConnectionError, and at an address for others they do so at once; None: they wait for it. `identity` is a file
        with a pair of keys, NAME.secret, and `broker_identity` one with the broker's public key; None: those that the
        environment names, if it does. Raises ValueError for what is no address and no identity, OSError without
        descriptors.
        """
        broker = destination(requests, keep_alive, identity=identity, broker_identity=broker_identity)
        self._link = Link(broker, context, connect_timeout)
        self._link.belong_to(self)
        self._requests = Requests()
        self._check_can_wait = self._link.check_can_wait  # one for all futures: the collector has less to look at

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
        body: Body = UNSAID,
        *,
        json: Any = UNSAID,
        key: str | None = None,
        durable: bool | None = None,
        detach: bool | None = None,
        keep: float | None = None,
        on_progress: OnProgress | None = None,
        worker: bool | None = None,
        **options: "Unpack[TaskOptions]",
    ) -> TaskFuture:
        """Send a task and return a future of its result, which is bytes, or a list of bytes if `body` is one.

        With `json` in place of a body, that value travels as JSON, and the result is what JSON comes back. `options`
        are those of TaskOptions: timeout, tries, delay, priority, queue, group, expires, retry_delay, retry_factor,
        retry_most. The future raises TaskFailed. A result of several frames is a list in any case. `on_progress` is
        called, in the thread that receives replies, with what the worker says of how far it has come, which is the
        future's `progress` then; None: that is not asked for. One that raises is logged, and not called again. With
        `worker` the future's `worker` is the name of the one that had the task last, once it has its outcome.

        `key` is text that names the task, for whoever asks about it, and joins one that there is; None: one that is
        made up. A `durable` task outlives the broker, and with `detach` the future's result is its key, as soon as the
        broker has stored it; `keep` says for how many seconds after its end its outcome is had by `fetch`. Raises
        ValueError for what no broker would take and for what is no function, TypeError for what is no body and what
        JSON has no word for, RuntimeError when the client is closed.
        """
        check_hook(on_progress, detach)
        asks = None if on_progress is None else True
        wishes = Options(
            key=key,
            durable=durable,
            detach=detach,
            keep=keep,
            progress=asks,
            worker=worker,
            **options,
        )
        frames, read = prepare(body, json)
        future = TaskFuture(read, self._check_can_wait, on_progress)
        request = self._requests.task(wishes, frames, future.settle, partial(hear, future) if asks else None)
        self._link.begin(request, future, self._link.cancel)
        return future

    def call(
        self,
        body: Body = UNSAID,
        wait: float | None = None,
        *,
        json: Any = UNSAID,
        key: str | None = None,
        durable: bool | None = None,
        keep: float | None = None,
        **options: "Unpack[TaskOptions]",
    ) -> Any:
        """Submit a task with the options of `submit`, and wait for its result.

        Raises TimeoutError after `wait` seconds (None: never), when the task is cancelled; else as the future does.
        """
        at_last = until("wait", wait, monotonic())
        wishes = Options(key=key, durable=durable, keep=keep, **options)
        frames, read = prepare(body, json)
        reply = ask(self._link, self._requests.task(wishes, frames), at_last, self._link.cancel)
        if reply is None:
            raise TimeoutError(f"no reply within {wait:g} s; the task was cancelled")
        return result_of(reply, read)

    def map(
        self,
        bodies: Iterable[Any],
        *,
        window: int = DEFAULT_WINDOW,
        chunk: int = 1,
        ordered: bool = True,
        return_failures: bool = False,
        as_json: bool = False,
        durable: bool | None = None,
        **options: "Unpack[TaskOptions]",
    ) -> Iterator[Any]:
        """Yield the result of each body, in order or (not `ordered`) as they come, for any iterable, endless or not.

        At most `window` tasks are ahead of what was yielded. A failure raises TaskFailed; with `return_failures` that
        is yielded in its place. Leaving the iterator early cancels what it has outstanding. What is no sequence is
        iterated in a thread of its own, so that bodies that come slowly do not hold up results.

        With `chunk`, so many bodies travel as one task, for workers that understand it: see chunks.py. With `as_json`
        what is given are values that travel as JSON, and so do the results.
        """
        window, chunk = positive("window", window), positive("chunk", chunk)
        wishes = Options(durable=durable, **options)
        sender = Sender(
            partial(self._requests.task, wishes), self._link.submit, self._link.cancel, self._check_can_wait
        )
        outcomes = iterating.outcomes(sender, bodies, as_json, chunk, window, ordered)
        return outcomes if return_failures else iterating.raise_failures(outcomes)

    def send(
        self,
        body: Body = UNSAID,
        *,
        json: Any = UNSAID,
        key: str | None = None,
        keep: float | None = None,
        **options: "Unpack[TaskOptions]",
    ) -> str:
        """Leave a task with the broker, and return its key when that has stored it; see `submit` for the options.

        Raises TaskFailed when it cannot be left there. One whose sending is interrupted is cancelled.
        """
        wishes = Options(key=key, detach=True, keep=keep, **options)
        frames, read = prepare(body, json)
        reply = ask(self._link, self._requests.task(wishes, frames), inf, self._link.cancel)
        return str("" if reply is None else result_of(reply, read))

    def fetch(self, key: str, wait: float | None = 0.0, *, as_json: bool = False) -> Any:
        """Return the result of the task with this key, of whichever client: bytes, or a list of several frames.

        With `as_json` it is what the result says in JSON; ValueError if it is none.

        It may come within `wait` seconds (None: whenever it comes). Raises TimeoutError when it does not, or when no
        broker has answered ANSWER seconds later, KeyError for a task that is not known, and TaskFailed for one that has
        no result.
        """
        at_last = until("wait", wait, monotonic())
        request = self._requests.question(key, None, {"fetch": at_last})
        reply = ask(self._link, request, at_last + ANSWER, self._link.drop)
        if reply is None:
            raise TimeoutError(f"the broker has not answered within {wait:g} and {ANSWER:g} s")
        return result_of(reply, reading(as_json))

    def outcome(self, key: str, wait: float | None = 0.0, *, as_json: bool = False) -> TaskFuture:
        """Return a future of what `fetch` returns or raises, but for how long the broker takes to answer.

        Cancelling that leaves the task alone.
        """
        future = TaskFuture(reading(as_json), self._check_can_wait)
        request = self._requests.question(key, future.settle, {"fetch": until("wait", wait, monotonic())})
        self._link.begin(request, future, self._link.drop)
        return future

    def cancel(self, key: str) -> None:
        """Cancel the task with this key, of whichever client, waiting or running.

        Raises KeyError when there is none, or it has its outcome already; TaskFailed when the client was closed.
        """
        request = self._requests.question(key, cancel=True)
        reply = ask(self._link, request, inf, self._link.drop)
        if reply is not None:
            asking.check_cancelled(key, reply)

    def forget(self, *keys: str) -> None:
        """Have the broker drop the outcomes of the tasks with these keys, if it has any; returns when that is done.

        Raises concurrent.futures.InvalidStateError when some have none yet: cancel those first. All others are
        forgotten then.
        """
        asking.forget(self._link, [self._requests.question(key, forget=True) for key in keys])

    def close(self) -> None:
        """Fail what is outstanding, and disconnect. The broker goes on with the tasks it has.

        Tasks that were cancelled before are cancelled at the broker too, if it can be told within a second.
        """
        self._link.close()
