"""A picture that is drawn anew each second, in a terminal until `q` is pressed, and by itself until a signal comes."""

import os
import select
import signal
import termios
import tty
from contextlib import ExitStack, suppress
from math import ceil
from time import monotonic
from types import TracebackType
from typing import Any

from zmqbroker.commands import streams
from zmqbroker.commands.asking import print_lines
from zmqbroker.transport import signals
from zmqbroker.transport.alarm import Alarm

INTERVAL = 1.0  # seconds between two pictures
QUIT = b"qQ"
OPEN, CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # a screen of its own, without a cursor
HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Watch:
    """Shows pictures, each after an interval; a context manager that leaves a terminal as it was."""

    def __init__(self, is_terminal: bool) -> None:
        """Prepare; what is no terminal gets one picture below the other."""
        self.ended_by: int | None = None  # the exit status, 0: as it is; None: it has not ended
        self._is_terminal = is_terminal
        self._alarm = Alarm()
        self._undoing = ExitStack()
        self._next = monotonic()  # when the next picture is due

    def __enter__(self) -> "Watch":
        with ExitStack() as undoing:
            undoing.callback(self._alarm.close)
            undoing.enter_context(self._alarm.rung_by_signals())
            signals.on_signals(self._end)
            if self._is_terminal:
                self._hear_keys(undoing)
                undoing.callback(_print, CLOSE)
                _print(OPEN)
            self._undoing = undoing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(streams.OutputError):  # the terminal has gone
            self._undoing.close()

    def show(self, lines: list[str]) -> None:
        """Show a picture, and wait until the next one is due, or the end comes; keys are heard in any case."""
        if self._is_terminal:
            _print(HOME + f"{END_OF_LINE}\n".join(lines) + END_OF_LINE + END_OF_SCREEN)
        else:
            print_lines(lines)
        self._next = max(self._next + INTERVAL, monotonic())
        self._wait(self._next - monotonic())
        while self.ended_by is None and (left := self._next - monotonic()) > 0:
            self._wait(left)

    def _wait(self, seconds: float) -> None:
        poller = select.poll()
        poller.register(self._alarm.fileno(), select.POLLIN)
        if self._is_terminal:
            poller.register(streams.STDIN, select.POLLIN)
        for descriptor, event in poller.poll(max(0, ceil(1000 * seconds))):
            if descriptor == streams.STDIN and self.ended_by is None:
                pressed = os.read(streams.STDIN, 100) if event & select.POLLIN else b""
                if not pressed or set(pressed) & set(QUIT):
                    self.ended_by = 0

    def _end(self, number: signal.Signals) -> None:
        self.ended_by = signals.INTERRUPTED + number

    def _hear_keys(self, undoing: ExitStack) -> None:
        """Have each key come at once, and not be shown, where stdin is a terminal."""
        try:
            before: list[Any] = termios.tcgetattr(streams.STDIN)
        except termios.error:  # it is none
            return
        undoing.callback(termios.tcsetattr, streams.STDIN, termios.TCSANOW, before)
        tty.setcbreak(streams.STDIN, termios.TCSANOW)


def _print(text: str) -> None:
    streams.print_out(text)
