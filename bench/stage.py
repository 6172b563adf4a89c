"""Processes for a measurement: started, heard, measured, and killed by their ids whatever happens."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from select import select
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

from bench.processes import descendants, end_adopted, kill_all, processor_time, resident_memory

ROOT = Path(__file__).resolve().parent.parent
START_WAIT = 30.0  # seconds; for a process to say that it is ready
MOST_ERRORS = 4000  # bytes shown
LOOPBACK = "tcp://127.0.0.1:*"


class StageError(Exception):
    """A process of the measurement ended, or did not say what it should in time."""


class Process:
    """One child process; one that `talks` does so in lines, what others print counts as errors."""

    def __init__(
        self, command: list[str], errors: int, talks: bool, environment: Mapping[str, str], name: str | None
    ) -> None:
        self._name = name or " ".join(command[1:])
        self._unread = b""
        self._child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if talks else errors,
            stderr=errors,
            bufsize=0,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is for us alone; we end the child
        )

    @property
    def id(self) -> int:
        """The id of the process."""
        return self._child.pid

    def has_ended(self) -> bool:
        """Return whether it has."""
        return self._child.poll() is not None

    def line(self, wait: float = START_WAIT) -> str:
        """Return the next line that the process prints; raises StageError when none comes within `wait` seconds."""
        assert self._child.stdout is not None
        until = monotonic() + wait
        while b"\n" not in self._unread:
            if not select([self._child.stdout], [], [], max(0.0, until - monotonic()))[0]:
                raise StageError(f"{self._name}: silent for {wait:g} s")
            chunk = os.read(self._child.stdout.fileno(), 4096)
            if not chunk:
                raise self._end()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def has_line(self) -> bool:
        """Return whether `line` has something to return, or to raise, at once."""
        assert self._child.stdout is not None
        return bool(self._unread or select([self._child.stdout], [], [], 0)[0])

    def facts(self, wait: float = START_WAIT) -> dict[str, Any]:
        """Return the next line, which is a JSON object."""
        facts: dict[str, Any] = json.loads(self.line(wait))
        return facts

    def go(self, line: str = "go") -> None:
        """Send the line that a client waits for; raises StageError when it has ended."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise self._end() from None

    def cpu(self) -> float | None:
        """Return the seconds of processor time it has used, all its threads together; None where that is unknown."""
        return processor_time([self.id])

    def resident(self) -> int | None:
        """Return the bytes of memory it has in use; None where that is unknown."""
        return resident_memory([self.id])

    def kill(self) -> None:
        """End the process and those it has started at once; they may have ended already."""
        started = descendants(self.id)
        self._child.kill()
        kill_all(started)

    def reap(self) -> None:
        """Wait for the end of a process that was killed."""
        self._child.wait(START_WAIT)
        for pipe in self._child.stdin, self._child.stdout:
            if pipe is not None:
                pipe.close()

    def _end(self) -> StageError:
        return StageError(f"{self._name}: ended with status {self._child.wait(START_WAIT)}")


class System(NamedTuple):
    """What is measured: the broker or the proxy."""

    process: Process
    clients: str  # the address for clients
    workers: list[str]  # the addresses for workers
    control: str = ""  # the address for askers; empty: there is none


class Stage:
    """The processes of one measurement, as a context that none of them outlives."""

    def __enter__(self) -> "Stage":
        self._processes: list[Process] = []
        self._others = set(descendants(os.getpid()))
        self._errors = tempfile.TemporaryFile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StageError):
            sys.stderr.write(self._read_errors())
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.reap()
        end_adopted(self._others)
        self._errors.close()

    def last_error(self) -> str:
        """Return the last line that the processes have printed to their errors; empty when there is none."""
        return (self._read_errors().strip().splitlines() or [""])[-1]

    def _read_errors(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), MOST_ERRORS, max(0, size - MOST_ERRORS)).decode(errors="replace")

    def start(self, *command: str) -> Process:
        """Start Python with these arguments."""
        return self.start_program(sys.executable, *command)

    def start_program(
        self,
        *command: str,
        talks: bool = True,
        environment: Mapping[str, str] = MappingProxyType({}),
        name: str | None = None,
    ) -> Process:
        """Start any program, with variables added to the environment. `name` is for errors; None: its arguments."""
        untouchable = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # until the child is in the list to be killed
        before = signal.pthread_sigmask(signal.SIG_BLOCK, untouchable)
        try:
            process = Process(list(command), self._errors.fileno(), talks, environment, name)
            self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def start_peers(self, count: int, role: str, *arguments: str) -> list[Process]:
        """Start peers, and return them when all are ready."""
        peers = [self.start("-m", "bench.roles", role, *arguments) for _ in range(count)]
        for peer in peers:
            peer.facts()
        return peers

    def start_broker(self, *more: str) -> System:
        """Start the broker with its limits on, as `./broker.py -t 3 -T 10` does, and more options."""
        options = ["-t", "3", "-T", "10", "--control", LOOPBACK, *more]
        broker = self.start("broker.py", *options, LOOPBACK, LOOPBACK, LOOPBACK)
        requests, ready, results, _, control = (broker.line().split()[1] for _ in range(5))
        return System(broker, requests, [ready, results], control)

    def start_proxy(self) -> System:
        """Start the proxy."""
        proxy = self.start("-m", "bench.roles", "proxy")
        requests, tasks = proxy.facts()["addresses"]
        return System(proxy, requests, [tasks])
