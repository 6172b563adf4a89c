"""What goes in and out of a command, until its end: whoever else has its pipes open is not waited for."""

import fcntl
import os
import selectors
import struct
import subprocess
import termios
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import IO, Any

from zmqbroker.worker.complaints import Complaints, OnProgress

LOOK_INTERVAL = 0.05  # seconds between two looks whether it has ended, where nothing tells
MOST_AT_ONCE = 1 << 20  # bytes


class Exchange:
    """The input of a process, its output and its complaints."""

    def __init__(self, process: "subprocess.Popen[bytes]", text: bytes, on_progress: OnProgress) -> None:
        """Prepare to give it `text`, and to tell how far it has come by what it says; all three are pipes."""
        pipes: list[Any] = [process.stdin, process.stdout, process.stderr]
        self.output = bytearray()
        self.complaints = Complaints(on_progress)
        self._process = process
        self._rest = memoryview(text)
        self._input, output, errors = pipes
        self._collect: dict[Any, Callable[[bytes], object]] = {
            output: self.output.extend,
            errors: self.complaints.add,
        }

    def run(self, most: float | None) -> bool:
        """Pass on what comes until the process has ended; False if it has not after `most` seconds (None: no limit)."""
        until = None if most is None else monotonic() + most
        with selectors.DefaultSelector() as selector, ExitStack() as closing:
            for pipe in self._collect:
                self._register(selector, pipe, selectors.EVENT_READ)
            self._register(selector, self._input, selectors.EVENT_WRITE)
            end = _descriptor_of(self._process)
            if end is not None:
                closing.callback(os.close, end)
                selector.register(end, selectors.EVENT_READ)
            while self._process.poll() is None:
                left = None if until is None else until - monotonic()
                if left is not None and left <= 0:
                    return False
                self._turn(selector, left if end is not None else min(LOOK_INTERVAL, left or LOOK_INTERVAL))
            for key in list(selector.get_map().values()):
                if key.data in self._collect:
                    self._read(selector, key.data, _readable(key.fd))
        self.complaints.close()
        return True

    def _register(self, selector: selectors.BaseSelector, pipe: IO[bytes], event: int) -> None:
        os.set_blocking(pipe.fileno(), False)  # this end is ours alone
        selector.register(pipe, event, pipe)

    def _turn(self, selector: selectors.BaseSelector, wait: float | None) -> None:
        for key, _ in selector.select(wait):
            if key.data is self._input:
                self._write(selector)
            elif key.data is not None:
                self._read(selector, key.data, MOST_AT_ONCE)

    def _write(self, selector: selectors.BaseSelector) -> None:
        with suppress(BlockingIOError):
            try:
                self._rest = self._rest[os.write(self._input.fileno(), self._rest[:MOST_AT_ONCE]) :]
            except (BrokenPipeError, ConnectionResetError):  # it need not read its input
                self._rest = self._rest[:0]
        if not self._rest:
            selector.unregister(self._input)
            self._input.close()

    def _read(self, selector: selectors.BaseSelector, pipe: IO[bytes], most: int) -> None:
        with suppress(BlockingIOError):
            text = os.read(pipe.fileno(), most) if most else b""
            self._collect[pipe](text)
            if not text:
                selector.unregister(pipe)


def _descriptor_of(process: "subprocess.Popen[bytes]") -> int | None:
    """Return a descriptor that becomes readable when the process ends; None where there is no such thing."""
    try:
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return None


def _readable(descriptor: int) -> int:
    """Return how many bytes are in a pipe just now."""
    (size,) = struct.unpack("=i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(size)
