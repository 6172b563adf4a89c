"""A client's link to the broker: its threads and its connection. What is sent, and when again, its session decides.

A background thread drives the socket, a DEALER; other threads hand it what to send by the session and an alarm.

While every task has its reply the background thread leaves the socket alone. A call that comes then drives it from its
own thread, which saves waking two. It holds the lock while it touches the socket, but waits without it, on file
descriptors: so the background thread can take over then. It does so as soon as there is anything else to do, and rings
the bell that the call has.

A signal handler, or the garbage collector, may use the link in the middle of all this, hence the reentrant lock. What a
handler cannot do in the middle of a message is wait for a reply. When it raises an exception there, the connection is
in doubt, and is replaced as if it were lost.
"""

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import ceil, inf
from time import monotonic
from typing import Any

import zmq

from zmqbroker import wire
from zmqbroker.client.futures import UNREACHABLE
from zmqbroker.client.session import CLOSED, Request, Session, Settle
from zmqbroker.transport import descriptors, threads
from zmqbroker.transport.addresses import refuse_inproc
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.connection import LOST, Connection
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.limited_log import LimitedLog, log_safely
from zmqbroker.transport.messages import EVENTS, NOBLOCK, READABLE, Inbox, send
from zmqbroker.transport.patience import Patience
from zmqbroker.wire import Frames, Reply

UNSENT = 1000  # requests that ZeroMQ holds while the broker takes none
BATCH = 256  # replies read before requests are sent again
PAUSE_MS = 200  # between losing the broker and connecting again, should it hang up at every call
DESCRIPTORS = 16  # that one takes: two alarms, ZeroMQ's own, a connection, and some to spare
LAST_CANCELS = 1.0  # seconds to tell the broker of cancelled tasks when the link is closed
LAST_REPLIES = 10.0  # seconds without any that a program waits whose main thread has ended
LOOK = 2.0  # seconds between two looks whether it has
LONGEST_WAIT_MS = 100  # a signal that comes just before a poll has begun is handled when that ends

log = logging.getLogger("zmqbroker.client")


class Link:
    """Sends tasks over one connection after another, until each has its reply. For any thread of one process."""

    def __init__(
        self,
        address: str,
        context: zmq.Context[Any] | None,
        keep_alive: KeepAlive,
        connect_timeout: float | None = None,
    ) -> None:
        """Connect, whether or not somebody listens there yet; `context` None makes one.

        Tasks fail when nobody has answered there for `connect_timeout` seconds; None: they wait. Raises ValueError for
        what is no address, OSError without descriptors, and RuntimeError where there are no threads.
        """
        threads.need_real("a Client")
        if context is None:
            refuse_inproc(address)
        self._patience = Patience(address, connect_timeout, monotonic())
        descriptors.need(DESCRIPTORS, "a client")
        self._complaints = LimitedLog(log)
        self._address = address
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._keep_alive = keep_alive
        self._process_id = os.getpid()
        self._alarm = Alarm()
        self._lock = threading.RLock()  # for what follows, and for the socket while a call drives it
        self._closed = False
        self._since = 0.0  # when it was noticed that the main thread has ended, or last a reply came; 0: neither
        self._is_let_go = False  # to be closed when there is nothing to do
        self._asleep = False  # the background thread waits, and wants the alarm
        self._is_watching = True  # it waits for the socket too, or may do so
        self._session = Session()
        self._bell: Alarm | None = None  # of the call that drives; None: none does
        self._spare_bell: Alarm | None = Alarm()
        self._in_doubt = False  # a call is in the middle of a message, or was interrupted there
        try:
            self._connection, self._inbox = self._connect()
        except (OSError, ValueError, zmq.ZMQError):
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="zmqbroker client", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return f"{self._address}, {'closed' if self._closed else f'{len(self._session)} tasks outstanding'}"

    def submit(self, request: Request) -> None:
        """Send a task; its reply is given to whom it says.

        Raises RuntimeError when this is closed, and in a process that was forked since.
        """
        self._check_process()
        with self._lock:
            self._check_open()
            self._enqueue(request)

    def call(self, request: Request, until: float) -> None:
        """Send a task as `submit` does, and wait for its reply in this thread, if no other task is without one.

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
                    self._send_now(request)
                else:
                    self._enqueue(request)
            if bell is not None:
                self._drive(request.key, bell, until)
        finally:
            if bell is not None:
                self._stop_driving(bell)

    def cancel(self, key: str, settle: Settle | None = None) -> bool:
        """Cancel a task, and have the answer given to `settle`.

        False when the task has its reply, or belongs to another process.
        """
        if self._is_forked():
            return False
        with self._lock:
            settled = self._session.cancel(key, settle)
            self._wake()
        _settle(settled or ())
        return settled is not None

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

    def close_when_idle(self) -> bool:
        """Have it closed as soon as every task has its reply; False in a process that was forked since."""
        if self._is_forked():
            return False
        self._is_let_go = True
        self._alarm.ring()
        return True

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

    def _enqueue(self, request: Request) -> None:
        """Leave it to the background thread to send a request."""
        self._session.submit(request)
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
        if not self._asleep or self._is_watching or self._session or self._in_doubt:
            return None
        self._take_over()  # from a call that has its reply, and has not stopped yet
        if self._spare_bell is None:
            with suppress(OSError):  # no descriptor is left
                self._spare_bell = Alarm()
        self._bell, self._spare_bell = self._spare_bell, None
        return self._bell

    def _send_now(self, request: Request) -> None:
        """Send a task, or have the background thread do it when it cannot be sent now."""
        self._in_doubt = True
        self._session.expect(request)
        with suppress(zmq.ZMQError):  # as the connection is in doubt then, the background thread gets it as well
            is_sent = self._connection.can_send and send(self._connection.socket, request.message(monotonic()))
            self._in_doubt = False
            if is_sent:
                return
        request.sent = 0
        self._enqueue(request)

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
                if self._bell is not bell or not self._session.only_waits_for(key):
                    return
                message = self._receive_now()
                descriptor = self._connection.descriptor
            if message is not None:
                self._receive([message])
            left = until - monotonic()
            if left <= 0 or threads.has_main_ended():
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
                if self._session or self._in_doubt:
                    self._wake()
            else:
                bell.hear()
            if self._spare_bell is None and not self._closed:
                self._spare_bell = bell
            else:
                bell.close()

    # In either thread

    def _receive(self, messages: Iterable[Frames]) -> None:
        replies = list(_read(messages))
        with self._lock:
            now = monotonic()
            self._since = 0.0
            settled = self._session.receive(replies, now)
            refusal = self._session.complaint(now)
        if refusal:
            text = "the broker at %s takes no tasks now, they are sent again later: %s"
            log_safely(log.warning, text, self._address, refusal)
        _settle(settled)

    # In the background thread

    def _run(self) -> None:
        try:
            while self._talk():
                if self._connection.state == LOST:
                    count = len(self._session)
                    text = "the connection to %s was lost: sending %d tasks again"
                    log_safely(log.info, text, self._address, count)
                if not self._reconnect():
                    return
            self._end()
            self._pass_on_cancels()
        except zmq.ZMQError as error:
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                raise
            log_safely(log.warning, "the client's context was closed before the client")
        finally:
            self._end()
            self._connection.close()
            self._release()

    def _reconnect(self) -> bool:
        """Connect again, and have everything sent again; False when closed before that could be done."""
        self._connection.close()
        while not self._closed:
            self._alarm.hear()
            self._alarm.wait(PAUSE_MS)
            try:
                self._connection, self._inbox = self._connect()
            except (OSError, zmq.ZMQError) as error:
                if error.errno not in descriptors.NONE_LEFT:
                    raise
                self._complaints.warn("descriptors", str(error.strerror), monotonic())
                continue
            with self._lock:
                self._session.reconnect()
            return True
        return False

    def _connect(self) -> tuple[Connection, Inbox]:
        connection = Connection(  # to a broker that takes no requests while its queue is full
            self._context, zmq.DEALER, self._address, self._keep_alive, self._patience, may_refuse=True, unsent=UNSENT
        )
        connection.socket.linger = 0  # now, so that closing the context before the client does not wait for ever
        return connection, Inbox(connection.socket, BATCH)

    def _talk(self) -> bool:
        """Send and receive until closed (False) or until the connection is lost (True)."""
        connection, inbox = self._connection, self._inbox
        poller = zmq.Poller()
        for waited_for in (*connection.waited_for, self._alarm):
            poller.register(waited_for, zmq.POLLIN)
        watched = 0
        due = -inf
        while True:
            if due < inf:
                due = connection.advance(monotonic())
                if self._give_up(connection.reason):
                    return True
            is_full = connection.can_send and not self._send_batch(connection.socket)
            with self._lock:
                if self._closed or (self._is_let_go and not self._session):
                    return False
                self._asleep = is_full or not connection.can_send or not self._session.has_unsent
                wait_ms = self._wait_ms(monotonic(), due) if self._asleep else 0
                wanted = (zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN) if self._session else 0
                self._is_watching = wanted != 0
            if wanted != watched:
                poller.modify(connection.socket, wanted)
                watched = wanted
            readable = dict(poller.poll(wait_ms))
            if not readable and self._is_program_over(monotonic()):
                return False
            with self._lock:
                self._asleep = False
                self._take_over()
                if self._in_doubt:
                    self._in_doubt = False
                    return True
            if self._alarm.fileno() in readable:
                self._alarm.hear()
            if readable.get(connection.socket, 0) & zmq.POLLIN:
                self._receive(inbox.batch(BATCH))
            if connection.monitor in readable:
                due = connection.advance(monotonic())
            if connection.has_ended:
                inbox.is_empty = False  # a call may have left the last replies unread
                while not inbox.is_empty:
                    self._receive(inbox.batch(BATCH))
                return True

    def _wait_ms(self, now: float, due: float) -> int | None:
        """Return how long to wait, None: until something happens; the connection is to be seen to when `due`."""
        if self._session:
            due = min(due, self._session.next_due(), now + LOOK)
        return None if due == inf else ceil(1000 * max(due - now, 0.0))

    def _is_program_over(self, now: float) -> bool:
        """Tell whether all that keeps this program from its end is threads that wait here, and wait in vain."""
        if not self._session or not threads.has_main_ended():
            return False
        self._since = self._since or now
        if now < self._since + LAST_REPLIES:
            return False
        why = "the main thread has ended, and for %g s no reply has come from %s: giving up %d tasks; join your threads"
        log_safely(log.warning, why, LAST_REPLIES, self._address, len(self._session))
        return True

    def _send_batch(self, to: zmq.Socket[bytes]) -> bool:
        """Send what waits to be sent, up to a bound; False when ZeroMQ takes no more for now."""
        with self._lock:
            now = monotonic()
            batch = self._session.take(BATCH, now)
        for number, request in enumerate(batch):
            if not send(to, request.message(now)):
                with self._lock:
                    self._session.put_back(batch[number:])
                return False
        return True

    def _give_up(self, reason: str) -> bool:
        """Fail every task when nobody has answered for too long; True when there were any.

        Another connection is needed then, as ZeroMQ would send them yet.
        """
        verdict = self._patience.verdict(monotonic(), reason)
        if verdict is None or not self._session:
            return False
        self._fail_tasks(UNREACHABLE, verdict)
        with self._lock:
            self._session.forget_cancels()
        return True

    def _end(self) -> None:
        self._closed = True
        self._fail_tasks(CLOSED, "the client was closed before the reply came")

    def _fail_tasks(self, status: str, reason: str) -> None:
        """Give every task without a reply one with this status and reason."""
        with self._lock:
            self._take_over()
            settled = self._session.give_up(status, reason)
        _settle(settled)

    def _pass_on_cancels(self) -> None:
        """Send what cancels are left, and wait for the answers, which say that they arrived; but not for long."""
        until = monotonic() + LAST_CANCELS
        opened, inbox = self._connection.socket, self._inbox
        while self._connection.can_send and self._session and (left := until - monotonic()) > 0:
            is_full = not self._send_batch(opened)
            wait_ms = ceil(1000 * left) if is_full or not self._session.has_unsent else 0
            opened.poll(wait_ms, zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN)
            self._receive(inbox.batch(BATCH))

    def _release(self) -> None:
        self._alarm.close()
        with self._lock:
            if self._spare_bell is not None:
                self._spare_bell.close()
        if self._own_context:
            self._context.term()


def _read(messages: Iterable[Frames]) -> Iterator[Reply]:
    for message in messages:
        try:
            yield wire.parse_reply(message)
        except wire.MalformedError as error:
            log_safely(log.warning, "%s", error)


def _settle(settled: Iterable[tuple[Settle, Reply]]) -> None:
    """Tell who waits for replies. What others had called then, a future's callbacks say, may raise anything at all."""
    for settle, reply in settled:
        try:
            settle(reply)
        except BaseException as error:
            log_safely(log.error, "a callback failed", exc_info=error)
