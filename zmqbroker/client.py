"""A client: sends tasks from any thread, and turns their replies into futures.

One background thread owns the socket, a DEALER; the other threads hand it what to send by a queue and an alarm. Each
task has a key. When the connection is lost, every unsettled task is sent again under its key over a new one: the
broker runs no task twice for that, and a new broker on the same address gets them all.
"""

import atexit
import itertools
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from functools import partial
from math import ceil
from time import monotonic
from types import TracebackType
from typing import Any

import zmq

from zmqbroker import mapping, wire
from zmqbroker.chunks import Body
from zmqbroker.futures import TaskFuture
from zmqbroker.mapping import Sender, Settle, frames_of
from zmqbroker.sockets import Alarm, Connection, Inbox, KeepAlive, send
from zmqbroker.wire import Frames, Reply

DEFAULT_WINDOW = 1000  # tasks outstanding in a `map`
UNSENT = 1000  # requests that ZeroMQ holds while the broker takes none
BATCH = 256  # replies read before requests are sent again
PAUSE_MS = 200  # between losing the broker and connecting again, should it hang up at every call
LAST_CANCELS = 1.0  # seconds to tell the broker of cancelled tasks when the client is closed
CANCEL = wire.more_fields({"cancel": True})
CLOSED = "closed"  # the status of a task whose client was closed

log = logging.getLogger("zmqbroker.client")


class Client:
    """Sends tasks to one broker, from any thread. A context manager; closing it fails what is outstanding."""

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
        self._address = requests
        self._keep_alive = keep_alive
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._process_id = os.getpid()
        self._next_key = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count()).__next__
        self._alarm = Alarm()
        self._lock = threading.Lock()  # for what follows
        self._closed = False
        self._asleep = False  # the background thread waits, and wants the alarm
        # By key, what has no reply yet: the message, and whom to tell (None: nobody, it cancels).
        self._outstanding: dict[str, tuple[Frames, Settle | None]] = {}
        self._outbox: deque[tuple[str, Frames]] = deque()  # to be sent, unless it is outstanding no more
        try:
            connection = self._connect()
        except ValueError:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, args=(connection,), name="zmqbroker client", daemon=True)
        self._thread.start()
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
    ) -> "Future[Any]":
        """Send a task and return a future of its result, which is bytes, or a list of bytes if `body` is one.

        `timeout` and `delay` are in seconds; None leaves it to the broker. The future raises TaskFailed.
        A result of several frames is a list in any case. Raises RuntimeError when the client is closed.
        """
        fields = _fields(timeout=timeout, tries=tries, delay=delay, priority=priority)
        future = TaskFuture(as_list=not isinstance(body, bytes))
        key = self._send_task(fields, frames_of(body), future.settle)
        future.on_cancel.append(partial(self._cancel, key))
        return future

    def call(self, body: Body, wait: float | None = None, **options: Any) -> Any:
        """Submit a task with the options of `submit`, and wait for its result.

        Raises TimeoutError after `wait` seconds (None: never), when the task is cancelled; else as the future does.
        """
        future = self.submit(body, **options)
        try:
            return future.result(wait)
        except FutureTimeoutError:
            if not future.cancel():
                return future.result()  # it has come just now
            raise TimeoutError(f"no reply within {wait:g} s; the task was cancelled") from None
        except BaseException:
            future.cancel()
            raise

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
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, not {number}")
        fields = _fields(timeout=timeout, tries=tries, delay=delay, priority=priority)
        sender = Sender(partial(self._send_task, fields), self._cancel, self._check_process)
        requests = mapping.single_requests(bodies) if chunk == 1 else mapping.chunk_requests(bodies, chunk)
        outcomes = mapping.outcomes(sender, requests, window, ordered)
        return outcomes if return_failures else mapping.raise_failures(outcomes)

    def close(self) -> None:
        """Fail what is outstanding, and disconnect. The broker goes on with the tasks it has.

        Tasks that were cancelled before are cancelled at the broker too, if it can be told within a second.
        """
        atexit.unregister(self.close)
        if self._process_id != os.getpid():
            return  # it belongs to the process that made it
        with self._lock:
            self._closed = True
        self._alarm.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # In the caller's thread

    def _send_task(self, fields: str, body: Frames, settle: Settle) -> str:
        self._check_process()
        key = self._next_key()
        message = wire.request_message(body, key, fields)
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed")
            asleep = self._enqueue(key, message, settle)
        if asleep:
            self._alarm.ring()
        return key

    def _cancel(self, key: str) -> None:
        """Put a cancel in the place of a task: it is sent again like a task until there is an answer."""
        if self._process_id != os.getpid():
            return  # it is the task of another process
        with self._lock:
            if key not in self._outstanding:
                return
            cancel = wire.request_message([b""], key, CANCEL)
            asleep = self._enqueue(key, cancel, None)
        if asleep:
            self._alarm.ring()

    def _enqueue(self, key: str, message: Frames, settle: Settle | None) -> bool:
        """Hand a message to the background thread, with the lock held; True when that must be woken."""
        self._outstanding[key] = message, settle
        self._outbox.append((key, message))
        asleep, self._asleep = self._asleep, False
        return asleep

    def _connect(self) -> Connection:
        connection = Connection(  # to a broker that takes no requests while its queue is full
            self._context, zmq.DEALER, self._address, self._keep_alive, may_refuse=True, unsent=UNSENT
        )
        connection.socket.linger = 0  # now, so that closing the context before the client does not wait for ever
        return connection

    def _check_process(self) -> None:
        if self._process_id != os.getpid():
            raise RuntimeError("this client was made in another process; make one after the fork")

    # In the background thread

    def _run(self, connection: Connection) -> None:
        try:
            while self._talk(connection):
                log.info("the connection to %s was lost: sending %d tasks again", self._address, len(self._outstanding))
                connection.close()
                self._alarm.wait(PAUSE_MS)
                connection = self._connect()
                with self._lock:
                    self._outbox = deque((key, message) for key, (message, _) in self._outstanding.items())
            self._fail_outstanding()
            self._pass_on_cancels(connection)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                raise
            log.warning("the client's context was closed before the client")
        finally:
            self._fail_outstanding()
            _disconnect(connection)
            self._release()

    def _fail_outstanding(self) -> None:
        with self._lock:
            self._closed = True
            tasks = [(key, settle) for key, (_, settle) in self._outstanding.items() if settle is not None]
            for key, _ in tasks:
                del self._outstanding[key]
        for key, settle in tasks:
            settle(Reply(key, CLOSED, 0, "the client was closed before the reply came", []))

    def _pass_on_cancels(self, connection: Connection) -> None:
        """Send what cancels are left, and wait for the answers, which say that they arrived; but not for long."""
        until = monotonic() + LAST_CANCELS
        inbox = Inbox(connection.socket, BATCH)
        while self._outstanding and (left := until - monotonic()) > 0:
            is_full = not self._send_batch(connection.socket)
            wait_ms = ceil(1000 * left) if is_full or not self._outbox else 0
            connection.socket.poll(wait_ms, zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN)
            for message in inbox.batch(BATCH):
                self._receive(message)

    def _talk(self, connection: Connection) -> bool:
        """Send and receive until closed (False) or until the connection is lost (True)."""
        poller = zmq.Poller()
        for waited_for in (connection.socket, connection.monitor, self._alarm):
            poller.register(waited_for, zmq.POLLIN)
        inbox = Inbox(connection.socket, BATCH)
        was_full = False
        while True:
            is_full = not self._send_batch(connection.socket)
            if is_full is not was_full:
                poller.modify(connection.socket, zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN)
                was_full = is_full
            with self._lock:
                if self._closed:
                    return False
                self._asleep = is_full or not self._outbox
            readable = dict(poller.poll(None if self._asleep else 0))
            self._asleep = False
            if self._alarm.fileno() in readable:
                self._alarm.hear()
            for message in inbox.batch(BATCH) if readable.get(connection.socket, 0) & zmq.POLLIN else ():
                self._receive(message)
            if connection.monitor in readable:
                while not inbox.is_empty:
                    for message in inbox.batch(BATCH):
                        self._receive(message)
                return True

    def _send_batch(self, to: zmq.Socket[bytes]) -> bool:
        """Send what waits to be sent, up to a bound; False when ZeroMQ takes no more for now."""
        outbox = self._outbox
        for _ in range(min(BATCH, len(outbox))):
            key, message = outbox[0]
            wanted, _ = self._outstanding.get(key, (None, None))
            if wanted is message and not send(to, message.copy()):
                return False
            outbox.popleft()
        return True

    def _receive(self, message: Frames) -> None:
        try:
            reply = wire.parse_reply(message)
        except wire.MalformedError as error:
            log.warning("%s", error)
            return
        with self._lock:
            _, settle = self._outstanding.pop(reply.key or "", ([], None))
        if settle is not None:  # else cancelled
            settle(reply)

    def _release(self) -> None:
        self._alarm.close()
        if self._own_context:
            self._context.term()


def _fields(**options: float | None) -> str:
    """Write what was said as fields of a header; raises ValueError for what no broker would take."""
    fields = {name: value for name, value in options.items() if value is not None}
    wire.check_fields(fields)
    return wire.more_fields(fields)


def _disconnect(connection: Connection) -> None:
    """Close a connection, also one whose context is being closed, which would wait for it for ever."""
    with suppress(zmq.ZMQError):
        connection.close()
    connection.monitor.close(linger=0)
    connection.socket.close(linger=0)
