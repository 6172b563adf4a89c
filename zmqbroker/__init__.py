"""A task broker over plain ZeroMQ sockets, for workers that may hang, crash or vanish.

What this names is imported when it is first asked for: ZeroMQ takes a tenth of a second, in which a command can already
hear signals.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmqbroker.broker.broker import Broker
    from zmqbroker.broker.store.gate import StoreError
    from zmqbroker.client.async_client import AsyncClient
    from zmqbroker.client.client import Client
    from zmqbroker.client.executor import Executor
    from zmqbroker.client.futures import TaskFailed
    from zmqbroker.transport.keep_alive import KeepAlive
    from zmqbroker.worker.current import current_task
    from zmqbroker.worker.outcome import Fail, Reject
    from zmqbroker.worker.task_filter import TaskFilter
    from zmqbroker.worker.worker import Worker

__all__ = [
    "AsyncClient",
    "Broker",
    "Client",
    "Executor",
    "Fail",
    "KeepAlive",
    "Reject",
    "StoreError",
    "TaskFailed",
    "TaskFilter",
    "Worker",
    "current_task",
]
__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "client.async_client",
    "Broker": "broker.broker",
    "Client": "client.client",
    "Executor": "client.executor",
    "Fail": "worker.outcome",
    "KeepAlive": "transport.keep_alive",
    "Reject": "worker.outcome",
    "StoreError": "broker.store.gate",
    "TaskFailed": "client.futures",
    "TaskFilter": "worker.task_filter",
    "Worker": "worker.worker",
    "current_task": "worker.current",
}


def __getattr__(name: str) -> Any:
    """Import one of the names above."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
