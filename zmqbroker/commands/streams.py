"""Standard streams as they come: closed, non-blocking, full, of any encoding, or gone.

Nothing here has a buffer, so what was written is with whoever reads it, and an error comes from the write that failed.
A stream that does not block is waited for, not made to block: others may share it.
"""

import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN, STDOUT, STDERR = 0, 1, 2
STDIN_NAME = "-"  # among files
OUTPUT_ERROR = 2  # exit status
PIECE = 1 << 16  # bytes written at once
SURE_PIECE = 512  # bytes that a pipe or a terminal takes without blocking once it says that it takes any
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # what no text has


class OutputError(Exception):
    """What was to go to stdout, or to a file, did not. Its text says why."""


class NobodyReadsError(OutputError):
    """Whoever read stdout has left."""


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Have an OSError that comes of writing a file told with its name, as an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror}") from error


def fill_closed() -> None:
    """Put /dev/null in the place of closed streams, or the next descriptor that ZeroMQ opens would be taken for one.

    That stdin and stdout are closed is still known: Python has no sys.stdin, or no sys.stdout, then.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, descriptor)  # inheritable: for children it is in the same place
            if opened != descriptor:
                os.close(opened)
    if sys.stderr is None:
        sys.stderr = os.fdopen(STDERR, "w", closefd=False)  # for whoever prints there without asking


def write_out(data: bytes | memoryview, patience: float | None = None) -> None:
    """Write all of it to stdout; raises OutputError, and NobodyReadsError for one.

    A stdout that takes nothing is an error after `patience` seconds (None: never).
    """
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        write_all(STDOUT, data, patience)
    except OSError as error:
        kind = NobodyReadsError if isinstance(error, BrokenPipeError) else OutputError
        raise kind(f"cannot write to stdout: {error.strerror}") from error


def print_out(text: str, patience: float | None = None) -> None:
    """Print text on stdout as `write_out` does; what its encoding lacks is escaped."""
    write_out(text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace"), patience)


def complain(text: str, patience: float | None = None, end: str = "\n") -> None:
    """Print a line on stderr, if that can be done at all; wait so long for who does not read it (None: for ever)."""
    data = (text + end).encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    with suppress(OSError):
        write_all(STDERR, data, patience)


class Source(io.RawIOBase):
    """A file to be read, or stdin, without the lock of sys.stdin, which a thread may hold when Python ends."""

    def __init__(self, name: str) -> None:
        """Open a file, or take stdin for STDIN_NAME. Raises OSError, as reading does, with the name."""
        is_stdin = name == STDIN_NAME
        self._name = "stdin" if is_stdin else name
        self._descriptor = STDIN  # for `close`, which Python calls also when a file cannot be opened
        if not is_stdin:
            self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        elif sys.stdin is None:
            raise self._named(OSError(errno.EBADF, os.strerror(errno.EBADF)))

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read what there is, once there is some; 0 at the end."""
        while True:
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                _wait(self._descriptor, select.POLLIN, None)
            except OSError as error:
                raise self._named(error) from None

    def close(self) -> None:
        """Close the file, but not stdin."""
        if not self.closed and self._descriptor != STDIN:
            os.close(self._descriptor)
        super().close()

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, self._name)


def write_all(descriptor: int, data: bytes | memoryview, patience: float | None = None) -> None:
    """Write all of it; raises OSError, and TimeoutError after so many seconds in which nothing of it was taken."""
    rest = memoryview(data)
    size = PIECE if patience is None else SURE_PIECE
    while rest:
        try:
            if patience is not None:
                _wait(descriptor, select.POLLOUT, patience)
            rest = rest[os.write(descriptor, rest[:size]) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT, patience)


def _wait(descriptor: int, event: int, patience: float | None) -> None:
    """Wait until a descriptor is ready, or in a state that the next call raises."""
    poller = select.poll()
    poller.register(descriptor, event)
    if not poller.poll(None if patience is None else 1000 * patience):
        raise TimeoutError(errno.ETIMEDOUT, "it takes nothing")


def is_binary(text: bytes) -> bool:
    """Tell whether a newline at the end of this might harm it."""
    if CONTROL.search(text):
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False
