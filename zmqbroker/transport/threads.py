"""Python's threads: whether there are real ones, and whether a program is over and waits for what they wait for."""

import _thread
import threading
from inspect import isbuiltin


def need_real(what: str) -> None:
    """Raise RuntimeError where gevent or its like has replaced threads: one of `what`'s would wait here for ever."""
    if not isbuiltin(_thread.start_new_thread):
        raise RuntimeError(
            f"{what} needs real threads, and this program has replaced them (by gevent, say): "
            "patch all but threads, as gevent.monkey.patch_all(thread=False) does, or use it in a process of its own"
        )


def has_main_ended() -> bool:
    """Tell whether all that keeps the program from its end is other threads.

    Python waits for those of an executor before it takes the main thread for ended, and has no public name for that.
    """
    return not threading.main_thread().is_alive() or getattr(threading, "_SHUTTING_DOWN", False)
