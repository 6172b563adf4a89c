"""A worker's line to the broker: a DEALER on READY, by which the session says and hears everything.

It connects, announces the worker and waits for the welcome, which alone shows that a broker of this version is there;
until then nothing else is said. When the connection is lost it opens another one at once, so that what the worker is at
may not be lost with it, and the ones after that at intervals. It never waits: its owner polls, and calls `advance` and
`receive`. It may be used in any thread, by one at a time.
"""

import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import zmq

from zmqbroker import __version__
from zmqbroker.transport import descriptors
from zmqbroker.transport.addresses import is_surely_one, parse
from zmqbroker.transport.connection import CONNECTED, REFUSED, Connection
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.limited_log import LimitedLog, log_safely, printable
from zmqbroker.transport.messages import EVENTS, READABLE, Inbox, send
from zmqbroker.transport.patience import FIRST_PAUSE, LONGEST_PAUSE, Patience
from zmqbroker.wire import Announce, Frames, MalformedError
from zmqbroker.wire.announced import MOST_ASKED, Welcome, announce_message, parse_told
from zmqbroker.wire.header import WORKERS_BELONG
from zmqbroker.worker.session import Session

PAUSE = 0.5  # seconds between losing the broker and calling again, should it hang up at every call
WELCOME_WITHIN = 5.0  # seconds

log = logging.getLogger("zmqbroker.worker")


class Line:
    """One connection after another to the broker."""

    def __init__(
        self,
        context: zmq.Context[Any],
        destination: Destination,
        connect_timeout: float | None,
        announce: Announce,
        session: Session,
        complaints: LimitedLog,
        on_welcome: Callable[[str], object],
        now: float,
    ) -> None:
        """Prepare to connect; `connect_timeout` is in seconds. Raises ValueError for what is no address.

        `on_welcome` is called with what it has reached, for people: at the beginning, and whenever it has called again.
        """
        self.verdict = ""  # why there is no point in going on
        self.socket: zmq.Socket[bytes] | None = None  # None: not yet, or not again
        self.waited_for: list[Any] = []  # what to poll in the thread that has the line
        self.due = now  # when to call `advance`, if nothing happens before
        self._context = context
        self._destination = destination
        self._address = destination.address
        self._connect_timeout = inf if connect_timeout is None else connect_timeout
        self._patience = Patience(destination.address, connect_timeout, now, WORKERS_BELONG)
        self._announce = announce
        self._session = session
        self._complaints = complaints
        self._on_welcome = on_welcome
        self._connect_at = now  # not before
        self._lost_at = -inf  # the last connection
        self._is_announced = False
        self._welcome_by = inf
        self._unwelcome_since = now
        self._complain_at = now  # of no welcome; not before
        self._complaint_pause = FIRST_PAUSE
        self._connection: Connection | None = None
        self._inbox: Inbox | None = None
        destination.keep_alive.check()
        if not is_surely_one(parse(destination.address)):
            Connection(context, zmq.DEALER, destination, self._patience).close()

    def advance(self, now: float) -> None:
        """Do what is due at the connection, or open one. Raises nothing: see `verdict`."""
        connection = self._connection or self._open(now)
        if connection is None:
            self.due = self._connect_at
            return
        due = connection.advance(now)
        verdict = self._patience.verdict(now, connection.reason)
        if verdict is not None:
            self.verdict = verdict
        if connection.state == CONNECTED and not self._is_announced:
            self._introduce(now)
        if connection.has_ended:
            self._lose(now)
        elif now >= self._welcome_by:
            self._doubt(now)
        else:
            self.due = min(due, self._welcome_by)

    def receive(self, now: float, most: int) -> None:
        """Take in up to `most` messages that are there."""
        if self._inbox is not None:
            for message in self._inbox.batch(max(1, most)):
                self._hear(message, now)

    def receive_all(self, now: float) -> None:
        """Take in what is there, and see to the connection: nothing is left unnoticed, as `descriptors` needs."""
        self.advance(now)
        while self.socket is not None and int(self.socket.get(EVENTS)) & READABLE:
            self.receive(now, MOST_ASKED)

    def say(self, message: Frames | None) -> None:
        """Send what the session says; None is nothing."""
        if message is not None and self.socket is not None:
            send(self.socket, message)

    def say_all(self, messages: list[Frames]) -> None:
        """Send all that the session says."""
        for message in messages:
            self.say(message)

    def has_news(self, readable: Mapping[Any, int]) -> bool:
        """Tell whether something happened to the connection, by what is readable of `waited_for`."""
        return self._connection is not None and self._connection.monitor in readable

    def descriptors(self) -> list[int]:
        """Return what becomes readable when something happens after `receive_all`; another thread may have the line."""
        return [waited_for if isinstance(waited_for, int) else waited_for.fileno() for waited_for in self.waited_for]

    def close(self, linger_ms: int = 0) -> None:
        """Close the connection; what was said last is sent in so many milliseconds, or lost."""
        if self._connection is not None:
            self._connection.close(linger_ms)
        self._connection = self.socket = None
        self.waited_for = []

    def _open(self, now: float) -> Connection | None:
        """Begin to connect; None when it is to be tried later."""
        if now < self._connect_at:
            return None
        try:
            connection = Connection(self._context, zmq.DEALER, self._destination, self._patience)
        except (OSError, zmq.ZMQError) as error:
            if error.errno not in descriptors.NONE_LEFT:
                raise
            self._complaints.tell("descriptors", str(error.strerror), now)
            self._connect_at = now + PAUSE
            return None
        self._connection, self.socket = connection, connection.socket
        self.waited_for = [self.socket, *connection.waited_for]
        self._inbox = Inbox(self.socket, MOST_ASKED)
        self._is_announced = False
        return connection

    def _introduce(self, now: float) -> None:
        self._is_announced = True
        self._welcome_by = now + min(WELCOME_WITHIN, self._connect_timeout)
        self.say(announce_message(self._announce, __version__, self._session.held()))

    def _hear(self, message: Frames, now: float) -> None:
        try:
            told = parse_told(message)
        except MalformedError as error:
            self._complaints.tell("malformed", f"from {self._address}: {error}", now)
            return
        if isinstance(told, Welcome):
            self._greet(told)
        elif self._session.is_welcome and (said := self._session.receive(told)):
            self.say_all(said)

    def _greet(self, welcome: Welcome) -> None:
        if welcome.refusal:
            self.verdict = f"{self._address} takes no workers: {welcome.refusal}"
        elif not self._session.is_welcome:
            self._welcome_by = self._unwelcome_since = inf
            self._complaint_pause = FIRST_PAUSE
            self.say_all(self._session.welcome())
            reached = printable(f"zmqbroker {welcome.version} at {self._address}")
            log_safely(log.debug if self._lost_at == -inf else log.info, "reached %s", reached)
            self._on_welcome(reached)

    def _lose(self, now: float) -> None:
        """Take in what came before the connection was lost, and have another one opened."""
        while self._inbox is not None and not self._inbox.is_empty:
            self.receive(now, MOST_ASKED)
        if self._session.is_welcome:
            log_safely(log.info, "the connection to %s was lost: asking again", self._address)
        self._unwelcome_since = min(self._unwelcome_since, now)
        self._welcome_by = inf
        self._session.disconnect()
        if self._connection is not None and self._connection.state == REFUSED:
            self._connect_at = max(now + PAUSE, self._patience.next_try(now))
        else:
            self._connect_at = now if now > self._lost_at + PAUSE else now + PAUSE
        self.close()
        self.due = self._connect_at
        self._lost_at = now

    def _doubt(self, now: float) -> None:
        """Say that whoever is there knows nothing of workers that announce themselves, and call again."""
        text = f"what answers at {self._address} is no zmqbroker of this version"
        if now >= self._unwelcome_since + self._connect_timeout:
            self.verdict = text
        if now >= self._complain_at:
            self._complain_at = now + self._complaint_pause
            self._complaint_pause = min(2 * self._complaint_pause, LONGEST_PAUSE)
            log_safely(log.warning, "%s", text)
        self._lose(now)
