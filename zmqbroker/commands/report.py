"""The file of a report: what is read of an earlier run, and a line for each outcome of this one."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from zmqbroker.commands import streams
from zmqbroker.commands.lines import Input
from zmqbroker.commands.reported import FAILED, SUCCEEDED, UNKNOWN, Reported, checksum, line_of
from zmqbroker.commands.takers import LEFT, Item, Outcome


class Report:
    """A report that is being written."""

    def __init__(self, name: str, reported: Reported | None) -> None:
        """Open it. `reported`: what is to take in what it says already; None: it is to be empty.

        Raises ValueError for one that is not, for what is no report, and while another program writes it; OutputError.
        """
        self.written = 0  # bytes so far
        self._name = name
        self._waiting = bytearray()
        with streams.writing(name):
            self._descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._begin(reported)

    @property
    def waiting(self) -> int:
        """How many bytes wait to be written."""
        return len(self._waiting)

    def take(self, outcome: Outcome) -> None:
        """Have a line of it written soon."""
        if outcome.status != LEFT:
            self._waiting += line_of(outcome)

    def flush(self) -> None:
        """Write what waits; raises OutputError."""
        waiting, self._waiting = self._waiting, bytearray()
        with streams.writing(self._name):
            streams.write_all(self._descriptor, memoryview(waiting))
        self.written += len(waiting)

    def close(self, left: Sequence[Item]) -> None:
        """Let go: what waits was not to be written, and nothing is said of what is left."""
        os.close(self._descriptor)

    def _begin(self, reported: Reported | None) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ValueError(f"{self._name} is being written by another program") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return
        if reported is None:
            raise ValueError(f"{self._name} is there already: go on with it by --resume or --resume-failed")
        whole = self._read(reported)
        if whole < status.st_size:
            os.ftruncate(self._descriptor, whole)  # whoever wrote it was killed in the middle of a line

    def _read(self, reported: Reported) -> int:
        """Take in what it says; return how many bytes of it are whole lines."""
        whole = 0
        with open(self._name, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    reported.add(line)
                except ValueError as error:
                    raise ValueError(f"{self._name}, line {number}: {error}") from None
                whole += len(line)
        return whole


class Resuming:
    """The inputs that an earlier run has left to do."""

    def __init__(
        self,
        inputs: Input,
        reported: Reported,
        again: bool,
        tell_failed: Callable[[Item], object] | None,
    ) -> None:
        """Take all inputs but those that were reported; `again`: also those that had failed, else tell of these."""
        self.left_out = 0  # that had failed
        self._inputs = inputs
        self._reported = reported
        self._again = again
        self._tell_failed = tell_failed

    def tasks(self) -> Iterator[Item]:
        """Yield them, with their checksums; raises as the source does, and ValueError where the input has changed."""
        for item in self._inputs.tasks():
            item = item._replace(checksum=checksum(item.body))
            known = self._reported.find(item)
            if known == UNKNOWN or (known == FAILED and self._again):
                yield item
            elif known != SUCCEEDED:
                self.left_out += 1
                if self._tell_failed is not None:
                    self._tell_failed(item)

    def total(self) -> int | None:
        """Return how many there are; None if that cannot be told before all is read."""
        all = self._inputs.total()
        if all is None:
            return None
        done = self._reported.succeeded + (0 if self._again else self._reported.failed)
        return max(all - done, 0)
