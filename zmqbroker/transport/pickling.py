"""Pickles of functions and of what they take and return, by cloudpickle, as frames.

What says that it is a buffer, a large array of numpy's say, travels as a frame of its own, which saves copies.
"""

import pickle
import platform
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from zmqbroker.wire import MOST_FRAMES, Frames
from zmqbroker.wire.calls import Python

try:
    import cloudpickle
except ImportError:
    cloudpickle = None

LEAST_BUFFER = 65536  # bytes; smaller ones are in the pickle
MOST_BUFFERS = MOST_FRAMES - 100  # of one pickle; more are in it


def own_python(what: str) -> Python:
    """Return who pickles here. Raises ImportError, with what to do about it, where there is no cloudpickle."""
    if cloudpickle is None:
        raise ImportError(f'{what} needs cloudpickle: pip install "zmqbroker[python]"')
    version = ".".join(map(str, sys.version_info[:2]))
    return Python(f"{platform.python_implementation()} {version}", cloudpickle.__version__)


def dump(value: Any) -> Frames:
    """Pickle anything, functions and what is defined in `__main__` included; raises whatever that raises.

    Buffers are copied, as they may change before they are sent.
    """
    buffers: list[bytes] = []

    def is_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        content = buffer.raw()
        if len(content) < LEAST_BUFFER or len(buffers) == MOST_BUFFERS:
            return True
        buffers.append(bytes(content))
        return False

    return [cloudpickle.dumps(value, buffer_callback=is_in_pickle), *buffers]


def load(pickled: Frames) -> Any:
    """Return what was pickled; raises whatever that raises. Buffers may be written to, as before."""
    return pickle.loads(pickled[0], buffers=map(bytearray, pickled[1:]))  # type: ignore[arg-type]


def call_each(function: Any, chunk: Iterable[Any]) -> list[Any]:
    """Call a function for each list of arguments of a chunk, which travels as one call."""
    return [function(*arguments) for arguments in chunk]


def described(error: BaseException) -> str:
    """Return an exception in one line."""
    return " ".join(traceback.format_exception_only(type(error), error)[-1].split())
