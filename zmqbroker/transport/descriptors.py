"""File descriptors: every connection takes one, and at their limit nobody can connect any more."""

import errno
import os
import resource
import socket
import sys
from contextlib import suppress

NONE_LEFT = (errno.EMFILE, errno.ENFILE)  # of this process, of the system


def raise_limit() -> int:
    """Allow this process as many descriptors, so connections, as the system lets it have; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def is_any_left() -> bool:
    """Tell whether a connection could be accepted now.

    ZeroMQ's own event for one that could not comes many thousand times a second, as long as somebody tries.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def count_open() -> int | None:
    """Return how many are open; None where the system cannot tell at once: listing 10,000 of them takes 40 ms."""
    try:
        return os.stat("/proc/self/fd").st_size or None  # Linux from 6.2 on
    except OSError:
        return None


def hang_up(descriptor: int) -> None:
    """End a connection that ZeroMQ has, which then notices; where that cannot be, it has ended."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def need(number: int, what: str) -> None:
    """Raise OSError when there are not so many left for `what`: ZeroMQ would end the program where it gets none."""
    held: list[int] = []
    try:
        while len(held) < number:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in NONE_LEFT:
            raise
        text = f"no file descriptors are left for {what}, which takes {number}: close some, or raise `ulimit -n`"
        raise OSError(error.errno, text) from None
    finally:
        for descriptor in held:
            os.close(descriptor)
