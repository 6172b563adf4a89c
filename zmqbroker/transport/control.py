"""Asking a broker by its control socket."""

import socket
from itertools import count
from time import monotonic
from typing import Any

import zmq

from zmqbroker.transport.addresses import Address, parse
from zmqbroker.transport.destination import destination
from zmqbroker.transport.greeting import Greeting
from zmqbroker.transport.identity import FilePath
from zmqbroker.transport.inquiry import Finding, look_at
from zmqbroker.transport.messages import send
from zmqbroker.transport.monitor import next_event, open_monitor
from zmqbroker.transport.places import places
from zmqbroker.wire.control import parse_answer, question_message

PATIENCE = 5.0  # seconds for an answer
NAME_PATIENCE = 2.0  # seconds for a host that has a name to take a connection

MET = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
TURNED_AWAY = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
DROPPED = int(zmq.EVENT_DISCONNECTED)


class NoAnswerError(Exception):
    """Nobody answers at the control socket. Its text says why."""


class ControlSocket:
    """A connection to the control socket of one broker; to be closed, or used by `with`."""

    def __init__(
        self,
        address: str,
        patience: float = PATIENCE,
        *,
        identity: FilePath | None = None,
        broker_identity: FilePath | None = None,
    ) -> None:
        """Connect to an address; `patience` is how many seconds to wait for each answer.

        `identity` is a file with a pair of keys, `broker_identity` one with the broker's public key; None: those that
        the environment names, if it does. Raises ValueError for what is no address and no identity, NoAnswerError where
        its name leads nowhere.
        """
        self.address = address
        self._broker = destination(address, identity=identity, broker_identity=broker_identity)
        self._patience = patience
        self._target = parse(address)
        numeric = _numeric(self._target)
        self._next_id = count(1).__next__
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        if self._broker.credentials is not None:
            self._broker.credentials.put_on(self._socket)
        self._monitor = open_monitor(self._context, self._socket, MET | TURNED_AWAY | DROPPED)
        self._has_met = False  # somebody, and may have been heard
        self._was_dropped = False  # before that
        self._misfit = ""  # why an identity does not fit there, so that no answer will come; empty: it may
        self._socket.ipv6 = "[" in numeric
        try:
            self._socket.connect(numeric)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"{address!r} is no address to connect to: {error.strerror}") from None

    def __enter__(self) -> "ControlSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        self._context.term()

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to a question, or have something done.

        Raises NoAnswerError when none comes in time, ControlError for what is refused, MalformedError for nonsense.
        """
        until = monotonic() + self._patience
        own_id = b"%d" % self._next_id()
        send(self._socket, [*question_message(own_id, what, **fields)])  # not once it was turned away
        while self._wait(until):
            id, answer = parse_answer(self._socket.recv_multipart())
            if id == own_id:  # else it is to a question that was given up
                return answer
        raise NoAnswerError(self._reason())

    def _wait(self, until: float) -> bool:
        """Wait for a message; False when there is none at the instant `until`, or will be none."""
        poller = zmq.Poller()
        for waited_for in (self._socket, self._monitor):
            poller.register(waited_for, zmq.POLLIN)
        while not self._misfit:
            readable = dict(poller.poll(max(0, round(1000 * (until - monotonic())))))
            if self._socket in readable or not readable:
                return bool(readable)
            if (event := next_event(self._monitor)) is not None:
                self._note(event.number)
        return False

    def _note(self, event: int) -> None:
        if event == MET:
            self._has_met = True
        elif event == TURNED_AWAY:
            self._misfit = self._broker.unknown
        elif not self._was_dropped and not self._has_met:
            self._was_dropped = True
            self._misfit = self._mismatch(look_at(self._target))

    def _mismatch(self, finding: Finding) -> str:
        mechanism, _ = finding.greeting or Greeting()
        return "" if self._has_met else self._broker.mismatch(mechanism)

    def _reason(self) -> str:
        """Return why no answer has come."""
        if self._misfit:
            return self._misfit
        finding = look_at(self._target)
        return self._mismatch(finding) or f"no broker answers at {self.address}: {finding.reason}"


def control_addresses() -> list[str]:
    """Return the addresses of the control sockets at the places where one looks for them."""
    return [f"ipc://{path}" for path in places()]


def _numeric(target: Address) -> str:
    """Return an address without a name: that of its addresses which takes a connection."""
    if not target.is_name:
        return target.numeric
    try:
        with socket.create_connection((target.host, target.port), NAME_PATIENCE) as found:
            return target.at(found.getpeername()[0])
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "its name leads nowhere"
        raise NoAnswerError(f"no broker answers at {target.text}: {reason.lower()}") from None
