"""A client's link to the broker: the tasks that have no reply yet, and the connection that they go by.

A background thread drives the socket, a DEALER; other threads hand it what to send by a queue and an alarm. Each task
has a key. When the connection is lost, every task without a reply is sent again under its key over a new one: the
broker runs no task twice for that, and a new broker on the same address gets them all.

While every task has its reply the background thread leaves the socket alone. A call that comes then drives it from its
own thread, which saves waking two. It holds the lock while it touches the socket, but waits without it, on file
descriptors: so the background thread can take over then. It does so as soon as there is anything else to do, and rings
the bell that the call has.

A signal handler, or the garbage collector, may use the link in the middle of all this, hence the reentrant lock. What a
handler cannot do in the middle of a message is wait for a reply. When it raises an exception there, the connection is
in doubt, and is replaced as if it were lost.
"""

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from time import monotonic
from typing import Any

import zmq

from zmqbroker import wire
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.connection import Connection
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.messages import EVENTS, NOBLOCK, READABLE, Inbox, send
from zmqbroker.wire import CANCELLED, Frames, Reply

UNSENT = 1000  # requests that ZeroMQ holds while the broker takes none
BATCH = 256  # replies read before requests are sent again
PAUSE_MS = 200  # between losing the broker and connecting again, should it hang up at every call
LAST_CANCELS = 1.0  # seconds to tell the broker of cancelled tasks when the link is closed
LONGEST_WAIT_MS = 100  # a signal that comes just before a poll has begun is handled when that ends
CLOSED = "closed"  # the status of a task whose client was closed

Settle = Callable[[Reply], None]

log = logging.getLogger("zmqbroker.client")


class Link:
    """Sends tasks over one connection after another, until each has its reply. For any thread of one process."""

    def __init__(self, address: str, context: zmq.Context[Any] | None, keep_alive: KeepAlive) -> None:
        """Connect, whether or not somebody listens there yet; `context` None makes one.

        Raises ValueError for what is no address.
        """
        self._address = address
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._keep_alive = keep_alive
        self._process_id = os.getpid()
        self._alarm = Alarm()
        self._lock = threading.RLock()  # for what follows, and for the socket while a call drives it
        self._closed = False
        self._asleep = False  # the background thread waits, and wants the alarm
        self._is_watching = True  # it waits for the socket too, or may do so
        # By key, what has no reply yet: the message, and whom to tell (None: nobody, it cancels).
        self._outstanding: dict[str, tuple[Frames, Settle | None]] = {}
        self._outbox: deque[tuple[str, Frames]] = deque()  # to be sent, unless it is outstanding no more
        self._unsent: set[str] = set()  # keys of tasks that the broker cannot know yet
        self._bell: Alarm | None = None  # of the call that drives; None: none does
        self._spare_bell: Alarm | None = Alarm()
        self._in_doubt = False  # a call is in the middle of a message, or was interrupted there
        try:
            self._connection, self._inbox = self._connect()
        except ValueError:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="zmqbroker client", daemon=True)
        self._thread.start()

    def send(self, key: str, message: Frames, settle: Settle) -> None:
        """Send a task, and have its reply given to `settle`.

        Raises RuntimeError when this is closed, and in a process that was forked since.
        """
        self._check_process()
        with self._lock:
            self._check_open()
            self._enqueue(key, message, settle)

    def call(self, key: str, message: Frames, settle: Settle, until: float) -> None:
        """Send a task as `send` does, and wait for its reply in this thread, if no other task is without one.

        Returns when the task has its reply, at the instant `until` (inf: never), or as soon as the background thread
        is to wait for it. Raises RuntimeError as `check_can_wait` does, too.
        """
        self._check_process()
        self.check_can_wait()
        bell = None
        try:
            with self._lock:
                self._check_open()
                bell = self._start_driving()
                if bell is not None:
                    self._send_now(key, message, settle)
                else:
                    self._enqueue(key, message, settle)
            if bell is not None:
                self._drive(key, bell, until)
        finally:
            if bell is not None:
                self._stop_driving(bell)

    def cancel(self, key: str, message: Frames, settle: Settle | None = None) -> bool:
        """Forget a task that was never sent; put a cancel in the place of another, and send it as if it were a task.

        `settle` is given the answer: to the cancel, or to the task. False when that has its reply, or belongs to
        another process.
        """
        if self._is_forked():
            return False
        with self._lock:
            if key not in self._outstanding:
                return False
            is_unsent = key in self._unsent
            if is_unsent:
                self._unsent.discard(key)
                del self._outstanding[key]
            else:
                self._enqueue(key, message, settle)
        if is_unsent and settle is not None:
            settle(Reply(key, CANCELLED, 0, "cancelled before it was sent", []))
        return True

    def close(self) -> None:
        """Give every task without a reply one that says CLOSED, and disconnect.

        Cancels are passed on to the broker first, if that can be done within LAST_CANCELS seconds. The thread that does
        it is waited for, but not for long: a signal handler may have interrupted what it needs to go on. In a process
        that was forked since nothing is done.
        """
        if self._is_forked():
            return
        with self._lock:
            self._closed = True
        self._alarm.ring()
        if threading.current_thread() is not self._thread and not self._is_holding_lock():
            self._thread.join(2 * LAST_CANCELS)

    def check_can_wait(self) -> None:
        """Raise RuntimeError where no reply can come.

        That is a process that was forked since, a callback in the background thread, and a signal handler that keeps
        that thread from its work.
        """
        if self._is_forked():
            raise RuntimeError("this task was submitted in another process; wait for it there")
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a callback of a future cannot wait for a reply: the thread that it runs in receives them"
            )
        if self._is_holding_lock():
            raise RuntimeError("this signal handler has interrupted the client at work: it cannot wait for a reply")

    def _check_process(self) -> None:
        if self._is_forked():
            raise RuntimeError("this client was made in another process; make one after the fork")

    def _is_forked(self) -> bool:
        return self._process_id != os.getpid()

    def _is_holding_lock(self) -> bool:
        is_holding: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # as threading.Condition does
        return is_holding

    # With the lock held

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this client is closed")

    def _enqueue(self, key: str, message: Frames, settle: Settle | None) -> None:
        """Hand a message to the background thread: a task, or (`settle` is None) a cancel."""
        if settle is not None:
            self._unsent.add(key)
        self._outbox.append((key, message))
        self._outstanding[key] = message, settle
        self._wake()

    def _wake(self) -> None:
        """Wake the background thread; rung first and noted then, so that an interruption makes it twice, not never."""
        if self._asleep:
            self._alarm.ring()
            self._asleep = False

    def _take_over(self) -> None:
        """Let no call drive the socket from now on."""
        if self._bell is not None:
            self._bell.ring()
            self._bell = None

    # With the lock held, in the thread of a call

    def _start_driving(self) -> Alarm | None:
        """Return the bell that rings when the background thread has taken over; None when it is that thread's turn."""
        if not self._asleep or self._is_watching or self._outstanding or self._in_doubt:
            return None
        self._take_over()  # from a call that has its reply, and has not stopped yet
        if self._spare_bell is None:
            with suppress(OSError):  # no descriptor is left
                self._spare_bell = Alarm()
        self._bell, self._spare_bell = self._spare_bell, None
        return self._bell

    def _send_now(self, key: str, message: Frames, settle: Settle) -> None:
        """Send a task, or have the background thread do it when it cannot be sent now."""
        self._in_doubt = True
        self._outstanding[key] = message, settle
        with suppress(zmq.ZMQError):  # as the connection is in doubt then, the background thread gets it as well
            is_sent = send(self._connection.socket, message.copy())
            self._in_doubt = False
            if is_sent:
                return
        self._enqueue(key, message, settle)

    def _receive_now(self) -> Frames | None:
        """Receive a message; None when there is none.

        Its frames are copied: were they frames of pyzmq, the end of each would swallow what a signal handler raises.
        """
        message: Frames | None = None
        self._in_doubt = True
        with suppress(zmq.ZMQError):  # as above
            if int(self._connection.socket.get(EVENTS)) & READABLE:
                message = list(self._connection.socket.recv_multipart(NOBLOCK))
            self._in_doubt = False
        return message

    # In the thread of a call

    def _drive(self, key: str, bell: Alarm, until: float) -> None:
        while not self._is_forked():  # by a signal handler
            with self._lock:
                if self._bell is not bell or self._outbox or key not in self._outstanding:
                    return
                message = self._receive_now()
                descriptor = self._connection.descriptor
            if message is not None:
                self._receive(message)
            left = until - monotonic()
            if left <= 0:
                return
            if message is None:
                wait_ms = ceil(min(1000 * left, LONGEST_WAIT_MS))
                zmq.zmq_poll([(descriptor, zmq.POLLIN), (bell.fileno(), zmq.POLLIN)], wait_ms)

    def _stop_driving(self, bell: Alarm) -> None:
        if self._is_forked():
            return
        with self._lock:
            if self._bell is bell:
                self._bell = None
                if self._outstanding or self._in_doubt:
                    self._wake()
            else:
                bell.hear()
            if self._spare_bell is None and not self._closed:
                self._spare_bell = bell
            else:
                bell.close()

    # In either thread

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

    # In the background thread

    def _run(self) -> None:
        try:
            while self._talk():
                log.info("the connection to %s was lost: sending %d tasks again", self._address, len(self._outstanding))
                if not self._reconnect():
                    return
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

    def _reconnect(self) -> bool:
        """Connect again, and have everything sent again; False when closed before that could be done."""
        self._connection.close()
        while not self._closed:
            self._alarm.hear()
            self._alarm.wait(PAUSE_MS)
            try:
                self._connection, self._inbox = self._connect()
            except zmq.ZMQError as error:
                if error.errno != errno.EMFILE:
                    raise
                log.warning("cannot connect to %s: no file descriptors are left", self._address)
                continue
            with self._lock:
                self._outbox = deque()
                self._outbox.extend((key, message) for key, (message, _) in list(self._outstanding.items()))
            return True
        return False

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
                self._is_watching = wanted != 0
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
                inbox.is_empty = False  # a call may have left the last replies unread
                while not inbox.is_empty:
                    for message in inbox.batch(BATCH):
                        self._receive(message)
                return True

    def _send_batch(self, to: zmq.Socket[bytes]) -> bool:
        """Send what waits to be sent, up to a bound; False when ZeroMQ takes no more for now."""
        outbox = self._outbox
        for _ in range(min(BATCH, len(outbox))):
            key, message = outbox[0]
            with self._lock:
                wanted, _ = self._outstanding.get(key, (None, None))
                self._unsent.discard(key)
            if wanted is message and not send(to, message.copy()):
                return False
            outbox.popleft()
        return True

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
            if self._spare_bell is not None:
                self._spare_bell.close()
        if self._own_context:
            self._context.term()


def _disconnect(connection: Connection) -> None:
    """Close a connection, also one whose context is being closed, which would wait for it for ever."""
    with suppress(zmq.ZMQError):
        connection.close()
    connection.monitor.close(linger=0)
    connection.socket.close(linger=0)
