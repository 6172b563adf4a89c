"""A client's link to the broker: the tasks that have no reply yet, and the connection that they go by.

A background thread owns the socket, a DEALER; other threads hand it what to send by a queue and an alarm. Each task has
a key. When the connection is lost, every task without a reply is sent again under its key over a new one: the broker
runs no task twice for that, and a new broker on the same address gets them all.

While every task has its reply the background thread leaves the socket alone. A call that comes then drives it from its
own thread until it has its reply, which saves waking two threads. It holds the lock while it touches the socket, but
waits without it, on file descriptors: so the background thread can take over at any moment. It does so as soon as there
is anything else to do, and rings the bell that the call has.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import ceil, inf
from time import monotonic
from typing import Any

import zmq

from zmqbroker import wire
from zmqbroker.sockets import EVENTS, READABLE, Alarm, Connection, Inbox, KeepAlive, send
from zmqbroker.wire import Frames, Reply

UNSENT = 1000  # requests that ZeroMQ holds while the broker takes none
BATCH = 256  # replies read before requests are sent again
PAUSE_MS = 200  # between losing the broker and connecting again, should it hang up at every call
LAST_CANCELS = 1.0  # seconds to tell the broker of cancelled tasks when the link is closed
LONGEST_WAIT = 1.0  # seconds; a signal that comes just before a poll has begun is handled when that ends
CLOSED = "closed"  # the status of a task whose client was closed

Settle = Callable[[Reply], None]

log = logging.getLogger("zmqbroker.client")


class Link:
    """Sends tasks over one connection after another, until each has its reply. Its methods are for any thread."""

    def __init__(self, address: str, context: zmq.Context[Any] | None, keep_alive: KeepAlive) -> None:
        """Connect, whether or not somebody listens there yet; `context` None makes one.

        Raises ValueError for what is no address.
        """
        self._address = address
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._keep_alive = keep_alive
        self._alarm = Alarm()
        self._lock = threading.Lock()  # for what follows
        self._closed = False
        self._asleep = False  # the background thread waits, and wants the alarm
        # By key, what has no reply yet: the message, and whom to tell (None: nobody, it cancels).
        self._outstanding: dict[str, tuple[Frames, Settle | None]] = {}
        self._outbox: deque[tuple[str, Frames]] = deque()  # to be sent, unless it is outstanding no more
        self._bells = [Alarm()]  # for one call that drives the socket, until it gives it back
        self._bell: Alarm | None = None  # that of the call that drives now; None: the background thread does
        self._in_doubt = False  # a call was interrupted in the middle of a message
        try:
            self._connection, self._inbox = self._connect()
        except ValueError:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="zmqbroker client", daemon=True)
        self._thread.start()

    def send(self, key: str, message: Frames, settle: Settle) -> None:
        """Send a task, and have its reply given to `settle`. Raises RuntimeError when this is closed."""
        with self._lock:
            self._check_open()
            must_wake = self._enqueue(key, message, settle)
        if must_wake:
            self._alarm.ring()

    def cancel(self, key: str, message: Frames) -> None:
        """Put a cancel in the place of a task: it is sent again like a task until there is an answer."""
        with self._lock:
            must_wake = key in self._outstanding and self._enqueue(key, message, None)
        if must_wake:
            self._alarm.ring()

    def call(
        self, key: str, message: Frames, settle: Settle, is_settled: Callable[[], bool], until: float = inf
    ) -> None:
        """Send a task as `send` does, and wait for its reply in this thread, if it is the only task without one.

        Returns when it has the reply, at the instant `until`, or as soon as the reply is the background thread's to
        wait for.
        """
        bell = None
        must_wake = False
        try:
            with self._lock:
                self._check_open()
                if self._asleep and not self._outstanding and self._bells:
                    self._bell = bell = self._bells.pop()
                    self._outstanding[key] = message, settle
                    self._in_doubt = True
                    if not send(self._connection.socket, message.copy()):
                        self._outbox.append((key, message))
                    self._in_doubt = False
                else:
                    must_wake = self._enqueue(key, message, settle)
            if bell is not None:
                self._drive(bell, is_settled, until)
        except zmq.ZMQError:
            pass  # the background thread has it as well
        finally:
            if bell is not None:
                must_wake = self._step_back(bell)
            if must_wake:
                self._alarm.ring()

    def close(self) -> None:
        """Give every task without a reply one that says CLOSED, and disconnect.

        Cancels are passed on to the broker first, if that can be done within LAST_CANCELS seconds.
        """
        with self._lock:
            self._closed = True
        self._alarm.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # With the lock held

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this client is closed")

    def _enqueue(self, key: str, message: Frames, settle: Settle | None) -> bool:
        """Hand a message to the background thread; True when that must be woken."""
        self._outstanding[key] = message, settle
        self._outbox.append((key, message))
        return self._wake()

    def _wake(self) -> bool:
        """Tell whether the background thread must be woken now: once."""
        asleep, self._asleep = self._asleep, False
        return asleep

    def _take_over(self) -> None:
        """Make the background thread the one that drives the socket."""
        if self._bell is not None:
            self._bell.ring()
            self._bell = None

    def _pop(self, reply: Reply) -> Settle | None:
        """Return whom to tell of a reply; None: nobody, as the task was cancelled."""
        _, settle = self._outstanding.pop(reply.key or "", (None, None))
        return settle

    # In the thread of a call

    def _drive(self, bell: Alarm, is_settled: Callable[[], bool], until: float) -> None:
        while not is_settled():
            with self._lock:
                if self._bell is not bell or self._outbox:
                    return
                opened = self._connection.socket
                descriptor: Any = opened.fileno()
                self._in_doubt = True
                has_come = bool(opened.get(EVENTS) & READABLE)  # type: ignore[operator]
                messages = self._inbox.batch(BATCH) if has_come else ()
                found = [(self._pop(reply), reply) for message in messages if (reply := _read(message))]
                self._in_doubt = False
            for settle, reply in found:
                if settle is not None:
                    settle(reply)
            if not has_come:
                left = until - monotonic()
                if left <= 0:
                    return
                waited_for = [(descriptor, zmq.POLLIN), (bell.fileno(), zmq.POLLIN)]
                zmq.zmq_poll(waited_for, ceil(1000 * min(left, LONGEST_WAIT)))

    def _step_back(self, bell: Alarm) -> bool:
        """Drive the socket no more; True when the background thread must be woken to do it."""
        with self._lock:
            if self._bell is bell:
                self._bell = None
            else:
                bell.hear()
            if self._closed:
                bell.close()
            else:
                self._bells.append(bell)
            return bool(self._outstanding or self._in_doubt) and self._wake()

    # In the background thread

    def _run(self) -> None:
        try:
            while self._talk():
                log.info("the connection to %s was lost: sending %d tasks again", self._address, len(self._outstanding))
                self._connection.close()
                self._alarm.wait(PAUSE_MS)
                self._connection, self._inbox = self._connect()
                with self._lock:
                    self._outbox = deque((key, message) for key, (message, _) in self._outstanding.items())
            self._fail_outstanding()
            self._pass_on_cancels()
        except zmq.ZMQError as error:
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                raise
            log.warning("the client's context was closed before the client")
        finally:
            self._fail_outstanding()
            _disconnect(self._connection)
            self._release()

    def _connect(self) -> tuple[Connection, Inbox]:
        connection = Connection(  # to a broker that takes no requests while its queue is full
            self._context, zmq.DEALER, self._address, self._keep_alive, may_refuse=True, unsent=UNSENT
        )
        connection.socket.linger = 0  # now, so that closing the context before the client does not wait for ever
        return connection, Inbox(connection.socket, BATCH)

    def _talk(self) -> bool:
        """Send and receive until closed (False) or until the connection is lost (True)."""
        connection, inbox = self._connection, self._inbox
        poller = zmq.Poller()
        poller.register(connection.monitor, zmq.POLLIN)
        poller.register(self._alarm, zmq.POLLIN)
        watched = 0
        while True:
            is_full = not self._send_batch(connection.socket)
            with self._lock:
                if self._closed:
                    return False
                self._asleep = is_full or not self._outbox
                wanted = (zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN) if self._outstanding else 0
            if wanted != watched:
                poller.modify(connection.socket, wanted)
                watched = wanted
            readable = dict(poller.poll(None if self._asleep else 0))
            with self._lock:
                self._asleep = False
                self._take_over()
                if self._in_doubt:
                    self._in_doubt = False
                    return True
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
        reply = _read(message)
        if reply is None:
            return
        with self._lock:
            settle = self._pop(reply)
        if settle is not None:
            settle(reply)

    def _fail_outstanding(self) -> None:
        with self._lock:
            self._closed = True
            self._take_over()
            tasks = [(key, settle) for key, (_, settle) in self._outstanding.items() if settle is not None]
            for key, _ in tasks:
                del self._outstanding[key]
        for key, settle in tasks:
            settle(Reply(key, CLOSED, 0, "the client was closed before the reply came", []))

    def _pass_on_cancels(self) -> None:
        """Send what cancels are left, and wait for the answers, which say that they arrived; but not for long."""
        until = monotonic() + LAST_CANCELS
        opened, inbox = self._connection.socket, self._inbox
        while self._outstanding and (left := until - monotonic()) > 0:
            is_full = not self._send_batch(opened)
            wait_ms = ceil(1000 * left) if is_full or not self._outbox else 0
            opened.poll(wait_ms, zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN)
            for message in inbox.batch(BATCH):
                self._receive(message)

    def _release(self) -> None:
        self._alarm.close()
        with self._lock:
            for bell in self._bells:
                bell.close()
        if self._own_context:
            self._context.term()


def _read(message: Frames) -> Reply | None:
    try:
        return wire.parse_reply(message)
    except wire.MalformedError as error:
        log.warning("%s", error)
        return None


def _disconnect(connection: Connection) -> None:
    """Close a connection, also one whose context is being closed, which would wait for it for ever."""
    with suppress(zmq.ZMQError):
        connection.close()
    connection.monitor.close(linger=0)
    connection.socket.close(linger=0)
