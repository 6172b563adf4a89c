"""What figures depend on: the machine, the interpreter, the libraries, and the date."""

import os
import platform
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import zmq

SYNCS = 200
PAGE = 4096  # bytes


def describe_machine() -> dict[str, str]:
    """Return what the figures depend on, and the date."""
    return {
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        platform.python_implementation(): platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
    }


def sync_time(directory: Path) -> float:
    """Return how long it takes to have a page on the disk of a directory, in us: the median of many."""
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as probe:
        for _ in range(SYNCS):
            began = perf_counter()
            probe.write(bytes(PAGE))
            os.fsync(probe.fileno())
            times.append((perf_counter() - began) * 1e6)
    return median(times)


def file_system(directory: Path) -> str:
    """Return the kind of file system that a directory is on; empty where that is unknown."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    kinds = {Path(line.split()[1]): line.split()[2] for line in lines}  # the last one mounted there counts
    path = directory.resolve()
    return next((kinds[each] for each in (path, *path.parents) if each in kinds), "")


def processor() -> str:
    """Return the processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
