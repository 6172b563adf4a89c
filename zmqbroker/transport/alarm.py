"""Waking a poll: from another thread, from a signal handler, by a signal."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import zmq

RING = b"\0"  # signals ring with their number


class Alarm:
    """A file descriptor that wakes a poll, from any thread or signal handler."""

    def __init__(self) -> None:
        self._heard, self._ring = socket.socketpair()
        self._heard.setblocking(False)
        self._ring.setblocking(False)

    def fileno(self) -> int:
        """Return what is readable after a ring."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Wake the poll."""
        with suppress(OSError):  # full: it was rung often enough; closed: nobody polls any more
            self._ring.send(RING)

    def hear(self) -> int:
        """Return how often it was rung since; signals do not count."""
        try:
            return self._heard.recv(4096).count(RING)
        except BlockingIOError:
            return 0

    def wait(self, most_ms: int) -> None:
        """Wait for a ring, for so many milliseconds at most."""
        zmq.zmq_poll([(self.fileno(), zmq.POLLIN)], most_ms)  # select(2) takes no descriptor above 1023

    @contextmanager
    def rung_by_signals(self) -> Iterator[None]:
        """Let signals ring, in the main thread: pyzmq would go on polling after a signal's handler (PEP 475)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close both ends."""
        self._heard.close()
        self._ring.close()
