"""What goes into a submission: lines, whole files, and keys."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zmqbroker.commands import streams
from zmqbroker.commands.takers import Item

CHUNK = 1 << 20  # bytes read at once
NEWLINE, NULL = b"\n", b"\0"


class Input(NamedTuple):
    """Where tasks come from."""

    names: Sequence[str]  # of files, or streams.STDIN_NAME
    whole: bool  # each file is one task, else each line
    end: bytes = NEWLINE  # of a line, NEWLINE or NULL

    def tasks(self) -> Iterator[Item]:
        """Yield what each task is made of; raises OSError for what cannot be read."""
        number = 0
        for name in self.names:
            with _open(name) as file:
                if self.whole:
                    number += 1
                    yield Item(number, name, file.read(), name)
                    continue
                for number_in_file, line in enumerate(file if self.end == NEWLINE else _split(file), 1):
                    number += 1
                    place = f"line {number}" if len(self.names) == 1 else f"{name}, line {number_in_file}"
                    yield Item(number, place, line[:-1] if line.endswith(self.end) else line)

    def total(self) -> int | None:
        """Return the number of tasks; None if that cannot be told before all is read."""
        if self.whole:
            return len(self.names)
        total = 0
        for name in self.names:
            if name == streams.STDIN_NAME or not os.path.isfile(name):  # what is no file can be read only once
                return None
            with _open(name) as file:
                last = self.end
                while chunk := file.read(CHUNK):
                    total += chunk.count(self.end)
                    last = chunk[-1:]
                total += last != self.end
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

    def tasks(self) -> Iterator[Item]:
        """Yield each key; raises OSError for what cannot be read, ValueError for what is no text."""
        for number, key in enumerate(self._keys(), 1):
            yield Item(number, key, key)

    def _keys(self) -> Iterator[str]:
        yield from self.named
        if self.file is None:
            return
        with _open(self.file) as file:
            for number, line in enumerate(file, 1):
                try:
                    key = line.rstrip(b"\r\n").decode()
                except UnicodeDecodeError:
                    raise ValueError(f"{self.file}, line {number} is no key: it is not UTF-8") from None
                if key:
                    yield key

    def total(self) -> int | None:
        """Return the number of keys; None if that cannot be told before all are read."""
        return len(self.named) if self.file is None else None

    def check(self) -> None:
        """Raise OSError for a file that cannot be opened, as that of an Input."""
        if self.file is not None:
            Input([self.file], whole=False).check()


def _split(file: io.BufferedReader) -> Iterator[bytes]:
    """Yield what ends with NULL, as soon as it is there, and the rest."""
    rest: list[bytes] = []
    while chunk := file.read1(CHUNK):
        first, *others = chunk.split(NULL)
        rest.append(first)
        if others:
            yield b"".join(rest) + NULL
            yield from (line + NULL for line in others[:-1])
            rest = [others[-1]]
    if last := b"".join(rest):
        yield last


def _open(name: str) -> io.BufferedReader:
    return io.BufferedReader(streams.Source(name), CHUNK)
