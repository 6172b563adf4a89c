"""Ending a ZeroMQ context, which may wait for what is foreign: libzmq asks name servers without a limit of time."""

import logging
import threading
from typing import Any

import zmq

from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.messages import LINGER_MS

PATIENCE = LINGER_MS / 1000 + 3.0  # seconds; the first part is for what was not sent yet

log = logging.getLogger("zmqbroker.transport")


def terminate(context: zmq.Context[Any], patience: float = PATIENCE) -> None:
    """Terminate a context, in so many seconds at most: one that does not end is left to the end of the process."""
    ending = threading.Thread(target=context.term, daemon=True)
    ending.start()
    ending.join(patience)
    if ending.is_alive():
        log_safely(
            log.warning, "ZeroMQ does not end within %g s: left alone (a name server that is silent, perhaps)", patience
        )
