"""What a measurement must know about processes, and how it ends those that it did not start itself.

Systems under measurement start processes of their own, some of them in sessions of their own. Orphans among them come
to this process, which adopts them (Linux only), so that all can be found by descent and none is left.
"""

import ctypes
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic

PR_SET_CHILD_SUBREAPER = 36  # see prctl(2)
END_WAIT = 10.0  # seconds; for adopted processes to end


def adopt_orphans() -> None:
    """Become the parent of whatever descendant loses its own; without effect where the system cannot do that."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(process_id: int) -> list[int]:
    """Return the ids of a process's children, their children, and so on; none where that is unknown."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_fields(entry)[1]), []).append(int(entry.parent.name))
    found = [process_id]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found[1:]


def processor_time(process_ids: Iterable[int]) -> float | None:
    """Return the seconds of processor time that these have used together; None where that is unknown."""
    try:
        fields = [_fields(Path(f"/proc/{process_id}/stat")) for process_id in process_ids]
    except OSError:
        return None
    ticks = sum(int(utime) + int(stime) for utime, stime in (each[11:13] for each in fields))  # see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK") if fields else None


def resident_memory(process_ids: Iterable[int]) -> int | None:
    """Return the bytes of memory that these have in use together; None where that is unknown."""
    try:
        pages = [int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) for process_id in process_ids]
    except OSError:
        return None
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") if pages else None


def command_of(process_id: int) -> str:
    """Return the command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill_all(process_ids: Iterable[int]) -> None:
    """Kill these; some may have ended already."""
    for process_id in process_ids:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def end_adopted(others: set[int]) -> None:
    """Kill and reap all descendants of this process but `others`, and what those start meanwhile."""
    until = monotonic() + END_WAIT
    while (left := set(descendants(os.getpid())) - others) and monotonic() < until:
        kill_all(left)
        for process_id in left:
            with suppress(ChildProcessError):  # it is the child of another one, which has been killed too
                os.waitpid(process_id, 0)


def _fields(stat: Path) -> list[bytes]:
    """Return the fields of a stat file from the third one on: what comes after the name, which may hold any bytes."""
    return stat.read_bytes().rpartition(b") ")[2].split()
