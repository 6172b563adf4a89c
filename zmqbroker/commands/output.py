"""How results are printed, and what else is done with those that are."""

from collections.abc import Callable, Sequence

from zmqbroker.commands import streams
from zmqbroker.commands.result_files import bytes_of
from zmqbroker.commands.takers import Item, Outcome


class Output:
    """Prints results, each with a newline where it lacks one."""

    def __init__(self, whole: bool, label: Callable[[Item], object] | None = None, keep_lines: bool = False) -> None:
        """Print the results of `whole` files, or of lines; with `keep_lines` an empty line where there is none.

        `label`: what comes before each, and a tab; None: nothing.
        """
        self.written = 0  # bytes so far
        self._whole = whole
        self._label = label
        self._keep_lines = keep_lines
        self._waiting = bytearray()

    @property
    def waiting(self) -> int:
        """How many bytes wait to be printed."""
        return len(self._waiting)

    def take(self, outcome: Outcome) -> None:
        """Print a result soon; of a whole file, only text is given a newline."""
        if outcome.has_failed and not self._keep_lines:
            return
        text = b"" if outcome.has_failed else bytes_of(outcome.result)
        if self._label is not None:
            self._waiting += f"{self._label(outcome.item)}\t".encode("utf-8", "backslashreplace")
        self._waiting += text
        if not text.endswith(b"\n") and not (self._whole and streams.is_binary(text)):
            self._waiting += b"\n"

    def flush(self) -> None:
        """Print what waits; raises as `streams.write_out` does."""
        waiting, self._waiting = memoryview(self._waiting), bytearray()
        for start in range(0, len(waiting), streams.PIECE):
            piece = waiting[start : start + streams.PIECE]
            streams.write_out(piece)
            self.written += len(piece)

    def close(self, left: Sequence[Item]) -> None:
        """Nothing is to be noted."""


class WhenPrinted:
    """Has something done about results that were printed: it comes after that in the list of takers."""

    waiting = written = 0  # bytes

    def __init__(self, use: Callable[[list[Item]], object]) -> None:
        self._use = use
        self._items: list[Item] = []

    def take(self, outcome: Outcome) -> None:
        """Note what will be printed."""
        if not outcome.has_failed:
            self._items.append(outcome.item)

    def flush(self) -> None:
        """Do it with those that were printed since."""
        items, self._items = self._items, []
        if items:
            self._use(items)

    def close(self, left: Sequence[Item]) -> None:
        """Nothing is to be noted."""
