"""A log that malformed traffic at full speed cannot flood."""

from logging import Logger

INTERVAL = 5.0  # seconds between two lines of a kind


class LimitedLog:
    """Warnings of a few kinds, each at most once an interval; the next line says how many were left out."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._next: dict[str, float] = {}  # when a kind may be logged again
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, text: str, now: float) -> None:
        """Log `text`, or count it where its kind was logged less than an interval before `now` (seconds)."""
        if now < self._next.get(kind, now):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        left_out = self._left_out.pop(kind, 0)
        self._next[kind] = now + INTERVAL
        self._log.warning("%s%s", printable(text), f" ({left_out} more like this were not logged)" if left_out else "")


def printable(text: str) -> str:
    """Return text that is one line and moves no cursor: what comes from a peer may hold anything."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
