"""The broker as a program has it: made, run, stopped and closed.

What it does while it runs is in `loop`, what it decides in `dispatch`.
"""

import logging
import os
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any

import zmq

from zmqbroker.broker.dispatch import DEFAULT_TRIES, Dispatcher
from zmqbroker.broker.loop import Loop
from zmqbroker.broker.shutdown import Shutdown
from zmqbroker.broker.sockets import Addresses, Sockets
from zmqbroker.transport import descriptors
from zmqbroker.transport.addresses import refuse_inproc
from zmqbroker.transport.alarm import ctrl_c_calls
from zmqbroker.transport.binding import LONGEST_HEARTBEAT, SocketOptions
from zmqbroker.transport.keep_alive import KeepAlive

DEFAULT_DRAIN = 10.0  # seconds
DEFAULT_IO_THREADS = 1
MOST_IO_THREADS = 64
FEW_DESCRIPTORS = 4096  # with fewer a broker says so when it starts

log = logging.getLogger("zmqbroker")


class Broker:
    """A task broker on three addresses. It is bound when constructed, and works while `run` runs."""

    def __init__(
        self,
        requests: str,
        ready: str,
        results: str,
        *,
        tries: int = DEFAULT_TRIES,
        timeout: float | None = None,
        retry_delay: float = 0.0,
        max_waiting: int | None = None,
        max_size: int | None = None,
        drain: float | None = DEFAULT_DRAIN,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        heartbeat: float | None = None,
        io_threads: int = DEFAULT_IO_THREADS,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        """Bind the three sockets.

        `timeout`, `retry_delay` and `drain` are in seconds, `max_waiting` in tasks, `max_size` in bytes of a task's
        body; 0 or None means no limit (`retry_delay` and `drain`: at once). A peer is taken for dead when TCP's
        `keep_alive` says so, a worker when it was silent for `heartbeat` seconds (0 or None: however silent).
        `context` is shared with the peers of inproc addresses; None makes one with `io_threads` of ZeroMQ's. Raises
        ValueError for an address that cannot be bound and for a limit out of its range, OSError without descriptors.
        """
        limits = {"tries": tries, "timeout": timeout, "retry_delay": retry_delay, "max_waiting": max_waiting}
        limits |= {"max_size": max_size, "drain": drain, "heartbeat": heartbeat}
        for name, limit in limits.items():
            if limit is not None and not 0 <= limit < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {limit}")
        if not 1 <= io_threads <= MOST_IO_THREADS:
            raise ValueError(f"io_threads must be 1 to {MOST_IO_THREADS}, not {io_threads}")
        keep_alive.check()
        if context is None:
            refuse_inproc(requests, ready, results)
        if heartbeat and heartbeat > LONGEST_HEARTBEAT:
            raise ValueError(f"heartbeat must be 0 to {LONGEST_HEARTBEAT:g}, not {heartbeat}")
        most = descriptors.raise_limit()
        if most < FEW_DESCRIPTORS:
            log.warning("only %d descriptors, one for each connection: raise `ulimit -Hn` for more", most)
        options = SocketOptions(max_size or 0, keep_alive, heartbeat or 0.0)
        self._sockets = Sockets(Addresses(requests, ready, results), options, context, io_threads)
        self.addresses = self._sockets.addresses
        self._dispatcher = Dispatcher(tries=tries, timeout=timeout, retry_delay=retry_delay, run=os.urandom(8))
        self._loop = Loop(self._sockets, self._dispatcher, Shutdown(drain or 0.0), max_waiting or 0, max_size or 0)
        self._has_run = False
        self._ended = threading.Event()  # `run` has returned
        self._closed = False

    def __enter__(self) -> "Broker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_run and not self._ended.is_set():  # in another thread
            self.stop()
            self.stop()
            self._ended.wait()
        self.close()

    def counters(self) -> dict[str, int]:
        """Return a snapshot of the counters, and of the tasks and workers in each state right now."""
        dispatcher = self._dispatcher
        return asdict(dispatcher.counters) | {
            "waiting": dispatcher.waiting,
            "delayed": dispatcher.delayed,
            "running": dispatcher.running,
            "idle": dispatcher.idle,
        }

    def stop(self) -> None:
        """Ask `run` to drain and return; asked a second time, to return at once. For any thread or signal handler."""
        self._sockets.alarm.ring()

    def run(self) -> None:
        """Serve until stopped. Every task accepted has its reply when this returns.

        Ctrl-C ends it in the same way, before KeyboardInterrupt is raised. Raises RuntimeError when called again, or
        after `close`.
        """
        if self._has_run or self._closed:
            raise RuntimeError("a broker runs once, and not after it was closed; make a new one")
        self._has_run = True
        try:
            with self._sockets.alarm.rung_by_signals(), ctrl_c_calls(self.stop, times=2):
                self._loop.run()
        finally:
            self._ended.set()

    def close(self) -> None:
        """Close the sockets, waiting up to LINGER_MS milliseconds for the last replies to be sent."""
        self._closed = True
        self._sockets.close()
