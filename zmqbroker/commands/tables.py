"""Tables and words for people: columns that fit a terminal, colours where they are wanted, nothing that moves a cursor.

Text that comes from others, as labels, keys and reasons do, may hold anything: what is not printable is escaped, marks
that turn the direction of writing among it.
"""

import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from zmqbroker.transport.limited_log import printable

WIDTH, HEIGHT = 80, 24  # of what is no terminal
CUT = "~"  # ends what was cut
WIDE_GAP, NARROW_GAP = 2, 1  # columns between columns of text
ENOUGH = 8  # columns of a terminal, to which those that may shrink do first
BOLD, RED, YELLOW = "1", "31", "33"  # styles
NONE = "-"
UNITS = (
    (120, 1, "s"),
    (7200, 60, "min"),
    (172_800, 3600, "h"),
    (inf, 86_400, "d"),
)  # up to what, its seconds, its name


class Column(NamedTuple):
    """A column of a table."""

    title: str
    is_number: bool = False  # it is aligned at the right
    cut_by: Callable[[str, int], str] | None = None  # what cuts it where there is no room; None: nothing does
    is_optional: bool = False  # it is left out where no row has anything there


class Row(NamedTuple):
    """A row of a table, and how it is to look."""

    cells: Sequence[str]
    style: str = ""  # none


class Page:
    """How wide the output is, how high, whether it has colours, and which characters it takes."""

    def __init__(self) -> None:
        """Find out about stdout."""
        self.is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self.has_colours = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self.measure()

    def measure(self) -> None:
        """See how large the terminal is now."""
        size = shutil.get_terminal_size((WIDTH, HEIGHT)) if self.is_terminal else os.terminal_size((WIDTH, HEIGHT))
        self.width, self.height = size.columns, size.lines

    def paint(self, text: str, style: str) -> str:
        """Return text in a style, where there are any."""
        return f"\x1b[{style}m{text}\x1b[0m" if style and self.has_colours else text

    def escape(self, text: str) -> str:
        """Return text that is one line, moves no cursor, and can be printed in this encoding."""
        return printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)

    def line(self, text: str, style: str = "") -> str:
        """Return a line of text from anywhere, cut where it is too long."""
        return self.paint(cut(self.escape(text), self.width), style)

    def listing(self, columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
        """Return the lines of a table that is as wide as the terminal, or where there is none, as it has to be."""
        return self.table(columns, rows, self.width if self.is_terminal else inf)

    def table(self, columns: Sequence[Column], rows: Sequence[Row], width: float) -> list[str]:
        """Return the lines of a table, its titles first; `width` inf: however wide it is."""
        places = [
            place
            for place, column in enumerate(columns)
            if not column.is_optional or any(row.cells[place] != NONE for row in rows)
        ]
        columns = [columns[place] for place in places]
        texts = [[self.escape(row.cells[place]) for place in places] for row in rows]
        widths, gap = _fit(columns, texts, width)
        titles = _joined(columns, [column.title for column in columns], widths, gap)
        lines = [self.paint(titles, BOLD)]
        for row, cells in zip(rows, texts, strict=True):
            lines.append(self.paint(_joined(columns, cells, widths, gap), row.style))
        return lines


def _fit(columns: Sequence[Column], texts: list[list[str]], most: float) -> tuple[list[int], int]:
    """Return how wide each column is, and the gap between them.

    A column is as wide as its texts; where there is no room for that the gap is narrow, and the widest of those that
    may shrink do.
    """
    widths = [
        max([width(column.title), *(width(cells[place]) for cells in texts)]) for place, column in enumerate(columns)
    ]
    gap = WIDE_GAP if sum(widths) + WIDE_GAP * (len(columns) - 1) <= most else NARROW_GAP
    too_much = sum(widths) + gap * (len(columns) - 1) - most
    for least in (ENOUGH, 1):
        while too_much > 0:
            shrinking = [place for place, column in enumerate(columns) if column.cut_by and widths[place] > least]
            if not shrinking:
                break
            widths[max(shrinking, key=widths.__getitem__)] -= 1
            too_much -= 1
    return widths, gap


def _joined(columns: Sequence[Column], cells: Sequence[str], widths: list[int], gap: int) -> str:
    padded = []
    for column, cell, room in zip(columns, cells, widths, strict=True):
        text = column.cut_by(cell, room) if column.cut_by else cell
        padding = " " * (room - width(text))
        padded.append(padding + text if column.is_number else text + padding)
    return (" " * gap).join(padded).rstrip()


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def _width_of(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def cut(text: str, room: float) -> str:
    """Return text that takes so many columns at most."""
    if width(text) <= room:
        return text
    taken, left = "", room - len(CUT)
    for letter in text:
        left -= _width_of(letter)
        if left < 0:
            break
        taken += letter
    return taken + CUT if room >= len(CUT) else ""


def squeeze(text: str, room: int) -> str:
    """Return text that takes so many columns at most, without its middle: names often differ at their ends."""
    if width(text) <= room or room < ENOUGH:
        return cut(text, room)
    end, left = len(text), (room - len(CUT)) // 2
    while (left := left - _width_of(text[end - 1])) >= 0:
        end -= 1
    return cut(text, room - width(text[end:])) + text[end:]


# Words


def number(value: float | None) -> str:
    """Return a whole number with commas; None: there is none."""
    return NONE if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Return a whole number in six characters at most, up to a billion; None: there is none."""
    if value is None or value < 100_000:
        return number(value)
    return f"{value / 1000:,.0f}k" if value < 1_000_000 else f"{value / 1_000_000:,.1f}M"


def span(seconds: float | None) -> str:
    """Return a span of time in one unit; None: there is none."""
    if seconds is None:
        return NONE
    unit, name = next((unit, name) for most, unit, name in UNITS if seconds < most)
    value = max(seconds, 0.0) / unit
    return f"{value:.1f} {name}" if value < 9.95 else f"{value:,.0f} {name}"


def size(count: int | None) -> str:
    """Return a number of bytes in one unit; None: it is not known."""
    if count is None:
        return NONE
    value, names = float(count), ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(names) > 1:
        value /= 1000
        names.pop(0)
    return f"{value:,.0f} {names[0]}"


def counted(count: int, one: str, several: str) -> str:
    """Return a number and what it counts: `1 task`, `2 tasks`."""
    return f"{count:,} {one if count == 1 else several}"
