"""How far a submission has come, for people: with tqdm where that is installed, else a plain counter."""

import os
import sys
from time import monotonic
from typing import Any

from zmqbroker.commands import streams

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

INTERVAL = 0.2  # seconds between two pictures
CLEAR_LINE = "\r\x1b[K"


class Progress:
    """A line on stderr that says what is done, and what is left; nothing where stderr is no terminal."""

    def __init__(self, shown: bool, total: int | None) -> None:
        """Prepare; `total` is the number of tasks, None where that is not known."""
        self._shown = shown
        self._total = total
        self._started = monotonic()
        self._next = 0.0
        self._is_drawn = False
        self._bar: Any = None
        if shown and tqdm is not None:
            self._bar = tqdm(total=total, unit=" tasks", file=_Terminal(), dynamic_ncols=True, mininterval=INTERVAL)

    def show(self, done: int, failed: int) -> None:
        """Draw anew, if that is due."""
        if not self._shown or (now := monotonic()) < self._next:
            return
        self._next = now + INTERVAL
        self._draw(done, failed, now)

    def clear(self, descriptor: int) -> None:
        """Take the line away where something is to be printed on the same terminal."""
        if self._is_drawn and os.isatty(descriptor):
            self._is_drawn = False
            if self._bar is not None:
                self._bar.clear()
            else:
                streams.complain(CLEAR_LINE, end="")

    def close(self, done: int, failed: int) -> None:
        """Draw for the last time."""
        if self._shown:
            self._draw(done, failed, monotonic())
            if self._bar is not None:
                self._bar.close()
            else:
                streams.complain("")

    def _draw(self, done: int, failed: int, now: float) -> None:
        self._is_drawn = True
        if self._bar is not None:
            self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.n = done + failed
            self._bar.refresh()
            return
        rate = (done + failed) / max(now - self._started, 1e-9)
        text = f"{done:,} done, {failed:,} failed, {rate:,.0f}/s"
        if self._total is not None and rate:
            text += f", {(self._total - done - failed) / rate:,.0f} s left"
        streams.complain(CLEAR_LINE + text, end="")


class _Terminal:
    """stderr as tqdm wants it, that never raises: a terminal may go away."""

    encoding = sys.stderr.encoding if sys.stderr else None

    def write(self, text: str) -> None:
        streams.complain(text, end="")

    def flush(self) -> None:
        """Nothing waits to be written."""

    def fileno(self) -> int:
        """Tell where the width is to be asked for."""
        return streams.STDERR
