"""What a worker process shares with its supervisor: memory that it writes, to be read at any time, even after its end.

There is what the process has done so far, and the task that it has in hand. That one has a number, which is written
last when a task begins and first when it ends: who reads the same number before and after the rest has read one task.
What the task tells about itself is left as it came, because many tasks end before anybody looks.
"""

import mmap
import os
import struct
import tempfile
from collections.abc import Sized
from math import inf
from time import monotonic
from typing import Any

from zmqbroker.transport.limited_log import task_name
from zmqbroker.wire.header import read_fields
from zmqbroker.worker.limits import InHand

HANDLED, FAILED, NUMBER = range(3)  # the words: tasks handled, those of them that failed, the task in hand (0: none)
TASK = struct.Struct("@dddHH")  # when it began, and was touched (0: never) for how long; sizes of its id, of all text
TOUCH = struct.Struct("@dd")
TASK_AT = 24
TOUCH_AT = TASK_AT + 8
TEXT_AT = TASK_AT + TASK.size  # its id, and then its header
SIZE = 4 * mmap.PAGESIZE
LARGEST_TEXT = 16000  # bytes; JSON makes twelve of one letter of a key, at the most
TIMEOUT_AGAIN = 0.0  # what a touch asks for that names no time


class Slot:
    """The memory of one process. It writes there; its supervisor reads."""

    def __init__(self, descriptor: int) -> None:
        """Map the file of `anonymous_file`; the descriptor may be closed then."""
        self._mapped = mmap.mmap(descriptor, SIZE)
        self._memory = memoryview(self._mapped)
        self._words = self._memory.cast("Q")
        self._process_id = os.getpid()
        self._begun = 0

    def write_counts(self, handled: int, failed: int) -> None:
        """Say how many tasks were handled so far, and how many of them failed; a child that was forked has no say."""
        if os.getpid() == self._process_id:
            self._words[HANDLED] = handled
            self._words[FAILED] = failed

    def counts(self) -> tuple[int, int]:
        """Return how many tasks were handled so far, and how many of them failed."""
        return self._words[HANDLED], self._words[FAILED]

    def begin(self, attempt_id: bytes, header: Sized, now: float) -> None:
        """Say that a task is in hand since `now`; `header` is what it tells about itself, perhaps nothing."""
        text = b"".join((attempt_id, header))  # type: ignore[arg-type]
        size = min(len(text), LARGEST_TEXT)
        self._begun += 1
        TASK.pack_into(self._memory, TASK_AT, now, 0.0, 0.0, len(attempt_id), size)
        self._memory[TEXT_AT : TEXT_AT + size] = text[:size]
        self._words[NUMBER] = self._begun

    def touch(self, seconds: float | None) -> None:
        """Say that the broker was asked for `seconds` from now on, or (None) for the timeout once more."""
        TOUCH.pack_into(self._memory, TOUCH_AT, monotonic(), TIMEOUT_AGAIN if seconds is None else seconds)

    def end(self) -> None:
        """Say that no task is in hand any more."""
        self._words[NUMBER] = 0

    def in_hand(self) -> InHand | None:
        """Return the task in hand; None: there is none, or it has begun or ended just now."""
        number = self._words[NUMBER]
        began, touched, seconds, id_size, size = TASK.unpack_from(self._memory, TASK_AT)
        text = bytes(self._memory[TEXT_AT : TEXT_AT + size])
        if not number or number != self._words[NUMBER]:
            return None
        fields = _fields(text[id_size:])
        timeout = _timeout(fields)
        deadline = touched + (seconds or timeout) if touched else began + timeout
        return InHand(began, deadline, text[:id_size], task_name(fields.get("number"), fields.get("key"), "a task"))

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.release()
        self._mapped.close()


def _fields(header: bytes) -> dict[str, Any]:
    """Return what a task tells about itself; nothing where it does not, or tells too much."""
    try:
        return read_fields(header) if header else {}
    except ValueError:
        return {}


def _timeout(fields: dict[str, Any]) -> float:
    """Return how many seconds a task has, by what it tells about itself; inf: no limit, or it does not tell."""
    timeout = fields.get("timeout")
    return timeout if isinstance(timeout, (int, float)) and timeout > 0 else inf


def anonymous_file(content: bytes) -> int:
    """Return a descriptor of a new file that has no name, at its beginning; raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("zmqbroker")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        with open(descriptor, "wb", 0, closefd=False) as file:
            while content:
                content = content[file.write(content) or 0 :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
