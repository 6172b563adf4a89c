"""File descriptors: every connection takes one, and at their limit nobody can connect any more."""

import os
import resource
import sys


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
