"""A log that malformed traffic at full speed cannot flood, and that foreign code cannot break.

What it says of tasks, all logs call by the same names, so that they can be put side by side.
"""

import signal
from collections.abc import Callable, Iterable
from functools import partial
from logging import WARNING, Logger
from math import inf

from zmqbroker.transport import signals

INTERVAL = 5.0  # seconds between two lines of a kind
LONGEST_INTERVAL = 600.0  # seconds, of the kinds whose lines come ever more rarely


Text = str | Callable[[], str]  # what is dear to put into words, and mostly held back, is given as a function


class LimitedLog:
    """Lines of a few kinds, of each so many an interval. What is held back is told when the interval ends.

    Its owner calls `flush` then: `next_due` says when. It is told the time, and never fails.
    """

    def __init__(self, log: Logger, rarer: Iterable[str] = (), *, level: int = WARNING, lines: int = 1) -> None:
        """Prepare to log so many `lines` an interval; that of the kinds that are `rarer` doubles each time."""
        self._log = log
        self._level = level
        self._lines = lines
        self._intervals = dict.fromkeys(rarer, INTERVAL)
        self._next: dict[str, float] = {}  # when the interval of a kind ends
        self._left: dict[str, int] = {}  # lines of a kind until then
        self._held_back: dict[str, tuple[int, Text]] = {}  # how many of a kind since, and the last of them

    def tell(self, kind: str, text: Text, now: float, error: BaseException | None = None) -> None:
        """Log `text` with the traceback of `error`, or hold it back where this interval has no line left.

        `now` is in seconds.
        """
        left_out, _ = self._held_back.pop(kind, (0, ""))
        if now < self._next.get(kind, now) and not self._left[kind]:
            self._held_back[kind] = left_out + 1, text
        else:
            self._write(kind, text, left_out, now, error)

    def next_due(self) -> float:
        """Return when `flush` has something to say; inf: nothing is held back."""
        return min((self._next[kind] for kind in self._held_back), default=inf)

    def flush(self, now: float) -> None:
        """Log, for each kind whose interval has ended by `now`, the last of what was held back and how much it was.

        At the end of all, `now` is inf.
        """
        for kind in [kind for kind in self._held_back if self._next[kind] <= now]:
            number, text = self._held_back.pop(kind)
            self._write(kind, text, number - 1, now)

    def _write(self, kind: str, text: Text, left_out: int, now: float, error: BaseException | None = None) -> None:
        if now >= self._next.get(kind, now):
            interval = self._intervals.get(kind, INTERVAL)
            self._next[kind], self._left[kind] = now + interval, self._lines
            if kind in self._intervals:
                self._intervals[kind] = min(2 * interval, LONGEST_INTERVAL)
        self._left[kind] -= 1
        more = f" ({left_out} more like this were not logged)" if left_out else ""
        said = printable(text if isinstance(text, str) else text())
        log_safely(partial(self._log.log, self._level), "%s%s", said, more, exc_info=error)


def log_safely(log: Callable[..., None], text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
    """Log, unless that fails: a function of the user's may have closed the stream, or set up what raises anything.

    What a signal handler raises meanwhile is raised.
    """
    try:
        log(text, *arguments, exc_info=exc_info)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if signals.is_of_a_handler(error, signal.valid_signals()):
            raise


def printable(text: str) -> str:
    """Return text that is one line and moves no cursor: what comes from a peer may hold anything.

    Other letters stay, and nothing is escaped twice: so a name looks the same in each line.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


def task_name(number: int | None, key: str | None, otherwise: str = "a request") -> str:
    """Return what every log calls a task; `otherwise`: one without a number (None, or 0), as it became none, say."""
    what = f"task {number}" if number else otherwise
    return what if key is None else f"{what} ({printable(str(key))})"
