"""What tests of `zmqbroker work` wait for."""

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PATIENCE, Program, wait_until

from zmqbroker import Client, TaskFailed

SOME, OTHER = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"  # addresses that are never used

Work = Callable[..., Program]


class Fifo:
    """A named pipe between a test and a task."""

    def __init__(self, path: Path, flags: int) -> None:
        os.mkfifo(path)
        self._descriptor = os.open(path, flags | os.O_NONBLOCK)

    def read(self) -> bytes:
        """Wait for what is written to it; nothing means that nobody has it open any more."""
        assert select.select([self._descriptor], [], [], PATIENCE)[0]
        return os.read(self._descriptor, 1000)

    def open_gate(self) -> None:
        """Let one task that reads a line from it go on."""
        os.write(self._descriptor, b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def failure(client: Client, body: bytes, **options: float) -> TaskFailed:
    with pytest.raises(TaskFailed) as caught:
        client.call(body, PATIENCE, **options)
    return caught.value


def has_left_nothing(program: Program) -> bool:
    """Wait until nobody has its output open any more: neither it nor a process that it started."""
    program._reader.join(PATIENCE)
    return not program._reader.is_alive()


def end_at_once(program: Program) -> int:
    """Send signals until the program ends: those within half a second of each other are one."""

    def has_ended() -> bool:
        program.process.send_signal(signal.SIGTERM)
        return program.process.poll() is not None

    wait_until(has_ended)
    return program.wait()
