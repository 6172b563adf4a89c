"""A broker whose output nobody reads, or whose terminal has gone, goes on serving."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from conftest import Peers, PlainWorker
from helpers import PATIENCE, TOP, wait_until


class Unread(Peers):
    """A broker with the standard streams that it is given, and peers of it."""

    def __init__(self, directory: Path, **streams: Any) -> None:
        super().__init__()
        self._addresses = [f"ipc://{directory}/{name}" for name in ("requests", "ready", "results")]
        command = [sys.executable, "broker.py", "-v", "--drain", "3600", *self._addresses]
        self.process = subprocess.Popen(
            command, cwd=TOP, **({"stdin": subprocess.DEVNULL, "start_new_session": True} | streams)
        )
        self.client = self.open(zmq.REQ, self._addresses[0])
        self.worker = PlainWorker(
            self.open(zmq.REQ, self._addresses[1]), self.open(zmq.PUSH, self._addresses[2], linger=1000)
        )

    def do(self, tasks: int) -> None:
        """Have so many tasks done."""
        for _ in range(tasks):
            self.client.send(b"task")
            self.worker.echo()
            assert self.client.recv() == b"task"

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        super().close()


@pytest.fixture
def full() -> Iterator[tuple[int, int]]:
    """Return the ends of a pipe that is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(writer, size * b"\n")
    os.set_blocking(writer, True)
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):
            os.close(end)


def test_a_log_that_nobody_reads_holds_up_no_task_and_says_so_later(tmp_path: Path, full: tuple[int, int]):
    reader, writer = full
    os.set_blocking(reader, False)
    text = b""

    def says_so() -> bool:
        nonlocal text
        with suppress(BlockingIOError):
            while more := os.read(reader, 1 << 16):
                text += more
        unread.do(1)
        return b"could not be logged)" in text

    with Unread(tmp_path, stdout=subprocess.DEVNULL, stderr=writer) as unread:
        unread.do(50)
        wait_until(says_so)
        assert unread.end() == 0


def test_a_stdout_that_nobody_reads_holds_up_no_task(tmp_path: Path, full: tuple[int, int]):
    _, writer = full
    with Unread(tmp_path, stdout=writer, stderr=subprocess.DEVNULL) as unread:
        unread.do(3)
        assert unread.end() == 2


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_who_reads_may_leave(tmp_path: Path, name: str):
    reader, writer = os.pipe()
    os.close(reader)
    with Unread(tmp_path, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, name: writer}) as unread:
        os.close(writer)
        unread.do(3)
        assert unread.end() == (2 if name == "stdout" else 0)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_disk_may_be_full(tmp_path: Path, name: str):
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with open("/dev/full", "wb") as full, Unread(tmp_path, **(streams | {name: full})) as unread:
        unread.do(3)
        assert unread.end() == (2 if name == "stdout" else 0)


def test_a_terminal_that_has_gone_away_holds_up_no_task(tmp_path: Path):
    ours, theirs = pty.openpty()
    with Unread(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs) as unread:  # not its own, so it is not hung up
        os.close(theirs)
        unread.do(3)
        os.close(ours)
        unread.do(3)
        assert unread.end() == 2


def test_a_broker_whose_terminal_is_closed_drains(tmp_path: Path):
    ours, theirs = pty.openpty()
    log = tmp_path / "log"

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with log.open("wb") as file:
        unread = Unread(tmp_path, stdin=theirs, stdout=theirs, stderr=file, preexec_fn=take_terminal)
    with unread:
        os.close(theirs)
        unread.do(1)
        unread.client.send(b"the last")
        attempt_id, _ = unread.worker.take()
        os.close(ours)
        wait_until(lambda: "draining: 1 task" in log.read_text())
        unread.worker.reply(attempt_id, b"done")
        assert unread.client.recv() == b"done"
        unread.process.wait(PATIENCE)
        assert "SIGHUP: ending when what was accepted is done" in log.read_text()


def test_a_terminal_that_is_halted_holds_up_no_task(tmp_path: Path):
    ours, theirs = pty.openpty()
    with Unread(tmp_path, stdout=subprocess.DEVNULL, stderr=theirs) as unread:
        unread.do(1)
        termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
        unread.do(1000)
        termios.tcflow(theirs, termios.TCOON)
        assert unread.end() == 0
    for end in (ours, theirs):
        os.close(end)
