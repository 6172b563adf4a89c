"""The log on stderr neither waits nor fails, whatever is at the other end; what is lost is counted."""

import fcntl
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import combinations
from pathlib import Path

import pytest
from helpers import PATIENCE, TOP, wait_until

from zmqbroker.transport.stderr_log import StderrHandler

NOT_LOGGED = re.compile(r"\((\d+) lines before this one could not be logged\)")
LONG = "x" * 10_000  # more than a pipe takes at once
LONGEST = "y" * 1_000_000  # more than a pipe holds

Ends = tuple[int, int]


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as closing:
        yield closing


def log_of(descriptor: int) -> logging.Logger:
    log = logging.Logger("test.stderr")
    log.addHandler(StderrHandler(descriptor))
    return log


def pipe(_: Path) -> Ends:
    return os.pipe()


def terminal(_: Path) -> Ends:
    return pty.openpty()


def stream_socket(_: Path) -> Ends:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def datagram_socket(_: Path) -> Ends:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return reader.detach(), writer.detach()


def fifo(directory: Path) -> Ends:
    path = str(directory / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return reader, os.open(path, os.O_WRONLY)


KINDS = [pipe, terminal, stream_socket, datagram_socket, fifo]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def ends(request: pytest.FixtureRequest, tmp_path: Path, closing: ExitStack) -> Ends:
    reader, writer = request.param(tmp_path)
    for end in (reader, writer):
        closing.callback(close, end)
    return reader, writer


def close(descriptor: int) -> None:
    with suppress(OSError):  # the test has closed it
        os.close(descriptor)


class Reader:
    """What was read so far, at last."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._data = b""

    @property
    def text(self) -> str:
        return self._data.decode().replace("\r\n", "\n")

    def read(self) -> None:
        """Read what there is."""
        with suppress(BlockingIOError):
            while more := os.read(self._descriptor, 1 << 20):
                self._data += more

    def read_until(self, end: str) -> str:
        """Read until that comes last, and return all since the beginning."""
        wait_until(lambda: self.read() or self.text.endswith(end))  # type: ignore[func-returns-value]
        return self.text

    def expect(self, text: str) -> None:
        """See that this and no more is read."""
        assert self.read_until(text) == text


@pytest.mark.parametrize("text", ["short", LONG], ids=["short", "long"])
def test_a_log_that_nobody_reads_goes_on_and_says_what_was_lost(ends: Ends, text: str):
    log, reader = log_of(ends[1]), Reader(ends[0])
    for number in range(20_000):
        log.warning("%d %s", number, text)
    reader.read()
    logged = 20_000

    def says_so() -> bool:
        nonlocal logged
        log.warning("the next %s", text)
        logged += 1
        reader.read()
        return NOT_LOGGED.search(reader.text) is not None

    def there_is_room() -> bool:
        """Log short lines until one was read: all before it has been, though a terminal passes things on late."""
        nonlocal logged
        logged += 1
        log.warning("short of the last: %d", logged)
        reader.read()
        return re.search(r"\nshort of the last: \d+\n", reader.text) is not None

    wait_until(says_so)
    wait_until(there_is_room)
    log.warning("the last")
    lines = reader.read_until("the last\n").splitlines()[:-1]
    assert lines[0] == f"0 {text}"
    said = [int(number) for number in NOT_LOGGED.findall(reader.text)]
    whole = sum(
        bool(re.fullmatch(rf"((\d+|the next) {text}|short of the last: \d+)( \(.*\))?", line)) for line in lines
    )
    assert any(
        logged <= lost + whole <= logged + 1 + again  # one that lacked no more than its end counts as both
        for lost, again in readings(said)
    ), (logged, said, whole)


def readings(said: list[int]) -> Iterator[tuple[int, int]]:
    """Yield how many lines were lost, and how many of these numbers were said again, in each way to read them.

    What was said by a line that lacked its end is said again by the next one, which counts that line too; but a greater
    number may also be of lines that were lost later.
    """
    perhaps = [number for number, following in zip(said, [*said[1:], 0], strict=True) if following > number]
    for count in range(len(perhaps) + 1):
        for again in combinations(perhaps, count):
            yield sum(said) - sum(again), count


def test_a_line_of_any_length_is_whole_or_cut_and_the_next_begins_a_line(ends: Ends):
    log, reader = log_of(ends[1]), Reader(ends[0])
    log.warning("%s", LONGEST)

    def says_so() -> bool:
        reader.read()
        log.warning("the next")
        return "could not be logged" in reader.text

    wait_until(says_so)
    first, second = reader.text.splitlines()[:2]
    assert set(first) == {"y"}
    assert second.startswith("the next (")


def test_the_descriptor_itself_stays_as_it_was(ends: Ends):
    _, writer = ends
    before = fcntl.fcntl(writer, fcntl.F_GETFL)
    log_of(writer).warning("a line")
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == before


def test_who_reads_may_leave(ends: Ends):
    reader, writer = ends
    log = log_of(writer)
    log.warning("one")
    os.close(reader)
    log.warning("two")
    log.warning(LONGEST)


def test_a_pipe_that_cannot_be_opened_again_is_asked_for_room(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError

    reader, writer = os.pipe()
    monkeypatch.setattr(os, "open", refuse)
    log = log_of(writer)
    for number in range(300):
        log.warning("%d %s", number, LONG)
    read = Reader(reader)
    read.read()
    assert read.text.startswith(f"0 {LONG}\n1 ")
    log.warning("the next")
    read.read()
    assert NOT_LOGGED.search(read.text)
    for end in (reader, writer):
        os.close(end)


def test_a_full_disk_and_a_descriptor_that_was_closed_end_nothing():
    full = os.open("/dev/full", os.O_WRONLY)
    log = log_of(full)
    log.warning("one")
    os.close(full)
    log.warning("two")


def test_a_file_gets_all_of_it(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("ab") as file:
        log = log_of(file.fileno())
        log.warning("%s", LONGEST)
        log.warning("\udcff\N{SNOWMAN}")
    first, second = path.read_text().splitlines()
    assert (first, second[:5]) == (LONGEST, "\\udcf")


def test_arguments_that_do_not_fit_are_a_line_that_is_lost(ends: Ends):
    reader, writer = ends
    log = log_of(writer)
    log.warning("%d", "no number")
    log.warning("the next")
    assert (
        Reader(reader).read_until("the next (1 lines before this one could not be logged)\n")
        == "the next (1 lines before this one could not be logged)\n"
    )


def test_the_end_of_the_log_says_what_was_lost_before(ends: Ends):
    reader, writer = ends
    log = log_of(writer)
    log.warning("%d", "no number")
    log.handlers[0].close()
    assert (
        Reader(reader).read_until("the log ends (1 lines before this one could not be logged)\n")
        == "the log ends (1 lines before this one could not be logged)\n"
    )


def test_a_signal_handler_may_log_in_the_middle_of_a_line(ends: Ends, monkeypatch: pytest.MonkeyPatch):
    reader, writer = ends
    log = log_of(writer)
    handler = log.handlers[0]
    put: Callable[[bytes], int] = handler._put  # type: ignore[attr-defined]
    before = signal.signal(signal.SIGUSR1, lambda *_: log.warning("from the handler"))

    def interrupted(line: bytes) -> int:
        if line.startswith(b"first"):
            signal.raise_signal(signal.SIGUSR1)
        return put(line)

    monkeypatch.setattr(handler, "_put", interrupted)
    try:
        log.warning("first")
    finally:
        signal.signal(signal.SIGUSR1, before)
    log.warning("last")
    Reader(reader).expect("first\nfrom the handler\nlast\n")


def test_a_stderr_that_is_closed_is_not_written_to():
    program = """
import logging, os, sys
from zmqbroker.transport.stderr_log import log_to_stderr
assert sys.stderr is None
assert os.open(os.devnull, os.O_RDWR) == 2
reader, writer = os.pipe()
os.dup2(writer, 2)
log_to_stderr(logging.INFO)
logging.warning("to whom?")
os.set_blocking(reader, False)
try:
    os.read(reader, 1)
except BlockingIOError:
    print("nothing")
"""
    shell = f'exec {sys.executable} -c "$0" 2>&-'
    done = subprocess.run(["sh", "-c", shell, program], cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "nothing\n"
