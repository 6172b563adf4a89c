"""Processes that a handler forks: they get neither the signal handlers nor the loop of the worker that they come from.

They have its connections open, though, and ZeroMQ has no way to close them there.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

SignalHandler = Callable[[int, Any], object]


def handle_here_only(handlers: Mapping[signal.Signals, SignalHandler]) -> None:
    """Handle signals in this process; a child that it forks has the handlers of before. For the main thread."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    blocked = threading.local()  # by which thread forks

    def block() -> None:  # a signal to the child must not meet the handlers of its parent
        blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    def restore() -> None:
        signal.set_wakeup_fd(-1)  # it would ring the parent
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number] or signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=restore)


def end_child(error: BaseException | None) -> NoReturn:
    """End a process that has come back out of the handler that forked it, by an error or (None) by returning.

    It ends as a child of multiprocessing does: with its output written, and without what the parent has left to do.
    """
    status = 0
    try:
        with suppress(Exception):
            status = _status(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
    finally:
        os._exit(status)


def _status(error: BaseException | None) -> int:
    """Return the exit status that Python would end with, after saying what it would say."""
    if error is None:
        return 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return (error.code or 0) & 0xFF
    with suppress(Exception):
        if isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        else:
            traceback.print_exception(type(error), error, error.__traceback__)
    return 1
