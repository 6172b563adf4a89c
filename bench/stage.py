"""Processes for a measurement: started, heard, measured, and killed by their ids whatever happens."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from select import select
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START_WAIT = 30.0  # seconds; for a process to say that it is ready
LOOPBACK = "tcp://127.0.0.1:*"


class StageError(Exception):
    """A process of the measurement ended, or did not say what it should in time."""


class Process:
    """One child process that talks in lines."""

    def __init__(self, command: list[str], errors: int) -> None:
        self._name = " ".join(command[1:])
        self._unread = b""
        self._child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us alone; we end the child
        )

    @property
    def id(self) -> int:
        """The id of the process."""
        return self._child.pid

    def line(self, wait: float = START_WAIT) -> str:
        """Return the next line that the process prints; raises StageError when none comes within `wait` seconds."""
        assert self._child.stdout is not None
        until = monotonic() + wait
        while b"\n" not in self._unread:
            if not select([self._child.stdout], [], [], max(0.0, until - monotonic()))[0]:
                raise StageError(f"{self._name}: silent for {wait:g} s")
            chunk = os.read(self._child.stdout.fileno(), 4096)
            if not chunk:
                raise StageError(f"{self._name}: ended with status {self._child.wait(START_WAIT)}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def facts(self, wait: float = START_WAIT) -> dict[str, Any]:
        """Return the next line, which is a JSON object."""
        facts: dict[str, Any] = json.loads(self.line(wait))
        return facts

    def go(self) -> None:
        """Send the line that a client waits for."""
        assert self._child.stdin is not None
        self._child.stdin.write(b"go\n")

    def cpu(self) -> float | None:
        """Return the seconds of processor time it has used, all its threads together; None where that is unknown."""
        try:
            fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, see proc(5)

    def resident(self) -> int | None:
        """Return the bytes of memory it has in use; None where that is unknown."""
        try:
            pages = Path(f"/proc/{self._child.pid}/statm").read_text().split()[1]
        except OSError:
            return None
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """End the process at once; it may have ended already."""
        self._child.kill()

    def reap(self) -> None:
        """Wait for the end of a process that was killed."""
        self._child.wait(START_WAIT)
        for pipe in self._child.stdin, self._child.stdout:
            if pipe is not None:
                pipe.close()


class System(NamedTuple):
    """What is measured: the broker or the proxy."""

    process: Process
    clients: str  # the address for clients
    workers: list[str]  # the addresses for workers


class Stage:
    """The processes of one measurement, as a context that none of them outlives."""

    def __enter__(self) -> "Stage":
        self._processes: list[Process] = []
        self._errors = tempfile.TemporaryFile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StageError):
            self._errors.seek(0)
            sys.stderr.write(self._errors.read()[-4000:].decode(errors="replace"))
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.reap()
        self._errors.close()

    def start(self, *command: str) -> Process:
        """Start Python with these arguments."""
        untouchable = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # until the child is in the list to be killed
        before = signal.pthread_sigmask(signal.SIG_BLOCK, untouchable)
        try:
            process = Process([sys.executable, *command], self._errors.fileno())
            self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def start_peers(self, count: int, role: str, *arguments: str) -> list[Process]:
        """Start peers, and return them when all are ready."""
        peers = [self.start("-m", "bench.peers", role, *arguments) for _ in range(count)]
        for peer in peers:
            peer.facts()
        return peers

    def start_broker(self) -> System:
        """Start the broker with its limits on, as `./broker.py -t 3 -T 10` does."""
        broker = self.start("broker.py", "-t", "3", "-T", "10", LOOPBACK, LOOPBACK, LOOPBACK)
        requests, ready, results = (broker.line().split()[1] for _ in range(3))
        return System(broker, requests, [ready, results])

    def start_proxy(self) -> System:
        """Start the proxy."""
        proxy = self.start("-m", "bench.peers", "proxy")
        requests, tasks = proxy.facts()["addresses"]
        return System(proxy, requests, [tasks])
