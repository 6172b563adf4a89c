"""A task broker over plain ZeroMQ sockets, for workers that may hang, crash or vanish."""

from zmqbroker.broker import Broker
from zmqbroker.client import Client, TaskFailed
from zmqbroker.worker import Reject, Worker

__all__ = ["Broker", "Client", "Reject", "TaskFailed", "Worker"]
__version__ = "0.1.0"
