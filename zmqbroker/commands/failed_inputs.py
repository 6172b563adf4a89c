"""The inputs of tasks that have no result, in a file, as they were: ready to be submitted again."""

import os
from collections.abc import Sequence
from threading import Lock

from zmqbroker.commands import streams
from zmqbroker.commands.takers import BUFFERED, LEFT, Item, Outcome


class FailedInputs:
    """Such a file."""

    def __init__(self, name: str, end: bytes) -> None:
        """Make it, or empty it; `end` is what ends each input. Raises OutputError."""
        self.written = 0  # bytes so far
        self._name = name
        self._end = end
        self._lock = Lock()  # lines that are skipped come from the thread that reads them
        self._waiting = bytearray()
        self._unsure: list[Item] = []  # whose results are taken, but perhaps not written
        with streams.writing(name):
            self._descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    @property
    def waiting(self) -> int:
        """How many bytes wait to be written."""
        return len(self._waiting)

    def take(self, outcome: Outcome) -> None:
        """Have the input of a task that has failed written soon."""
        if outcome.status == LEFT:  # it is told of at the end
            return
        if outcome.has_failed:
            self.add(outcome.item)
        else:
            self._unsure.append(outcome.item)

    def add(self, item: Item) -> None:
        """Have an input written soon, in any thread; raises OutputError."""
        text = item.body if item.name is None else os.fsencode(item.name)
        with self._lock:
            self._waiting += text + self._end
            if len(self._waiting) >= BUFFERED:
                self._write()

    def flush(self) -> None:
        """Write what waits; raises OutputError. Whatever comes before this has been written."""
        self._unsure.clear()
        with self._lock:
            self._write()

    def close(self, left: Sequence[Item]) -> None:
        """Write also the inputs of what is left; raises OutputError."""
        for item in [*self._unsure, *left]:
            self.add(item)
        self.flush()
        os.close(self._descriptor)

    def _write(self) -> None:
        """Write what waits; with the lock held."""
        waiting, self._waiting = self._waiting, bytearray()
        with streams.writing(self._name):
            streams.write_all(self._descriptor, memoryview(waiting))
        self.written += len(waiting)
