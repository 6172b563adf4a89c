"""Connecting, and noticing whether somebody answers, and when the connection was lost.

A number or a path is left to ZeroMQ at once, which tries again by itself until somebody listens there. The name of a
host is looked up here: libzmq would see the first of its IPv4 addresses only, and would wait for the name server in a
thread that everything else waits for. `search` decides which address is tried, `patience` when to complain.
"""

import logging
from contextlib import ExitStack, suppress
from functools import partial
from math import inf
from typing import Any

import zmq

from zmqbroker.transport import descriptors
from zmqbroker.transport.addresses import EXAMPLE, INPROC, parse
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.greeting import Greeting
from zmqbroker.transport.inquiry import Finding, Inquiry, look_at
from zmqbroker.transport.keep_alive import KeepAlive, set_keep_alive
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.messages import EVENTS, READABLE
from zmqbroker.transport.monitor import next_event, open_monitor
from zmqbroker.transport.name import Name
from zmqbroker.transport.patience import Patience

DESCRIPTORS = 6  # that one takes: three sockets of ZeroMQ's, the connection itself, and an alarm

RESOLVING = "resolving"  # a name server is being asked
CONNECTING = "connecting"
CONNECTED = "connected"
REFUSED = "refused"  # who listens there has hung up at once
LOST = "lost"

TAKEN = int(zmq.EVENT_CONNECTED)
ANSWERED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
TURNED_AWAY = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
DROPPED = int(zmq.EVENT_DISCONNECTED)

LOOK_AGAIN = 0.02  # seconds, while it is found out who has hung up

log = logging.getLogger("zmqbroker.connection")


class Connection:
    """A socket that is connected, or tries to be, and what ZeroMQ tells of that on a monitor.

    ZeroMQ connects again by itself but sends nothing again, so whoever waits for an answer opens a new one when it is
    lost. The owner polls `waited_for`, and calls `advance` when one is readable, and at the instant that it returned.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        kind: int,
        destination: Destination,
        patience: Patience,
        *,
        may_refuse: bool = False,
        unsent: int = 0,
    ) -> None:
        """Begin to connect, whether or not somebody listens there yet.

        Up to `unsent` messages are kept that cannot be sent yet; 0: however many; see `can_send`. Raises ValueError for
        what is no address, OSError without descriptors.
        """
        self._destination = destination
        self._target = parse(destination.address)
        destination.keep_alive.check()
        descriptors.need(DESCRIPTORS, f"a connection to {destination.address}")
        self.state = CONNECTING
        self.found: str | None = None  # of a name: the address that is tried, or has answered; None: none yet
        self._patience = patience
        self._inquiry: Inquiry[Finding] | None = None  # why nobody answers; None: that is not asked now
        self._is_turned_away = False  # by who has said why, and hangs up
        self._was_dropped = False  # by who has hung up at once, and it is not known yet what that is
        self._name: Name | None = None
        self.socket: zmq.Socket[bytes] = context.socket(kind)
        self.socket.sndhwm = unsent
        self.socket.rcvhwm = 0  # nothing comes that was not asked for, and who stops reading may be taken for dead
        set_keep_alive(self.socket, destination.keep_alive, may_refuse=may_refuse)
        if destination.credentials is not None:
            destination.credentials.put_on(self.socket)
        with ExitStack() as undoing:
            undoing.callback(self.socket.close, linger=0)
            self.monitor = open_monitor(context, self.socket, TAKEN | ANSWERED | TURNED_AWAY | DROPPED)
            undoing.callback(self.monitor.close, linger=0)
            self._begin()
            undoing.pop_all()
        self.descriptor: Any = self.socket.fileno()  # readable when there may be something, see ZMQ_FD
        self.waited_for: list[Any] = [self.monitor, *([self._name.fileno()] if self._name is not None else [])]

    @property
    def can_send(self) -> bool:
        """Tell whether messages may be sent: not before somebody has answered, as what they say may hold for now only.

        (ZMQ_IMMEDIATE would see to that too, but it drops what came and was not read yet when the connection ends.)
        """
        return self.state == CONNECTED

    @property
    def has_ended(self) -> bool:
        """Tell whether the connection is no more, or never was one because whoever listens there has hung up."""
        return self.state in (LOST, REFUSED)

    @property
    def reason(self) -> str:
        """Return why nobody answers, as far as is known; else nothing."""
        if self._name is not None and self._name.is_looked_up and self.found is None:
            return "its name server is silent"
        return self._inquiry.answer.reason if self._inquiry is not None and self._inquiry.answer is not None else ""

    def advance(self, now: float) -> float:
        """Do what is due, log what is to be said, and return when to call again, if nothing is readable before.

        That is at once when it has ended: its owner is to notice.
        """
        self._hear(now)
        if self._name is not None:
            self._try_next(self._name, now)
        self._complain(now)
        if self.has_ended:
            return now
        due = min(self._patience.next_due(now), inf if self._name is None else self._name.next_due())
        return min(due, now + LOOK_AGAIN) if self._was_dropped else due

    def is_lost(self, now: float) -> bool:
        """Take in what is new, and tell whether the connection has ended."""
        self._hear(now)
        return self.has_ended

    def close(self, linger_ms: int = 0) -> None:
        """Close at once; what was not sent yet is sent in so many milliseconds, or dropped."""
        with suppress(zmq.ZMQError):  # closed before, or its context is
            self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=linger_ms)
        if self._name is not None:
            self._name.close()

    def _begin(self) -> None:
        target = self._target
        if target.is_name:
            self._name = Name(target)
            self.state = RESOLVING
            return
        _connect(self.socket, target.numeric)
        if target.transport == INPROC:  # ZeroMQ tells nothing of those
            self.state = CONNECTED
            self._patience.answered()

    def _hear(self, now: float) -> None:
        """Take in what ZeroMQ tells of the connection."""
        while int(self.monitor.get(EVENTS)) & READABLE and (event := next_event(self.monitor)) is not None:
            if self._name is not None and event.address != self._target.at(self.found or ""):
                continue  # it was tried before
            if event.number == TAKEN and self._name is not None:
                self._name.taken(now)
            elif event.number == ANSWERED:
                self._note_answer()
            elif event.number == TURNED_AWAY:
                self._is_turned_away = True
                self._patience.turned_away(self._destination.unknown, now)
            elif event.number == DROPPED:
                self._note_end(now)
        if self._was_dropped:
            self._note_finding(now)

    def _note_answer(self) -> None:
        if self.has_ended:  # ZeroMQ has connected again by itself, before anybody looked
            return
        self.state = CONNECTED
        self._was_dropped = False
        self._patience.answered()
        if self._name is not None:
            self._name.keep()

    def _note_end(self, now: float) -> None:
        if self.state == CONNECTED:
            self.state = LOST
            self._patience.lost(now)
            return
        if self._is_turned_away:
            self._note_refusal()
        else:
            self._was_dropped = True
            self._ask()
        if self._name is not None:
            self._leave()  # ZeroMQ would go on by itself, ten times a second
            self._name.missed(now)

    def _note_finding(self, now: float) -> None:
        """Note who has hung up at once, as soon as that is known."""
        if self._inquiry is not None:
            if self._inquiry.answer is None:
                return
            mechanism, kind = self._inquiry.answer.greeting or Greeting()
            self._patience.found(kind, self._destination.mismatch(mechanism), now)
        self._was_dropped = False
        self._note_refusal()

    def _note_refusal(self) -> None:
        if self._name is None:
            self.state = REFUSED

    def _ask(self) -> None:
        """Begin to find out why nobody answers; that takes a while."""
        if self._inquiry is None or self._inquiry.answer is not None:
            with suppress(OSError):  # no thread can be started
                self._inquiry = Inquiry(partial(look_at, self._target))

    def _try_next(self, name: Name, now: float) -> None:
        """Connect to the next address of a name, if that is due, in place of the one before."""
        address = name.advance(now)
        if address is None or self.state == CONNECTED:
            return
        self._leave()
        self._is_turned_away = False
        self.found = address
        self.state = CONNECTING
        _connect(self.socket, self._target.at(address))

    def _leave(self) -> None:
        """Try the address of a name no longer that is tried, if there is one, and hear no more of it."""
        if self.found is not None:
            with suppress(zmq.ZMQError):  # libzmq has given it up by itself
                self.socket.disconnect(self._target.at(self.found))
            self.found = None

    def _complain(self, now: float) -> None:
        """Say that nobody answers, if that is due, and why."""
        patience = self._patience
        knows_why = self._is_turned_away or (self._name is not None and self._name.is_looked_up)
        if patience.wants_reason(now) and self._inquiry is None and not knows_why:
            self._ask()
        if self._inquiry is not None and self._inquiry.answer is not None and self._inquiry.answer.greeting is None:
            patience.found("", "", now)  # whoever has hung up before is gone
        complaint = patience.complaint(now, self.reason)
        if complaint is not None:
            log_safely(log.warning, "%s", complaint)
            self._inquiry = None


def connect(opened: zmq.Socket[Any], address: str, keep_alive: KeepAlive, *, may_refuse: bool) -> None:
    """Connect a socket, and notice a peer whose host has died; raise ValueError for what is no address.

    `may_refuse` tells whether the peer may take nothing for minutes and yet be alive.
    """
    target = parse(address)
    keep_alive.check()
    set_keep_alive(opened, keep_alive, may_refuse=may_refuse)
    _connect(opened, address if target.is_name else target.numeric)


def _connect(opened: zmq.Socket[Any], address: str) -> None:
    opened.ipv6 = "[" in address
    try:
        opened.connect(address)
    except (zmq.ZMQError, UnicodeError):
        raise ValueError(f"{address!r} is no address to connect to; {EXAMPLE}") from None
