"""What a command prints on its stderr: what it complains of, and lines that tell how far it has come."""

import re
from collections.abc import Callable

PROGRESS = re.compile(rb"ZMQBROKER_PROGRESS ([0-9]{1,15})(?:/([0-9]{1,15}))?(\s.*)?", re.DOTALL)
LONGEST_TEXT = 300  # characters: what is told in JSON is 4,096 bytes at most

OnProgress = Callable[[int, int | None, str], object]  # done, of how many (None: it does not say), and a text


class Complaints:
    """Takes it in as it comes, in pieces."""

    def __init__(self, on_progress: OnProgress) -> None:
        """Begin with nothing; `on_progress` is told of each line of progress, which is no complaint."""
        self.text = bytearray()
        self._line_at = 0  # where the last line begins
        self._on_progress = on_progress

    def add(self, piece: bytes) -> None:
        """Take in what came."""
        at = len(self.text)
        self.text += piece
        while (end := self.text.find(b"\n", at)) >= 0:
            at = self._line_at = self._end_line(end + 1)

    def close(self) -> None:
        """Note that nothing more comes: a line may have no end."""
        self._end_line(len(self.text))

    def _end_line(self, end: int) -> int:
        """Take a line that ends there out if it is one of progress; return where the next one begins."""
        if not self.text.startswith(b"ZMQBROKER_PROGRESS", self._line_at):
            return end
        found = PROGRESS.fullmatch(self.text[self._line_at : end])
        if found is None:
            return end
        done, total, text = found.groups(default=b"")
        words = text.decode(errors="replace").strip()
        self._on_progress(int(done), int(total) if total else None, words[:LONGEST_TEXT])
        del self.text[self._line_at : end]
        return self._line_at
