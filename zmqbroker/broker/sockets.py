"""The broker's sockets, and all else that its loop waits for."""

import logging
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import zmq

from zmqbroker.broker.handshakes import Handshakes
from zmqbroker.broker.liveness import Connections
from zmqbroker.transport import descriptors
from zmqbroker.transport.addresses import IPC
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.binding import SocketOptions, bind, open_control, open_socket
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.places import AUTO, own_place

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
    ) -> None:
        """Open and bind them; `control` None: there is none; `context` None makes one with so many threads.

        Raises ValueError as `bind` does, OSError without descriptors.
        """
        descriptors.need(DESCRIPTORS, "a broker")
        self.poller = zmq.Poller()
        self._process = os.getpid()
        self._closing = ExitStack()  # what `close` undoes, the last first
        with ExitStack() as undoing:
            undoing.callback(self.close)
            self.alarm = self._polled(Alarm())
            self.context = context or zmq.Context(io_threads)
            if context is None:
                self._closing.callback(self.context.term)
            self.results = self._polled(open_socket(self.context, zmq.PULL, options))
            self.requests = self._polled(open_socket(self.context, zmq.ROUTER, options, UNREAD_REPLIES))
            self.ready = self._polled(open_socket(self.context, zmq.ROUTER, options))
            self.workers = Connections(self.context, self.ready)
            self._closing.callback(self.workers.close)
            self.poller.register(self.workers.monitor, zmq.POLLIN)
            self.watched = {"REQUESTS": self._watch(self.requests), "RESULTS": self._watch(self.results)}
            opened = (self.requests, self.ready, self.results)
            self.addresses = Addresses(*map(bind, opened, addresses))
            self.control: zmq.Socket[bytes] | None = None
            self.control_address = self._open_control(control)  # None: there is none
            undoing.pop_all()

    @property
    def connections(self) -> dict[str, int]:
        """How many connections there are to the sockets of clients and workers."""
        handshakes = {"ready": self.workers.handshakes}
        handshakes |= {where.lower(): watched for where, watched in self.watched.items()}
        return {where: len(watched.open) for where, watched in handshakes.items()}

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
        return bound

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
