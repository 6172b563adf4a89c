"""What a worker process leaves behind when it ends: commands that it ran, processes that its handler started.

A process that was forked has the worker's connection open, so that the broker notices nothing before it ends as well.
All that is in the session of the worker is ended, and whatever runs under the worker's own command line: that is a fork
with a session of its own. A program in a session of its own is left alone: it is meant to stay, and has no connection.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PASSES = 10  # somebody may be forking while we look
PROCESSES = Path("/proc")


def kill_leftovers(process_id: int, mark: str) -> None:
    """Kill what is left of a worker that has ended and was not waited for yet; its command line has `mark` in it.

    Where there is no /proc that is its process group only.
    """
    with suppress(ProcessLookupError, PermissionError):  # what macOS says of a group that has ended
        os.killpg(process_id, signal.SIGKILL)
    empty_passes = 0
    for _ in range(PASSES):
        found = list(_leftovers(process_id, b"\0%s\0" % mark.encode()))
        for leftover in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(leftover, signal.SIGKILL)
        empty_passes = 0 if found else empty_passes + 1
        if empty_passes == 2:  # one is not enough: a process may have forked during it, and ended before its turn
            return


def _leftovers(session: int, mark: bytes) -> Iterator[int]:
    for directory in PROCESSES.glob("[1-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is none of our business
            state, *_, its_session = (directory / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            if state not in b"ZX" and (int(its_session) == session or mark in (directory / "cmdline").read_bytes()):
                yield int(directory.name)
