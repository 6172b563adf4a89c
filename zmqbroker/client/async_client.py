"""A client for coroutines. It is a second face: what it sends goes by the `Link` of a Client, by the same thread.

bridge           brings what the thread receives into the event loop
async_futures    what becomes of a task, as a coroutine sees it
async_iterating  any number of tasks through a window
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from functools import partial
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq

from zmqbroker.client import async_iterating, conversation
from zmqbroker.client.asking import check_cancelled, check_forgotten
from zmqbroker.client.async_futures import AsyncTaskFuture, ask
from zmqbroker.client.bodies import UNSAID, prepare, reading
from zmqbroker.client.bridge import Bridge
from zmqbroker.client.client import ANSWER, DEFAULT_WINDOW
from zmqbroker.client.futures import OnProgress, check_hook, result_of
from zmqbroker.client.link import Link
from zmqbroker.client.mapping import Sender
from zmqbroker.client.options import Options, TaskOptions, positive, until
from zmqbroker.client.request import Request
from zmqbroker.client.requests import Requests
from zmqbroker.transport.destination import destination
from zmqbroker.transport.identity import FilePath
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.wire.chunks import Body

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncClient:
    """Sends tasks to one broker, from the coroutines of one event loop: that in which it is used first.

    Leaving its `async with` block closes it and fails what is outstanding. One that is dropped instead is closed when
    it has nothing outstanding, with a ResourceWarning. Methods raise RuntimeError when the client is closed, in another
    loop or where none runs, and in a process that was forked since.
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
        """Connect as a Client does, with the same arguments."""
        broker = destination(requests, keep_alive, identity=identity, broker_identity=broker_identity)
        self._link = Link(broker, context, connect_timeout)
        self._link.belong_to(self)
        self._requests = Requests()
        self._bridge: Bridge | None = None  # to the loop in which it is used; None: it was not used yet

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._link}>"

    async def __aenter__(self) -> "AsyncClient":
        self._here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

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
    ) -> AsyncTaskFuture:
        """Send a task, and return an asyncio.Future of its result, to be awaited now or later.

        What may be said of the task, and what is raised, is that of `Client.submit`. To cancel the future, or a
        coroutine that awaits it, cancels the task, waiting or running. `on_progress` is called in the loop.
        """
        bridge = self._here()
        check_hook(on_progress, detach)
        asks = None if on_progress is None else True
        wishes = Options(key=key, durable=durable, detach=detach, keep=keep, progress=asks, worker=worker, **options)
        frames, read = prepare(body, json)
        future = AsyncTaskFuture(bridge.loop, read, on_progress)
        listen = bridge.carry(future.hear) if asks else None
        request = self._requests.task(wishes, frames, bridge.carry(future.settle), listen)
        return self._begin(request, future, self._link.cancel)

    async def call(
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
        reply = await ask(self._here(), self._link, self._requests.task(wishes, frames), at_last, self._link.cancel)
        if reply is None:
            raise TimeoutError(f"no reply within {wait:g} s; the task was cancelled")
        return result_of(reply, read)

    def map(
        self,
        bodies: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int = DEFAULT_WINDOW,
        chunk: int = 1,
        ordered: bool = True,
        return_failures: bool = False,
        as_json: bool = False,
        durable: bool | None = None,
        **options: "Unpack[TaskOptions]",
    ) -> AsyncGenerator[Any, None]:
        """Yield the result of each body, for `async for`; the arguments are those of `Client.map`.

        An asynchronous iterable is iterated by a task of its own. What is neither that nor a sequence is iterated in a
        thread, so that it may block. Leaving the iterator early, or being cancelled in it, cancels what it has
        outstanding: at once with `aclose`, else as soon as the loop is told that it was dropped.
        """
        window, chunk = positive("window", window), positive("chunk", chunk)
        wishes = Options(durable=durable, **options)
        link = self._link
        sender = Sender(partial(self._requests.task, wishes), link.submit, link.cancel, link.check_can_wait)
        outcomes = async_iterating.outcomes(self._here(), sender, bodies, as_json, chunk, window, ordered)
        return outcomes if return_failures else async_iterating.raise_failures(outcomes)

    async def send(
        self,
        body: Body = UNSAID,
        *,
        json: Any = UNSAID,
        key: str | None = None,
        keep: float | None = None,
        **options: "Unpack[TaskOptions]",
    ) -> str:
        """Leave a task with the broker, and return its key when that has stored it; see `submit` for the options.

        Raises TaskFailed when it cannot be left there. One whose sending is cancelled is cancelled.
        """
        return str(await self.submit(body, json=json, key=key, detach=True, keep=keep, **options))

    async def fetch(self, key: str, wait: float | None = 0.0, *, as_json: bool = False) -> Any:
        """Return the result of the task with this key, of whichever client, and raise what `Client.fetch` does.

        It may come within `wait` seconds (None: whenever it comes). Being cancelled leaves the task alone.
        """
        at_last = until("wait", wait, monotonic())
        request = self._requests.question(key, None, {"fetch": at_last})
        reply = await ask(self._here(), self._link, request, at_last + ANSWER, self._link.drop)
        if reply is None:
            raise TimeoutError(f"the broker has not answered within {wait:g} and {ANSWER:g} s")
        return result_of(reply, reading(as_json))

    def outcome(self, key: str, wait: float | None = 0.0, *, as_json: bool = False) -> AsyncTaskFuture:
        """Return a future of what `fetch` returns or raises, but for how long the broker takes to answer.

        Cancelling that leaves the task alone.
        """
        bridge = self._here()
        future = AsyncTaskFuture(bridge.loop, reading(as_json))
        settle = bridge.carry(future.settle)
        request = self._requests.question(key, settle, {"fetch": until("wait", wait, monotonic())})
        return self._begin(request, future, self._link.drop)

    async def cancel(self, key: str) -> None:
        """Cancel the task with this key, of whichever client, waiting or running.

        Raises KeyError when there is none, or it has its outcome already; TaskFailed when the client was closed.
        """
        reply = await ask(self._here(), self._link, self._requests.question(key, cancel=True), inf, self._link.drop)
        if reply is not None:
            check_cancelled(key, reply)

    async def forget(self, *keys: str) -> None:
        """Have the broker drop the outcomes of the tasks with these keys, if it has any; returns when that is done.

        Raises concurrent.futures.InvalidStateError when some have none yet: cancel those first. All others are
        forgotten then.
        """
        bridge, link = self._here(), self._link
        requests = [self._requests.question(key, forget=True) for key in keys]
        replies = await asyncio.gather(*(ask(bridge, link, request, inf, link.drop) for request in requests))
        check_forgotten(reply for reply in replies if reply is not None)

    async def close(self) -> None:
        """Fail what is outstanding, and disconnect. The broker goes on with the tasks it has.

        Tasks that were cancelled before are cancelled at the broker too, if it can be told within a second.
        """
        bridge = self._here()
        closed = bridge.loop.create_future()
        self._link.close_soon(partial(bridge.carry(closed.set_result), None))
        await asyncio.wait((closed,), timeout=2 * conversation.LAST_CANCELS)

    def _begin(self, request: Request, future: AsyncTaskFuture, leave: Callable[[str], object]) -> AsyncTaskFuture:
        """Send a request, and return its future."""
        future.key = request.key
        self._link.submit([request])
        future.on_cancel = partial(leave, request.name)
        return future

    def _here(self) -> Bridge:
        """Return the bridge to the loop of this coroutine, which is the one of all others too."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._link.check_process()
            raise RuntimeError("an AsyncClient is for the coroutines of an event loop, and none runs here") from None
        if self._bridge is None:
            self._bridge = Bridge(loop)
        elif self._bridge.loop is not loop:
            self._link.check_process()
            raise RuntimeError("this AsyncClient is used in another event loop: make one in each")
        return self._bridge
