"""Results as files of their own: each is there whole, or not at all."""

import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from zmqbroker.commands import naming, streams
from zmqbroker.commands.takers import LEFT, Item, Outcome
from zmqbroker.wire.chunks import Body

REASON = ".err"  # what ends the name of a file that says why there is no result
OURS = re.compile(r"[1-9][0-9]*(\.err)?")  # what files in a directory of results are called


class ResultFiles:
    """A file for each result."""

    waiting = 0  # bytes; each is written at once

    def __init__(self, name_of: Callable[[Item], str], with_reasons: bool) -> None:
        """Write each result to what `name_of` says; `with_reasons`: and why there is none, next to that."""
        self.written = 0  # bytes so far
        self._name_of = name_of
        self._with_reasons = with_reasons

    def take(self, outcome: Outcome) -> None:
        """Write it; raises OutputError."""
        if outcome.status == LEFT:
            return
        name = self._name_of(outcome.item)
        if not outcome.has_failed:
            self._write(name, bytes_of(outcome.result))
            if self._with_reasons:
                _remove(name + REASON)  # of an earlier run
        elif self._with_reasons:
            self._write(name + REASON, f"{outcome.result}\n".encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self, left: Sequence[Item]) -> None:
        """Nothing is to be noted."""

    def _write(self, name: str, data: bytes) -> None:
        _write_whole(name, data)
        self.written += len(data)


def in_directory(directory: str, goes_on: bool) -> ResultFiles:
    """Have the results in files of a directory, each with its number for a name.

    `goes_on`: there may be some already. Raises ValueError where there are but may not be, and OutputError.
    """
    with streams.writing(directory):
        os.makedirs(directory, exist_ok=True)
        if not goes_on and any(OURS.fullmatch(name) for name in os.listdir(directory)):
            raise ValueError(
                f"{directory} has results already: name another directory, or go on with the --report of these by "
                "--resume or --resume-failed"
            )
    return ResultFiles(lambda item: os.path.join(directory, str(item.number)), with_reasons=True)


def named_after(inputs: Sequence[str], template: str) -> ResultFiles:
    """Have the results in files that are named after those of the inputs.

    Raises ValueError where two have the same name, or one that is not to be overwritten; OutputError for a directory
    that cannot be made.
    """
    if streams.STDIN_NAME in inputs:
        raise ValueError("stdin has no name that one of --output could be made from")
    names = naming.names_from(template, inputs)
    known = {(status.st_dev, status.st_ino): name for name in inputs for status in [os.stat(name)]}
    for name in names:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(name)
            if (status.st_dev, status.st_ino) in known:
                raise ValueError(f"{name} would be overwritten, and is an input")
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{name} is there already, and is no file")
    for directory in {os.path.dirname(name) or "." for name in names}:
        with streams.writing(directory):
            os.makedirs(directory, exist_ok=True)
    return ResultFiles(lambda item: names[item.number - 1], with_reasons=False)


def bytes_of(body: Body | str) -> bytes:
    """Return a result, or a key, as it is to be written."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else b"".join(body)


def _write_whole(name: str, data: bytes) -> None:
    temporary = os.path.join(os.path.dirname(name), f".zmqbroker-{os.getpid()}")
    with streams.writing(name):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                streams.write_all(descriptor, data)
            finally:
                os.close(descriptor)
            os.replace(temporary, name)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _remove(name: str) -> None:
    with streams.writing(name), suppress(FileNotFoundError):
        os.unlink(name)
