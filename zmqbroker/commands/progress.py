"""How far a submission has come, for people: with tqdm where that is installed, else a plain counter."""

import os
import sys
from collections import deque
from time import monotonic
from typing import Any

from zmqbroker.commands import streams

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

INTERVAL = 0.2  # seconds between two pictures
LONGEST_TEXT = 60  # characters of what a worker says of how far it has come
CLEAR_LINE = "\r\x1b[K"
RECENT = 30.0  # seconds that tell how fast it goes


class Pace:
    """How fast tasks come to an end: recently, or since the start if that is no longer ago. Pure."""

    def __init__(self, now: float) -> None:
        self._seen = deque([(now, 0)])  # when how many had; the first is the last one that is not recent

    def rate(self, count: int, now: float) -> float:
        """Note that so many have come to an end by now; return how many did each second."""
        self._seen.append((now, count))
        while self._seen[1][0] <= now - RECENT:
            self._seen.popleft()
        since, before = self._seen[0]
        return (count - before) / max(now - since, 1e-9)


class Progress:
    """A line on stderr that says what is done, and what is left; nothing where stderr is no terminal."""

    def __init__(self, shown: bool, total: int | None) -> None:
        """Prepare; `total` is the number of tasks, None where that is not known."""
        self.is_shown = shown
        self._total = total
        self._pace = Pace(monotonic())
        self._next = 0.0
        self._is_drawn = False
        self._bar: Any = None
        if shown and tqdm is not None:
            self._bar = tqdm(total=total, unit=" tasks", file=_Terminal(), dynamic_ncols=True, mininterval=INTERVAL)

    def show(self, done: int, failed: int) -> None:
        """Draw anew, if that is due."""
        if not self.is_shown or (now := monotonic()) < self._next:
            return
        self._next = now + INTERVAL
        self._draw(done, failed, now)

    def show_coming(self, coming: dict[str, Any]) -> None:
        """Draw how far the only task has come, as its worker says it."""
        if self.is_shown:
            self._draw(0, 0, monotonic(), _describe(coming))

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
        if self.is_shown:
            self._draw(done, failed, monotonic())
            if self._bar is not None:
                self._bar.close()
            else:
                streams.complain("")

    def _draw(self, done: int, failed: int, now: float, coming: str = "") -> None:
        self._is_drawn = True
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, (f"failed={failed}", coming))), refresh=False)
            self._bar.n = done + failed
            self._bar.refresh()
            return
        rate = self._pace.rate(done + failed, now)
        text = f"{done:,} done, {failed:,} failed, {rate:,.0f}/s"
        if self._total is not None and rate:
            text += f", {(self._total - done - failed) / rate:,.0f} s left"
        if coming:
            text += f", at {coming}"
        streams.complain(CLEAR_LINE + text, end="")


def _describe(coming: dict[str, Any]) -> str:
    """Say how far a task has come: `3/10 reading`, or what there is of that, in characters that a terminal can bear."""
    steps = "/".join(f"{coming[name]}" for name in ("done", "total") if coming.get(name) is not None)
    said = " ".join(filter(None, (steps, str(coming.get("text") or ""))))
    return "".join(letter if letter.isprintable() else " " for letter in said)[:LONGEST_TEXT]


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
