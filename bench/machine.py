"""What figures depend on: the machine, the interpreter, the libraries, and the date."""

import os
import platform
from datetime import datetime
from pathlib import Path

import zmq


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


def processor() -> str:
    """Return the processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
