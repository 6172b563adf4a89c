"""What a report says, line by line, and what a later run makes of it. Pure: no file, no clock.

Each line is a JSON object about one outcome. The last line about a task counts. For a million lines of input what is
remembered takes 5 MB: a byte for each, and the checksum that tells whether it is still what it was.
"""

import json
from array import array
from typing import Any
from zlib import crc32

from zmqbroker.commands.takers import Item, Outcome
from zmqbroker.wire import ACCEPTED, DONE

UNKNOWN, SUCCEEDED, FAILED = range(3)  # what is known of an item
LARGEST_LINE = 1 << 32  # no input has more of them


def checksum(body: bytes) -> int:
    """Return what tells whether an input is still what it was."""
    return crc32(body)


def line_of(outcome: Outcome) -> bytes:
    """Return the line of a report about an outcome."""
    item = outcome.item
    fields: dict[str, Any] = {"line": item.number} if item.name is None else {"file": item.name}
    fields |= {
        "status": outcome.status,
        "attempts": outcome.attempts,
        "seconds": round(outcome.seconds, 6),
        "worker": outcome.worker,
        "reason": str(outcome.result) if outcome.has_failed else None,
        "checksum": f"{item.checksum:08x}",
    }
    if outcome.status == ACCEPTED:
        fields["key"] = outcome.key
    return json.dumps(fields).encode() + b"\n"


class Reported:
    """What a report says of each input."""

    def __init__(self) -> None:
        self._lines = bytearray()  # what is known of each
        self._checksums = array("I")  # of each
        self._files: dict[str, tuple[int, int]] = {}  # the same by name
        self.succeeded = 0  # how many
        self.failed = 0

    def add(self, line: bytes) -> None:
        """Take in a line; raises ValueError for what is none of a report."""
        try:
            fields = json.loads(line)
            status, found = fields["status"], int(fields["checksum"], 16)
            if type(status) is not str or not 0 <= found < 1 << 32:
                raise ValueError("it is no status, or no checksum")
            known = SUCCEEDED if status in (DONE, ACCEPTED) else FAILED
            if "file" in fields:
                before = self._put_file(fields["file"], known, found)
            else:
                before = self._put_line(fields["line"], known, found)
        except (KeyError, TypeError, ValueError, RecursionError):
            raise ValueError("it is no line of a report") from None
        self._count(before, -1)
        self._count(known, 1)

    def find(self, item: Item) -> int:
        """Return what is known of an input; raises ValueError for a line that is not what it was."""
        if item.name is not None:  # one that has changed since is another one
            known, found = self._files.get(item.name, (UNKNOWN, 0))
            return known if found == item.checksum else UNKNOWN
        if item.number > len(self._lines) or not self._lines[item.number - 1]:
            return UNKNOWN
        if self._checksums[item.number - 1] != item.checksum:
            raise ValueError(f"{item.place} is not what it was when it was reported: the input has changed since")
        return self._lines[item.number - 1]

    def _put_file(self, name: Any, known: int, found: int) -> int:
        if type(name) is not str:
            raise TypeError("a file has a name")
        before, _ = self._files.get(name, (UNKNOWN, 0))
        self._files[name] = known, found
        return before

    def _put_line(self, number: Any, known: int, found: int) -> int:
        if type(number) is not int or not 0 < number < LARGEST_LINE:
            raise ValueError("a line has a number")
        missing = number - len(self._lines)
        if missing > 0:
            self._lines += bytes(missing)
            self._checksums.frombytes(bytes(missing * self._checksums.itemsize))
        before = self._lines[number - 1]
        self._lines[number - 1], self._checksums[number - 1] = known, found
        return before

    def _count(self, known: int, by: int) -> None:
        self.succeeded += by * (known == SUCCEEDED)
        self.failed += by * (known == FAILED)
