"""What a supervisor says to the broker in the place of a process that cannot: why its attempt failed.

It has a connection of its own for that, which does not announce itself: so it speaks for the attempt and asks for
nothing.
"""

import logging
from collections.abc import Sequence
from math import ceil
from time import monotonic
from typing import Any

import zmq

from zmqbroker.transport.connection import Connection
from zmqbroker.transport.contexts import terminate
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.messages import send
from zmqbroker.transport.patience import Patience
from zmqbroker.wire import FAIL
from zmqbroker.wire.announced import outcome_message

PATIENCE = 1.0  # seconds for a broker that does not answer: the supervisor has other things to do

log = logging.getLogger("zmqbroker.supervisor")


def say_last_words(broker: Destination, failures: Sequence[tuple[bytes, str]], patience: float = PATIENCE) -> None:
    """Tell the broker, at its address for workers, of attempts that failed, each by its id and why.

    All is sent when this returns, unless that takes more than twice `patience` seconds; who hears nothing notices the
    loss of the connection.
    """
    try:
        context: zmq.Context[Any] = zmq.Context()
        try:
            _say(context, broker, failures, patience)
        finally:
            terminate(context, patience)
    except (OSError, zmq.ZMQError) as error:
        log.warning("cannot tell the broker why a task failed: %s", error.strerror)


def _say(
    context: zmq.Context[Any], broker: Destination, failures: Sequence[tuple[bytes, str]], patience: float
) -> None:
    until = monotonic() + patience
    connection = Connection(context, zmq.DEALER, broker, Patience(broker.address, None, monotonic()))
    try:
        while True:
            now = monotonic()
            due = min(connection.advance(now), until)
            if connection.can_send or connection.has_ended or now >= until:
                break
            zmq.zmq_poll([(one, zmq.POLLIN) for one in connection.waited_for], ceil((due - now) * 1000))
        for attempt_id, reason in failures:
            send(connection.socket, outcome_message(FAIL, 0, attempt_id, [reason.encode()]))
    finally:
        connection.close(linger_ms=round(patience * 1000))
