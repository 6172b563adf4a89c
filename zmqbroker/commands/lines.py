"""What goes into a submission and what comes out of it: lines, whole files, and keys."""

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from zmqbroker.commands import streams
from zmqbroker.wire.chunks import Body
from zmqbroker.wire.json_body import write_json

CHUNK = 1 << 20  # bytes read at once
BUFFERED = 1 << 16  # bytes of output that wait for more, while there is more


class Input(NamedTuple):
    """Where tasks come from."""

    names: Sequence[str]  # of files, or streams.STDIN_NAME
    whole: bool  # each file is one task, else each line

    def tasks(self) -> Iterator[tuple[str, bytes]]:
        """Yield each task's place, for people, and its body; raises OSError for what cannot be read."""
        number = 0
        for name in self.names:
            with _open(name) as file:
                if self.whole:
                    yield name, file.read()
                    continue
                for number_in_file, line in enumerate(file, 1):
                    number += 1
                    place = f"line {number}" if len(self.names) == 1 else f"{name}, line {number_in_file}"
                    yield place, line[:-1] if line.endswith(b"\n") else line

    def total(self) -> int | None:
        """Return the number of tasks; None if that cannot be told before all is read."""
        if self.whole:
            return len(self.names)
        total = 0
        for name in self.names:
            if name == streams.STDIN_NAME or not os.path.isfile(name):  # what is no file can be read only once
                return None
            with _open(name) as file:
                last = b"\n"
                while chunk := file.read(CHUNK):
                    total += chunk.count(b"\n")
                    last = chunk[-1:]
                total += last != b"\n"
        return total

    def check(self) -> None:
        """Raise OSError for the first file that cannot be opened; a FIFO is not tried, its writer would be cut off."""
        for name in self.names:
            if name == streams.STDIN_NAME or not stat.S_ISFIFO(os.stat(name).st_mode):
                _open(name).close()


class Keys(NamedTuple):
    """Where the keys of tasks come from."""

    named: Sequence[str]
    file: str | None  # more of them, one a line; streams.STDIN_NAME: stdin; None: there are no more

    def tasks(self) -> Iterator[tuple[str, str]]:
        """Yield each key, for people and as it is; raises OSError for what cannot be read, ValueError for no text."""
        for key in self.named:
            yield key, key
        if self.file is None:
            return
        with _open(self.file) as file:
            for number, line in enumerate(file, 1):
                try:
                    key = line.rstrip(b"\r\n").decode()
                except UnicodeDecodeError:
                    raise ValueError(f"{self.file}, line {number} is no key: it is not UTF-8") from None
                if key:
                    yield key, key

    def total(self) -> int | None:
        """Return the number of keys; None if that cannot be told before all are read."""
        return len(self.named) if self.file is None else None

    def check(self) -> None:
        """Raise OSError for a file that cannot be opened, as that of an Input."""
        if self.file is not None:
            Input([self.file], whole=False).check()


class Output:
    """How replies are printed."""

    def __init__(
        self,
        ordered: bool,
        whole: bool,
        when_written: Callable[[list[str]], object] | None = None,
        by_place: bool = False,
        as_json: bool = False,
    ) -> None:
        """Print in order, or (not `ordered`) each reply after its number, or place; of `whole` files, or of lines.

        With `as_json`, replies are what JSON has said.

        `when_written` is called each time with the places of what was written; None: nobody wants to know.
        """
        self.ordered = ordered
        self.written = 0  # bytes so far
        self._whole = whole
        self._when_written = when_written
        self._by_place = by_place
        self._as_json = as_json
        self._waiting = bytearray()
        self._places: list[str] = []  # of those

    def add(self, number: int, place: str, body: Any) -> None:
        """Print a reply, with a newline where it lacks one, soon; of a whole file, only text is given one."""
        text = write_json(body) if self._as_json else _text(body)
        if not self.ordered:
            label = place if self._by_place else f"{number}"
            self._waiting += f"{label}\t".encode("utf-8", "backslashreplace")
        self._waiting += text
        if not text.endswith(b"\n") and not (self._whole and streams.is_binary(text)):
            self._waiting += b"\n"
        self._places.append(place)
        if len(self._waiting) >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Print what waits; raises as `streams.write_out` does."""
        waiting, self._waiting = memoryview(self._waiting), bytearray()
        for start in range(0, len(waiting), streams.PIECE):
            piece = waiting[start : start + streams.PIECE]
            streams.write_out(piece)
            self.written += len(piece)
        places, self._places = self._places, []
        if places and self._when_written is not None:
            self._when_written(places)


def _text(body: Body | str) -> bytes:
    return body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else b"".join(body)


def _open(name: str) -> io.BufferedReader:
    return io.BufferedReader(streams.Source(name), CHUNK)
