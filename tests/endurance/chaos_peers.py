"""The processes of `chaos.py`: started, stopped, continued, killed, replaced, and at the end all gone.

Each carries a mark in its environment, and so do those that it starts itself: so all of them are found, and nobody
else's.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chaos_tasks import JOURNALS, NAME, SEED
from watched_broker import environment

HERE = Path(__file__).resolve().parent
MARK = "ZMQBROKER_CHAOS_RUN"
PATIENCE = 10.0  # seconds in which who was killed is gone
LONGEST_ABSENCE = 1.0  # seconds between the end of a process and its replacement
ENDS_AS_TOLD = (0, -signal.SIGTERM, -signal.SIGKILL)


class Peer:
    """A place for one process after another, all of them of one kind."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.lives = 0  # processes started so far
        self.start_at: float | None = 0.0  # when the next process is due; None: one runs
        self.process: subprocess.Popen[bytes] | None = None
        self.was_told_to_end = False
        self._command = command

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def errors(self) -> str:
        """The name of the file with what this process said on stderr."""
        return f"{self.name}.{self.lives}.errors"

    def start(self, directory: Path, marks: dict[str, str]) -> None:
        """Start its next process, which has a pipe as its stdin."""
        self.lives += 1
        self.start_at = None
        self.was_told_to_end = False
        life = f"{self.name}-{self.lives}"
        command = [life if word == "{life}" else word for word in self._command]
        with open(directory / self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                cwd=HERE,
                env=environment() | marks | {NAME: life},
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; if that is to end it, note so."""
        assert self.process is not None
        self.was_told_to_end |= number in (signal.SIGKILL, signal.SIGTERM)
        self.process.send_signal(number)

    def close_stdin(self) -> None:
        """Tell it to finish, if it is a client."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


class Crew:
    """All peers of a run."""

    def __init__(self, directory: Path, seed: int, rng: random.Random) -> None:
        self.directory = directory
        self.run = f"{os.getpid()}-{time.monotonic_ns()}"
        self.marks = {MARK: self.run, SEED: str(seed), JOURNALS: str(directory)}
        self.workers: list[Peer] = []
        self.clients: list[Peer] = []
        self.vandals: list[Peer] = []
        self.violations: list[str] = []
        self.dead_clients: set[int] = set()  # process ids
        self._rng = rng
        self._stopped: list[tuple[float, int]] = []  # until when, process id

    @property
    def all(self) -> list[Peer]:
        return [*self.workers, *self.clients, *self.vandals]

    def tend(self, peers: Sequence[Peer], now: float) -> None:
        """Continue what was stopped for long enough, note what has ended, start what is due."""
        for until, process_id in [entry for entry in self._stopped if entry[0] <= now]:
            self._stopped.remove((until, process_id))
            self._signal_process(process_id, signal.SIGCONT)
        for peer in peers:
            if peer.start_at is None and not peer.is_running:
                self.bury(peer)
                peer.start_at = now + self._rng.uniform(0, LONGEST_ABSENCE)
            if peer.start_at is not None and peer.start_at <= now:
                peer.start(self.directory, self.marks)

    def bury(self, peer: Peer) -> None:
        """Note how a process has ended, unless it was noted; a client is to end as it was told, a worker may die."""
        if peer.process is None:
            return
        peer.close_stdin()
        status = peer.process.wait()
        if peer in self.clients and (status or peer.was_told_to_end):
            self.dead_clients.add(peer.process.pid)
        may_die = peer in self.workers or peer.was_told_to_end
        if status not in (ENDS_AS_TOLD if may_die else (0,)):
            text = (self.directory / peer.errors).read_text(errors="replace").strip()[-600:]
            self.violations.append(f"{peer.name} ended by itself with status {status}: {text}")
        peer.process = None

    def stop(self, process_id: int, until: float) -> None:
        """Stop a process until an instant."""
        if self._signal_process(process_id, signal.SIGSTOP):
            self._stopped.append((until, process_id))

    def is_stopped(self, process_id: int) -> bool:
        """Tell whether a process is stopped at present."""
        return any(stopped == process_id for _, stopped in self._stopped)

    def continue_all(self) -> None:
        """Let everybody run who was stopped."""
        self.tend((), float("inf"))

    def children(self, peer: Peer) -> list[int]:
        """Return the processes that a peer has started, as `zmqbroker work` does."""
        assert peer.process is not None
        children: list[int] = []
        with suppress(OSError):
            for thread in Path(f"/proc/{peer.process.pid}/task").iterdir():
                children += map(int, (thread / "children").read_text().split())
        return children

    def kill_process(self, process_id: int) -> None:
        """Kill a process, if it is one of this run."""
        self._signal_process(process_id, signal.SIGKILL)

    def end_workers(self) -> None:
        """Tell the workers to end, all of them at once, and kill who does not."""
        for peer in self.workers:
            if peer.is_running:
                peer.signal(signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        while any(peer.is_running for peer in self.workers) and time.monotonic() < until:
            time.sleep(0.05)
        for peer in self.workers:
            if peer.is_running:
                self.violations.append(f"{peer.name} did not end within {PATIENCE:g} s after SIGTERM")
                peer.signal(signal.SIGKILL)
            self.bury(peer)

    def kill_all(self, spared: int) -> list[int]:
        """Kill all that is left of this run, but for one; return the processes that nobody knew any more."""
        self.continue_all()
        for peer in self.all:
            if peer.is_running:
                peer.signal(signal.SIGKILL)
            if peer.process is not None:
                peer.close_stdin()
                peer.process.wait()
                peer.process = None
        until = time.monotonic() + PATIENCE  # what a killed `zmqbroker work` has left behind leaves by itself
        while (left := self._processes() - {spared}) and time.monotonic() < until:
            time.sleep(0.05)
        for process_id in left:
            self.kill_process(process_id)
        return sorted(left)

    def _processes(self) -> set[int]:
        """Return all processes with this run's mark."""
        return {int(name) for name in os.listdir("/proc") if name.isdecimal() and self._is_ours(int(name))}

    def _is_ours(self, process_id: int) -> bool:
        mark = f"{MARK}={self.run}".encode()
        try:
            return mark in Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def _signal_process(self, process_id: int, number: signal.Signals) -> bool:
        if not self._is_ours(process_id):
            return False
        with suppress(ProcessLookupError):
            os.kill(process_id, number)
        return True
