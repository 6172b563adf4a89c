"""The conversation with the broker that the background thread of a link holds, over one connection after another.

It sends what the session says, takes in replies, and connects again when the connection is lost or in doubt. While
every task has its reply it leaves the socket alone, so that a call may drive it, and waits for its alarm only.
"""

import logging
from collections.abc import Callable
from math import ceil, inf
from time import monotonic

import zmq

from zmqbroker.client import last_wait
from zmqbroker.client.futures import CLOSED, UNREACHABLE
from zmqbroker.client.shared import Shared, tell
from zmqbroker.transport import descriptors
from zmqbroker.transport.connection import CONNECTED, LOST, REFUSED, Connection
from zmqbroker.transport.limited_log import LimitedLog, log_safely
from zmqbroker.transport.messages import Inbox, send
from zmqbroker.transport.patience import Patience

BATCH = 256  # replies read before requests are sent again
PAUSE_MS = 200  # between losing the broker and connecting again, should it hang up at every call
LAST_CANCELS = 1.0  # seconds to tell the broker of cancelled tasks when the link is closed
OFTEN_CUT = (
    "the connection to %s has ended %d times in a row without a reply, and everything was sent again: "
    "is a task larger than its broker takes (--max-size)?"
)

log = logging.getLogger("zmqbroker.client")


class Conversation:
    """Sends and receives until the link is closed, and fails what is outstanding then."""

    def __init__(self, shared: Shared, connect: Callable[[], Connection], patience: Patience) -> None:
        """Connect for the first time; raises what `connect` does."""
        self._shared = shared
        self._connect = connect
        self._patience = patience
        self._complaints = LimitedLog(log)
        self._open()

    def hold(self) -> None:
        """Do all that the background thread is for."""
        shared = self._shared
        try:
            while self._talk():
                if shared.connection.state == LOST:
                    count = len(shared.session)
                    text = "the connection to %s was lost: sending %d tasks again"
                    log_safely(log.info, text, shared.address, count)
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
            shared.connection.close()

    def _open(self) -> None:
        connection = self._connect()
        connection.socket.linger = 0  # now, so that closing the context before the client does not wait for ever
        self._shared.connection, self._inbox = connection, Inbox(connection.socket, BATCH)

    def _reconnect(self) -> bool:
        """Connect again, and have everything sent again; False when closed before that could be done."""
        shared = self._shared
        pause_ms = PAUSE_MS
        was_refused = shared.connection.state == REFUSED
        if was_refused:
            now = monotonic()
            pause_ms = max(PAUSE_MS, ceil(1000 * (self._patience.next_try(now) - now)))
        shared.connection.close()
        while not shared.closed:
            shared.alarm.hear()
            shared.alarm.wait(pause_ms)
            try:
                self._open()
            except (OSError, zmq.ZMQError) as error:
                if error.errno not in descriptors.NONE_LEFT:
                    raise
                self._complaints.tell("descriptors", str(error.strerror), monotonic())
                continue
            with shared.lock:
                shared.session.reconnect(was_cut=not was_refused)
                cuts = shared.session.cuts_to_tell()
            if cuts:
                log_safely(log.warning, OFTEN_CUT, shared.address, cuts)
            return True
        return False

    def _talk(self) -> bool:
        """Send and receive until closed (False) or until the connection is lost (True)."""
        shared, connection = self._shared, self._shared.connection
        poller = zmq.Poller()
        for waited_for in (*connection.waited_for, shared.alarm):
            poller.register(waited_for, zmq.POLLIN)
        watched = 0
        due = -inf
        while True:
            if due < inf:
                due = connection.advance(monotonic())
                if self._give_up(connection.reason):
                    return True
            is_full = connection.can_send and not self._send_batch(connection.socket)
            with shared.lock:
                if shared.closed or (shared.is_let_go and not shared.session):
                    return False
                shared.asleep = is_full or not connection.can_send or not shared.session.has_unsent
                wait_ms = self._wait_ms(monotonic(), due) if shared.asleep else 0
                wanted = (zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN) if shared.session else 0
                shared.is_watching = wanted != 0
            if wanted != watched:
                poller.modify(connection.socket, wanted)
                watched = wanted
            readable = dict(poller.poll(wait_ms))
            if not readable:
                now = monotonic()
                if self._is_program_over(now):
                    return False
                with shared.lock:
                    shared.session.wonder(now)
            if not self._take_socket():
                return True
            if shared.alarm.fileno() in readable:
                shared.alarm.hear()
            if readable.get(connection.socket, 0) & zmq.POLLIN:
                shared.receive(self._inbox.batch(BATCH))
            if connection.monitor in readable:
                due = connection.advance(monotonic())
            if connection.has_ended:
                self._receive_the_rest()
                return True

    def _take_socket(self) -> bool:
        """Be awake, and have the socket back from the call that drives it; False when a call has left it in doubt."""
        shared = self._shared
        with shared.lock:
            shared.asleep = False
            shared.take_over()
            is_whole = not shared.in_doubt
            shared.in_doubt = False
        return is_whole

    def _receive_the_rest(self) -> None:
        """Receive what came before the connection ended: a call may have left it unread."""
        self._inbox.is_empty = False
        while not self._inbox.is_empty:
            self._shared.receive(self._inbox.batch(BATCH))

    def _wait_ms(self, now: float, due: float) -> int | None:
        """Return how long to wait, None: until something happens; the connection is to be seen to when `due`."""
        if self._shared.session:
            due = min(due, self._shared.session.next_due(), self._shared.last_wait.next_look(now))
        return None if due == inf else ceil(1000 * max(due - now, 0.0))

    def _is_program_over(self, now: float) -> bool:
        """Tell whether all that keeps this program from its end is threads that wait here, and wait in vain."""
        shared = self._shared
        if shared.outlives_main and shared.connection.state == CONNECTED:
            shared.last_wait.replied()
        if not shared.session or not shared.last_wait.is_over(now):
            return False
        why = "the main thread has ended, and for %g s no reply has come from %s: giving up %d tasks; join your threads"
        log_safely(log.warning, why, last_wait.LAST_REPLIES, shared.address, len(shared.session))
        return True

    def _send_batch(self, to: zmq.Socket[bytes]) -> bool:
        """Send what waits to be sent, up to a bound; False when ZeroMQ takes no more for now."""
        shared = self._shared
        with shared.lock:
            now = monotonic()
            batch = shared.session.take(BATCH, now)
            expired, shared.session.expired = shared.session.expired, []
        tell(expired)
        for number, request in enumerate(batch):
            if not send(to, request.message(now)):
                with shared.lock:
                    shared.session.put_back(batch[number:])
                return False
        return True

    def _give_up(self, reason: str) -> bool:
        """Fail every task when nobody has answered for too long; True when there were any.

        Another connection is needed then, as ZeroMQ would send them yet.
        """
        verdict = self._patience.verdict(monotonic(), reason)
        if verdict is None or not self._shared.session:
            return False
        self._fail_tasks(UNREACHABLE, verdict)
        with self._shared.lock:
            self._shared.session.forget_cancels()
        return True

    def _end(self) -> None:
        self._shared.closed = True
        self._fail_tasks(CLOSED, "the client was closed before the reply came")

    def _fail_tasks(self, status: str, reason: str) -> None:
        """Give every task without a reply one with this status and reason."""
        with self._shared.lock:
            self._shared.take_over()
            settled = self._shared.session.give_up(status, reason)
        tell(settled)

    def _pass_on_cancels(self) -> None:
        """Send what cancels are left, and wait for the answers, which say that they arrived; but not for long."""
        until = monotonic() + LAST_CANCELS
        connection, session = self._shared.connection, self._shared.session
        while connection.can_send and session and (left := until - monotonic()) > 0:
            is_full = not self._send_batch(connection.socket)
            wait_ms = ceil(1000 * left) if is_full or not session.has_unsent else 0
            connection.socket.poll(wait_ms, zmq.POLLIN | zmq.POLLOUT if is_full else zmq.POLLIN)
            self._shared.receive(self._inbox.batch(BATCH))
