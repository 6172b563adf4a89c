"""A log on stderr that never waits and never fails: who reads it may be stopped, or gone, or was never there.

A pipe that is full and a terminal that is halted block whoever writes. That there is room now is no promise where
others write there too; so the log opens the same pipe or terminal once more, for itself and without blocking. (A flag
set on descriptor 2 itself would be set for all who have inherited it.) Where that cannot be, it asks whether there is
room, and then writes no more at once than a pipe takes. A line that does not go is counted, and the next that does says
how many there were.
"""

import logging
import os
import select
import socket
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable

STDERR = 2
FORMAT = "%(asctime)s %(message)s"
PIECE = select.PIPE_BUF  # bytes; a pipe takes so many, or none


def log_to_stderr(level: int, form: str = FORMAT, about: logging.Filter | None = None) -> None:
    """Log there what is of this level or above, but nothing where it was closed: its number may be another file's.

    `about` adds to the records what `form` names beyond the usual.
    """
    handler = StderrHandler() if sys.stderr is not None else logging.NullHandler()
    if about is not None:
        handler.addFilter(about)
    logging.basicConfig(level=level, format=form, handlers=[handler])


class StderrHandler(logging.Handler):
    """Writes to stderr without ever waiting for who reads it, or to another descriptor of that kind."""

    def __init__(self, descriptor: int = STDERR) -> None:
        super().__init__()
        self._send = _sender(descriptor)
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._records: deque[logging.LogRecord] = deque()
        self._writing = threading.Lock()
        self._lost = 0  # lines, since the last that was written
        self._is_cut = False  # the last was not written to its end

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it. A signal handler that logs in the middle of it has its line come next."""
        self._records.append(record)
        while self._records and self._writing.acquire(blocking=False):
            try:
                if self._records:  # else a signal handler was faster
                    self._write(self._records.popleft())
            finally:
                self._writing.release()

    def close(self) -> None:
        """Say what was lost, if that can be said now."""
        if self._lost:
            self._write(logging.makeLogRecord({"msg": "the log ends", "levelno": logging.WARNING}))
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # of arguments that do not fit the text, say
            self._lost += 1
            return
        if self._lost:
            text += f" ({self._lost} lines before this one could not be logged)"
        line = f"{text}\n".encode(self._encoding, "backslashreplace")
        if self._is_cut:
            line = b"\n" + line
        written = self._put(line)
        if written:
            self._is_cut = not line[:written].endswith(b"\n")
        self._lost = 0 if written == len(line) else self._lost + 1

    def _put(self, line: bytes) -> int:
        """Write what goes without waiting, from its beginning; return how many bytes that were."""
        written = 0
        while written < len(line):
            try:
                taken = self._send(line[written : written + PIECE])
            except OSError:  # full, or gone
                break
            written += taken
        return written


def _sender(descriptor: int) -> Callable[[bytes], int]:
    """Return what writes a piece there without waiting, tells how much of it went, and raises OSError if none did."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        connected = socket.socket(fileno=os.dup(descriptor))
        return lambda piece: connected.send(piece, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or os.isatty(descriptor):
        try:
            name = os.ttyname(descriptor) if os.isatty(descriptor) else f"/proc/self/fd/{descriptor}"
            own = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)  # until the process ends
        except OSError:  # it is another user's, or nobody reads there, or this is no Linux
            pass
        else:
            return lambda piece: os.write(own, piece)
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)

    def send(piece: bytes) -> int:
        ready = any(event & select.POLLOUT for _, event in poller.poll(0))
        if not ready:
            raise BlockingIOError
        return os.write(descriptor, piece)

    return send
