"""The broker's sockets, and all else that its loop waits for."""

import logging
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import zmq

from zmqbroker.broker.handshakes import Handshakes
from zmqbroker.broker.liveness import Connections
from zmqbroker.broker.traffic import CONTROL, READY, REQUESTS, RESULTS
from zmqbroker.transport import descriptors
from zmqbroker.transport.addresses import IPC, is_exposed
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.binding import SocketOptions, bind, open_control, open_socket
from zmqbroker.transport.curve import guard
from zmqbroker.transport.identity import Identity
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.places import AUTO, own_place
from zmqbroker.transport.routing_ids import make_unguessable
from zmqbroker.transport.zap import leave_zap, open_zap

DESCRIPTORS = 20  # that they take without any connection: an alarm, ZeroMQ's own, sockets, listeners, some to spare
UNREAD_REPLIES = 100_000  # replies kept for a client that does not read them; further ones are dropped and counted

log = logging.getLogger("zmqbroker")

Polled = TypeVar("Polled", Alarm, "zmq.Socket[bytes]")


class Addresses(NamedTuple):
    """The addresses of the sockets; once bound, wildcards are resolved."""

    requests: str
    ready: str
    results: str


class Sockets:
    """Three sockets, perhaps one for control, monitors and an alarm, in one poller, in the order to be served in."""

    def __init__(
        self,
        addresses: Addresses,
        control: str | None,
        options: SocketOptions,
        context: zmq.Context[Any] | None,
        io_threads: int,
        identity: Identity | None = None,
    ) -> None:
        """Open and bind them; `control` None: there is none; `context` None makes one with so many threads.

        With an `identity` they ask by ZAP about whoever comes. Raises ValueError as `bind`, `open_zap` and `guard` do,
        OSError without descriptors.
        """
        descriptors.need(DESCRIPTORS, "a broker")
        make_unguessable()
        self.poller = zmq.Poller()
        self._process = os.getpid()
        self._identity = identity
        self._closing = ExitStack()  # what `close` undoes, the last first
        with ExitStack() as undoing:
            undoing.callback(self.close)
            self.alarm = self._polled(Alarm())
            self.context = context or zmq.Context(io_threads)
            if context is None:
                self._closing.callback(self.context.term)
            self.zap = None if identity is None else self._polled(open_zap(self.context))
            if self.zap is not None:
                self._closing.callback(leave_zap, self.zap)
            self.opened: dict[str, zmq.Socket[bytes]] = {}  # by what comes there
            self.results = self._opened(RESULTS, open_socket(self.context, zmq.PULL, options))
            self.requests = self._opened(REQUESTS, open_socket(self.context, zmq.ROUTER, options, UNREAD_REPLIES))
            self.ready = self._opened(READY, open_socket(self.context, zmq.ROUTER, options))
            self.workers = Connections(self.context, self.ready)
            self._closing.callback(self.workers.close)
            self.poller.register(self.workers.monitor, zmq.POLLIN)
            self.watched = {where: self._watch(self.opened[where]) for where in (REQUESTS, RESULTS)}
            self.addresses = Addresses(*map(bind, (self.requests, self.ready, self.results), addresses))
            self.control: zmq.Socket[bytes] | None = None
            self.control_address = self._open_control(control)  # None: there is none
            undoing.pop_all()

    @property
    def handshakes(self) -> dict[str, Handshakes]:
        """Who comes and goes, of each socket where that is watched."""
        return {READY: self.workers.handshakes} | self.watched

    @property
    def connections(self) -> dict[str, int]:
        """How many connections there are to each of these."""
        return {where: len(watched.open) for where, watched in self.handshakes.items()}

    def tells_of(self, where: str) -> bool:
        """Tell whether it is news that a connection to this socket has ended before its handshake was over.

        It is none at a control socket that is a file: our own commands look so whether anybody listens there.
        """
        return where != CONTROL or not (self.control_address or "").startswith(IPC)

    @property
    def open_to_all(self) -> list[str]:
        """The addresses where whoever reaches this machine may do anything."""
        addresses = [*self.addresses, *([self.control_address] if self.control_address else [])]
        return [] if self._identity else list(filter(is_exposed, addresses))

    @property
    def are_inherited(self) -> bool:
        """Tell whether this is a forked child of the process that opened them."""
        return os.getpid() != self._process

    def _open_control(self, address: str | None) -> str | None:
        """Open and bind the control socket, at a place of its own if need be; None: there is none, or no place."""
        if address is None:
            return None
        opened = open_control(self.context)
        try:
            self._guard(CONTROL, opened)
            bound = bind(opened, f"ipc://{own_place()}" if address == AUTO else address)
        except (OSError, ValueError) as error:
            opened.close()
            if address != AUTO:
                raise
            log_safely(log.warning, "there is no control socket: %s; give --control an address, or none", error)
            return None
        if address == AUTO:
            self._closing.callback(_remove, Path(bound.removeprefix(IPC)))  # libzmq leaves it there
        self.control = self._polled(opened)
        if self._identity is not None:
            self.opened[CONTROL] = opened
            self.watched[CONTROL] = self._watch(opened)
        return bound

    def _opened(self, where: str, opened: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
        """Have a socket for clients or workers, guarded if there is an identity."""
        self.opened[where] = self._polled(opened)
        self._guard(where, opened)
        return opened

    def _guard(self, where: str, opened: "zmq.Socket[bytes]") -> None:
        if self._identity is not None:
            guard(opened, self._identity, where)

    def _polled(self, opened: Polled) -> Polled:
        """Have the loop wait for what is readable, and `close` close it."""
        self.poller.register(opened, zmq.POLLIN)
        self._closing.callback(opened.close)
        return opened

    def _watch(self, opened: "zmq.Socket[bytes]") -> Handshakes:
        """Have the loop wait for who comes there; by a descriptor, which costs a poll less than a socket does."""
        handshakes = Handshakes(self.context, opened)
        self._closing.callback(handshakes.close)
        self.poller.register(handshakes.fileno(), zmq.POLLIN)
        return handshakes

    def close(self) -> None:
        """Close them, waiting up to LINGER_MS milliseconds for the last replies to be sent.

        In a forked child nothing is done: what libzmq has there is still its parent's.
        """
        if not self.are_inherited:
            self._closing.close()


def _remove(path: Path) -> None:
    """Remove a file, if that can be done."""
    with suppress(OSError):
        path.unlink()
