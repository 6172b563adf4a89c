"""Signals that ask for the end: which of them count, and when two are one."""

import signal
from collections.abc import Callable
from time import monotonic

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128  # added to the number of a signal, for an exit status, as shells do
ONE = 0.5  # seconds in which signals are one: a terminal and a wrapper both send it


def heeded() -> list[signal.Signals]:
    """Return those that whoever started us has not had ignored, as nohup and the `&` of a script do."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def end_quietly() -> None:
    """Let Ctrl-C end this process at once, as SIGTERM does, without a traceback: there is nothing to be undone yet."""
    if signal.SIGINT in heeded():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_signals(act: Callable[[int], object]) -> list[signal.Signals]:
    """Call `act`, from the handler, with the number of each signal but those that are one with the last that counted.

    Returns the signals that are handled: these are to be ignored at the end, which begins then.
    """
    last = -ONE

    def handle(number: int, _: object) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= ONE:
            last = now
            act(number)

    handled = heeded()
    for number in handled:
        signal.signal(number, handle)
    return handled


def ignore(numbers: list[signal.Signals]) -> None:
    """Ignore these from now on, while Python ends too: what they ask for is being done."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
