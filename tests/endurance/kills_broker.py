"""The broker of `kills.py`: killed again and again, and started anew on the same addresses, with the same store."""

import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from watched_broker import PATIENCE, environment

from zmqbroker.broker.store.rows import DamagedTask
from zmqbroker.broker.store.sqlite import SqliteStore

PORTS = range(20_000, 32_000)  # below those from which connections are made: one could be made to itself
IS_SERVING = "limits "  # what it prints when it has loaded its store
COMPLAINTS = ("Traceback", "ERROR", "damaged")
RECLAIMS = (0.3, 1.0, 3.0)
DRAIN = 1.0  # seconds


class MortalBroker:
    """One process after the other, each a `zmqbroker serve`."""

    def __init__(self, directory: Path, rng: random.Random, marks: dict[str, str], tries: int, timeout: float) -> None:
        self.store = directory / "store"
        self.violations: list[str] = []
        self.deaths: list[float] = []  # when it has ended
        self.lives = 0
        ports = rng.sample(PORTS, 100)
        self.requests, self.ready, self.results = (
            rng.choice([f"ipc://{directory}/{name}", f"tcp://127.0.0.1:{_free(ports)}"])
            for name in ("requests", "ready", "results")
        )
        options = {"-t": tries, "-T": timeout, "--store": self.store, "--store-floor": 0, "--control": "none"}
        options |= {"--reclaim": rng.choice(RECLAIMS), "--drain": DRAIN}
        self.options = [str(word) for option in options.items() for word in option]
        self._directory = directory
        self._marks = marks
        self._process: subprocess.Popen[bytes] | None = None
        self._is_told_to_end = False

    @property
    def process_id(self) -> int:
        """That of the process that runs; 0: none does."""
        return self._process.pid if self.is_running and self._process is not None else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def is_serving(self) -> bool:
        """Tell whether it has said where it listens."""
        return IS_SERVING in self.output

    @property
    def output(self) -> str:
        """What its process has said."""
        return self._output.read_text(errors="replace")

    @property
    def _output(self) -> Path:
        return self._directory / f"broker.{self.lives}.output"

    def start(self) -> None:
        """Start it once more."""
        self.lives += 1
        self._is_told_to_end = False
        command = [sys.executable, "-m", "zmqbroker", "serve", *self.options]
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [*command, self.requests, self.ready, self.results],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment() | self._marks,
                start_new_session=True,
            )

    def tell_to_end(self) -> None:
        """Have it drain."""
        assert self._process is not None
        self._is_told_to_end = True
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> bool:
        """Kill it at once; tell whether it was still there."""
        if self._process is None:
            return False
        was_running = self.is_running
        self._process.kill()
        self._process.wait()
        self.deaths.append(time.monotonic())
        self._judge(may_be_killed=was_running)
        return was_running

    def end(self) -> None:
        """Have it end, and see it do so."""
        assert self._process is not None
        self.tell_to_end()
        until = time.monotonic() + PATIENCE
        while self.is_running and time.monotonic() < until:
            time.sleep(0.02)
        if self.is_running:
            self.violations.append(f"the broker did not end within {PATIENCE:g} s of SIGTERM")
        self.kill()

    def stored_keys(self) -> set[str | None]:
        """Return the keys of all that is in the store, while no broker has it."""
        store = SqliteStore(self.store, floor=0, reserve=0)
        found = [task for some in store.load() for task in some]
        store.close()
        return {task.key if isinstance(task, DamagedTask) else task.request.key for task in found}

    def _judge(self, may_be_killed: bool) -> None:
        """Look at how a life has ended, and what was said in it."""
        assert self._process is not None
        status, output = self._process.returncode, self.output
        self._process = None
        expected = (-signal.SIGKILL,) if may_be_killed else ()
        if self._is_told_to_end:  # before it heeds signals it ends by them
            expected += (0, *(() if IS_SERVING in output else (-signal.SIGTERM,)))
        if status not in expected:
            self.violations.append(f"the broker ended with status {status}: {output[-600:]}")
        elif any(word in output for word in COMPLAINTS):
            self.violations.append(f"the broker said: {output[-1000:]}")


def _free(ports: list[int]) -> int:
    """Return a port that nobody listens on, and take it off the list."""
    while True:
        port = ports.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
