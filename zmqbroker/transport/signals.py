"""Signals that ask for something: for the end, of which several may be one, or for the state of things."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = signal.SIGUSR1
TIMERS = {signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF}  # that who uses them has set for what it does itself
INTERRUPTED = 128  # added to the number of a signal, for an exit status, as shells do
ONE = 0.5  # seconds in which signals are one: a terminal and a wrapper both send it


class Burst:
    """Tells which signals count: not those that come less than ONE after the last that did, of whichever kind."""

    def __init__(self) -> None:
        self._until = -inf

    def counts(self, now: float) -> bool:
        """Take note of a signal at the instant `now`; tell whether it counts."""
        if now < self._until:
            return False
        self._until = now + ONE
        return True


def heeded() -> list[signal.Signals]:
    """Return those that whoever started us has not had ignored, as nohup and the `&` of a script do."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def end_quietly() -> None:
    """Let Ctrl-C end this process at once, as SIGTERM does, without a traceback: there is nothing to be undone yet.

    Nor is there a state to be asked for, and who asks too early is no reason to end.
    """
    if signal.SIGINT in heeded():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    ignore([STATUS])


def on_signals(
    end: Callable[[signal.Signals], object], tell: Callable[[], object] | None = None
) -> list[signal.Signals]:
    """Call `end` with each signal that asks for the end and counts, `tell` (None: nothing) at each SIGUSR1.

    Both are called from the handler. Returns the signals that are handled: these are to be ignored at the end, which
    begins then.
    """
    burst = Burst()

    def handle(number: int, _: object) -> None:
        if burst.counts(monotonic()):
            end(signal.Signals(number))

    handled = heeded()
    for number in handled:
        signal.signal(number, handle)
    if tell is not None:
        signal.signal(STATUS, lambda *_: tell())
        handled.append(STATUS)
    return handled


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Ignore these from now on, while Python ends too: what they ask for is being done."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def status_held_back() -> Iterator[None]:
    """Hold SIGUSR1 back, from programs that are started meanwhile as well: until they call `let_status_in`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [STATUS])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_status_in() -> None:
    """Receive SIGUSR1 again, and what was held back of it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [STATUS])


@contextmanager
def ctrl_c_calls(stop: Callable[[], None], times: int) -> Iterator[None]:
    """Have Ctrl-C call `stop` so often, and raise KeyboardInterrupt at the end of the `with` block.

    Only where it would raise it anywhere: in the main thread of a program that handles it in no other way.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        for _ in range(times):
            stop()

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:
        raise KeyboardInterrupt


def is_of_a_handler(error: BaseException, numbers: Iterable[int]) -> bool:
    """Tell whether a handler of one of these signals has raised it."""
    handlers = [signal.getsignal(number) for number in numbers]
    codes = [getattr(handler, "__code__", None) for handler in handlers]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
