"""A task broker over plain ZeroMQ sockets, for workers that may hang, crash or vanish."""

from zmqbroker.broker.broker import Broker
from zmqbroker.client.client import Client
from zmqbroker.client.futures import TaskFailed
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.worker.outcome import Fail, Reject
from zmqbroker.worker.worker import Worker

__all__ = ["Broker", "Client", "Fail", "KeepAlive", "Reject", "TaskFailed", "Worker"]
__version__ = "0.1.0"
