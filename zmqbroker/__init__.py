"""A task broker over plain ZeroMQ sockets, for workers that may hang, crash or vanish."""

from zmqbroker.broker import Broker

__all__ = ["Broker"]
__version__ = "0.1.0"
