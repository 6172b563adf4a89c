"""What the threads of a link share: the session, the connection, who drives it; and the lock for all that.

A signal handler, or the garbage collector, may use the link in the middle of anything here, hence the reentrant lock.
"""

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from time import monotonic

from zmqbroker import wire
from zmqbroker.client.futures import UNREACHABLE, name_of
from zmqbroker.client.last_wait import LastWait
from zmqbroker.client.request import Request, Settle
from zmqbroker.client.session import Session
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.connection import Connection
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.wire import Frames, Reply

log = logging.getLogger("zmqbroker.client")


class Shared:
    """The state of a link. The background thread owns the connection, and lends its socket to one call at a time."""

    connection: Connection  # set by the background thread's side before anybody else is there

    def __init__(self, address: str) -> None:
        """Begin without a connection; raises OSError without descriptors."""
        self.address = address
        self.alarm = Alarm()  # wakes the background thread
        self.lock = threading.RLock()  # for what follows, and for the socket while a call drives it
        self.session = Session()
        self.closed = False
        self.is_let_go = False  # to be closed when there is nothing to do
        self.outlives_main = False  # replies are waited for when the main thread has ended, while a broker is there
        self.asleep = False  # the background thread waits, and wants the alarm
        self.is_watching = True  # it waits for the socket too, or may do so
        self.bell: Alarm | None = None  # of the call that drives; None: none does
        self.in_doubt = False  # a call is in the middle of a message, or was interrupted there
        self.last_wait = LastWait()
        self._process_id = os.getpid()

    def is_forked(self) -> bool:
        """Tell whether this is another process than the one that has the background thread."""
        return self._process_id != os.getpid()

    def is_locked_here(self) -> bool:
        """Tell whether this thread has the lock: then a signal handler has interrupted what needs it."""
        is_owned: bool = self.lock._is_owned()  # type: ignore[attr-defined]  # as threading.Condition does
        return is_owned

    def receive(self, messages: Iterable[Frames]) -> None:
        """Take in what has come, and tell who waits for it; without the lock, in the thread that has received it."""
        replies = list(_read(messages, self.address))
        with self.lock:
            now = monotonic()
            self.last_wait.replied()
            settled = self.session.receive(replies, now)
            refusal, plight = self.session.complaint(now), self.session.plight()
        if refusal:
            text = "the broker at %s takes no tasks now, they are sent again later: %s"
            log_safely(log.warning, text, self.address, refusal)
        if plight:
            log_safely(log.warning, "no replies come from %s: %s", self.address, plight)
        tell(settled)

    # With the lock held

    def enqueue(self, request: Request) -> None:
        """Leave it to the background thread to send a request."""
        self.session.submit(request)
        self.wake()

    def wake(self) -> None:
        """Wake the background thread; rung first and noted then, so that an interruption makes it twice, not never."""
        if self.asleep:
            self.alarm.ring()
            self.asleep = False

    def take_over(self) -> None:
        """Let no call drive the socket from now on."""
        if self.bell is not None:
            self.bell.ring()
            self.bell = None


def tell(settled: Iterable[tuple[Settle, list[Reply]]]) -> None:
    """Tell who waits for replies. What others had called then, a future's callbacks say, may raise anything at all."""
    for settle, replies in settled:
        try:
            settle(replies)
        except BaseException as error:
            log_safely(log.error, "%s: a callback failed", name_of(replies[0]), exc_info=error)


def _read(messages: Iterable[Frames], address: str) -> Iterator[Reply]:
    for message in messages:
        try:
            reply = wire.parse_reply(message)
            if reply.at is not None:  # no broker of ours: that it is one for others does not help
                reply = reply._replace(status=UNREACHABLE, reason=f"{address} is the wrong address: {reply.reason}")
            yield reply
        except wire.MalformedError as error:
            log_safely(log.warning, "%s", error)
