"""The broker as a program has it: made, run, stopped and closed.

What it does while it runs is in `loop`, what it decides in `dispatch`.
"""

import logging
import os
import threading
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from zmqbroker.broker.admission import open_doors
from zmqbroker.broker.authorized_file import AuthorizedFile
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.intake import DEFAULT_RECLAIM, DEFAULT_TRIES
from zmqbroker.broker.loop import Loop
from zmqbroker.broker.shutdown import Shutdown
from zmqbroker.broker.sockets import Addresses, Sockets
from zmqbroker.broker.store.gate import StoreError
from zmqbroker.broker.store.journal import DEFAULT_KEEP, DEFAULT_KEEP_FAILED, Journal
from zmqbroker.broker.store.sqlite import DEFAULT_FLOOR, SqliteStore
from zmqbroker.broker.task import BackOff
from zmqbroker.transport import descriptors
from zmqbroker.transport.addresses import refuse_inproc, refuse_unencrypted
from zmqbroker.transport.binding import LONGEST_HEARTBEAT, SocketOptions
from zmqbroker.transport.identity import read_secret
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.limits import is_number, is_whole
from zmqbroker.transport.notify import ServiceManager
from zmqbroker.transport.signals import ctrl_c_calls
from zmqbroker.wire import LARGEST_FACTOR, QUEUE_NAME, is_queue

DEFAULT_DRAIN = 10.0  # seconds
DEFAULT_IO_THREADS = 1
MOST_IO_THREADS = 64
LONGEST_END = 5.0  # seconds; for one that still runs when Python ends
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
        retry_factor: float = 1.0,
        retry_most: float | None = None,
        fair: bool = False,
        limits: Mapping[str, int] | None = None,
        limits_waiting: Mapping[str, int] | None = None,
        max_waiting: int | None = None,
        max_size: int | None = None,
        drain: float | None = DEFAULT_DRAIN,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        heartbeat: float | None = None,
        control: str | None = None,
        identity: str | os.PathLike[str] | None = None,
        authorized: str | os.PathLike[str] | None = None,
        store: str | os.PathLike[str] | None = None,
        store_floor: int = DEFAULT_FLOOR,
        keep: float = DEFAULT_KEEP,
        keep_failed: float = DEFAULT_KEEP_FAILED,
        reclaim: float = DEFAULT_RECLAIM,
        io_threads: int = DEFAULT_IO_THREADS,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        """Bind the three sockets.

        `timeout`, `retry_delay`, `retry_most` and `drain` are in seconds, `max_waiting` in tasks, `max_size` in bytes
        of a task's body; 0 or None means no limit (`retry_delay` and `drain`: at once). The retry delay grows by
        `retry_factor` with each attempt, up to `retry_most`. With `fair` the tasks of different connections take turns.
        `limits` and `limits_waiting` say for queues, by name, how many tasks may run at once, or wait. A peer is taken
        for dead when TCP's `keep_alive` says so, a worker when it was silent for `heartbeat` seconds (0 or None:
        however silent). `control` is the address for questions: `auto` has one made that only the same user can open;
        None: there is none. `identity` is the file with the broker's keys: then all is encrypted, and only whoever is
        in the file `authorized`, which is looked at each second, is let in; None: anybody is. `store` is the file where
        durable tasks are, which is made if it is not there; None: there is none. While less than `store_floor` bytes
        are free on its disk no durable tasks are taken in. Their outcomes are kept for `keep` seconds, those without a
        result for `keep_failed`, if that is more; what a worker had when an earlier run ended is given up when it tells
        nothing of it for `reclaim` seconds. `context` is shared with the peers of inproc addresses; None makes one with
        `io_threads` of ZeroMQ's. Raises ValueError for an address that cannot be bound, for a limit out of its range
        and for identities that do not keep strangers out, OSError without descriptors, StoreError for a file that is no
        store, or that another broker has.
        """
        numbers = {"tries": tries, "timeout": timeout, "retry_delay": retry_delay, "max_waiting": max_waiting}
        numbers |= {"max_size": max_size, "drain": drain, "heartbeat": heartbeat, "retry_most": retry_most}
        numbers |= {"store_floor": store_floor, "keep": keep, "keep_failed": keep_failed, "reclaim": reclaim}
        for name, value in numbers.items():
            if value is not None and not is_number(value):
                raise ValueError(f"{name} must be 0 or more, not {value!r:.50}")
        if not is_number(retry_factor, 1, LARGEST_FACTOR):
            raise ValueError(f"retry_factor must be a number from 1 to {LARGEST_FACTOR}, not {retry_factor!r:.50}")
        for name, limit in [*(limits or {}).items(), *(limits_waiting or {}).items()]:
            if not (is_queue(name) and is_whole(limit)):
                raise ValueError(f"{name!r:.50}: {limit!r:.50} is no limit: {QUEUE_NAME}, and a whole number from 0 up")
        if not is_whole(io_threads, 1, MOST_IO_THREADS):
            raise ValueError(f"io_threads must be 1 to {MOST_IO_THREADS}, not {io_threads!r:.50}")
        keep_alive.check()
        if (identity is None) != (authorized is None):
            raise ValueError("identity and authorized go together: the broker's keys, and whoever may come in")
        addresses = [requests, ready, results, *([control] if control else [])]
        if context is None:
            refuse_inproc(*addresses)
        if identity is not None:
            refuse_unencrypted(*addresses)
        if heartbeat and heartbeat > LONGEST_HEARTBEAT:
            raise ValueError(f"heartbeat must be 0 to {LONGEST_HEARTBEAT:g}, not {heartbeat}")
        most = descriptors.raise_limit()
        if most < FEW_DESCRIPTORS:
            log.warning("only %d descriptors, one for each connection: raise `ulimit -Hn` for more", most)
        options = SocketOptions(max_size or 0, keep_alive, heartbeat or 0.0)
        keys = None if identity is None or authorized is None else (read_secret(identity), AuthorizedFile(authorized))
        with ExitStack() as undoing:
            self._store = None if store is None else SqliteStore(Path(store), store_floor)
            undoing.callback(_close_store, self._store)
            three = Addresses(requests, ready, results)
            self._sockets = Sockets(three, control, options, context, io_threads, keys and keys[0])
            undoing.callback(self._sockets.close)
            admission = None if keys is None else open_doors(self._sockets, *keys)
            undoing.pop_all()
        self._at_rest = threading.Event()  # `run` is not running
        self._at_rest.set()
        self._forgotten = weakref.finalize(self, _close_forgotten, self._sockets, self._at_rest, self._store)
        self.addresses = self._sockets.addresses
        self.control_address = self._sockets.control_address
        back_off = BackOff(retry_delay, retry_factor, retry_most or inf)
        journal = None
        if self._store is not None:
            journal = Journal(self._store.run, self._store.highest, keep, keep_failed)
        self._dispatcher = Dispatcher(
            tries=tries,
            timeout=timeout,
            back_off=back_off,
            is_fair=fair,
            reclaim=reclaim,
            run=os.urandom(8),
            random_bytes=os.urandom,
            journal=journal,
        )
        if self._store is not None:
            self._dispatcher.restore_queues(self._store.queues())
        for name, limit in (limits or {}).items():
            self._dispatcher.queues.set_limit(name, limit or None)
        for name, limit in (limits_waiting or {}).items():
            self._dispatcher.queues.set_limit_waiting(name, limit or None)
        shutdown, max_waiting, max_size = Shutdown(drain or 0.0), max_waiting or 0, max_size or 0
        self._loop = Loop(self._sockets, self._dispatcher, shutdown, max_waiting, max_size, self._store, admission)
        _warn_of_openness(self._sockets.open_to_all)
        self.service_manager = ServiceManager()  # who hears how `run` goes on: nobody, if it was not set before
        self.owns_process = False  # nothing else runs there, so `run` may tune Python; to be set before
        self._has_loaded = self._store is None
        self._has_run = False
        self._closed = False

    def __enter__(self) -> "Broker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not (self._at_rest.is_set() or self._sockets.are_inherited):  # it runs in another thread
            self.stop()
            self.stop()
            self._at_rest.wait()
        self.close()

    def counters(self) -> dict[str, int]:
        """Return the counters, and the tasks and workers in each state right now.

        While `run` is in another thread, each number may be of another moment, and the sums not those of any.
        """
        dispatcher = self._dispatcher
        return asdict(dispatcher.counters) | {
            "waiting": dispatcher.waiting,
            "delayed": dispatcher.delayed,
            "running": dispatcher.running,
            "idle": dispatcher.idle,
        }

    def stop(self) -> None:
        """Ask `run` to drain and return; asked a second time, to return at once. For any thread or signal handler.

        In a forked child it does nothing: the broker is its parent's.
        """
        if not self._sockets.are_inherited:
            self._sockets.alarm.ring()

    def load(self) -> None:
        """Read what the store has, if there is one; `run` does it where this was not called. Raises StoreError."""
        if not self._has_loaded:
            self._has_loaded = True
            self._loop.load()

    def run(self) -> None:
        """Serve until stopped. Every task accepted has its reply when this returns, or is in the store.

        Ctrl-C ends it in the same way, before KeyboardInterrupt is raised. Raises RuntimeError when called again,
        after `close`, or in a forked child, StoreError when the store has failed, which is the end as well.
        """
        if self._sockets.are_inherited:
            raise RuntimeError("a broker runs in the process that made it; in a forked child make a new one")
        if self._has_run or self._closed:
            raise RuntimeError("a broker runs once, and not after it was closed; make a new one")
        self._has_run = True
        self._at_rest.clear()
        try:
            with self._sockets.alarm.rung_by_signals(), ctrl_c_calls(self.stop, times=2):
                self.load()
                self._loop.run(self.service_manager, self.owns_process)
        finally:
            self._at_rest.set()

    def close(self) -> None:
        """Close the sockets, waiting up to LINGER_MS milliseconds for the last replies to be sent."""
        self._closed = True
        self._forgotten.detach()
        try:
            self._sockets.close()
        finally:
            _close_store(self._store)


def _warn_of_openness(addresses: list[str]) -> None:
    """Say that anybody may come in, where it is not only this machine that can."""
    if addresses:
        log.warning(
            "WITHOUT IDENTITIES, whoever reaches %s may send tasks, take and answer them: give --identity and "
            "--authorized, or listen on 127.0.0.1; see docs/security.md",
            ", ".join(addresses),
        )


def _close_store(store: SqliteStore | None) -> None:
    """Close a store, if there is one; what cannot be said in it any more is said in the log."""
    if store is not None:
        try:
            store.close()
        except StoreError as error:
            log.error("%s", error)


def _close_forgotten(sockets: Sockets, at_rest: threading.Event, store: SqliteStore | None) -> None:
    """Close the sockets of a broker that nobody has closed: what ends libzmq's context would wait for them for ever.

    Python calls this when it collects the broker, and at its own end, when one in a daemon thread still runs.
    """
    if sockets.are_inherited:
        return
    if not at_rest.is_set():
        for _ in range(2):
            sockets.alarm.ring()
        if not at_rest.wait(LONGEST_END):
            return
    sockets.close()
    _close_store(store)
    warnings.warn("a Broker was not closed: use it in a `with` block, or call its `close`", ResourceWarning, 2)
