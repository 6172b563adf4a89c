"""The programs at the top of the tree as subprocesses, for tests and for the demo.

Whoever waits for a program waits for a line of its output or for its end, always with a bound.
"""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

TOP = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds; a wait that takes longer has failed


class Program:
    """A program of ours that runs, and the lines it has printed so far, stdout and stderr as they came."""

    def __init__(
        self,
        script: str,
        *arguments: object,
        on_line: Callable[[str], None] | None = None,
        python: Path = Path(sys.executable),
    ) -> None:
        """Start `script`, a path below the top of the tree, in a session of its own: Ctrl-C does not reach it."""
        self.lines: list[str] = []
        self._on_line = on_line
        self._changed = threading.Condition()
        self._closed = False
        self.process = subprocess.Popen(
            [str(python), str(TOP / script), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All that was printed so far."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Return the match of the line that is the given one of those that the pattern is found in."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._find(pattern)) >= times, PATIENCE)
            found = self._find(pattern)
        if len(found) < times:
            raise AssertionError(f"{pattern!r} was seen {len(found)} times, not {times}, in:\n{self.output}")
        return found[times - 1]

    def wait(self) -> int:
        """Wait for the program's own end, and return its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the program a signal, wait for its end, and return its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def clean_up(self) -> None:
        """Make sure that the program has ended: it gets a chance to end what it has started itself."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.wait()

    def _find(self, pattern: str) -> list[re.Match[str]]:
        return [match for line in self.lines if (match := re.search(pattern, line))]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
                if self._on_line is not None:
                    self._on_line(line)
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells: look again many times a second, for a bounded time."""
    until, pause = monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert monotonic() < until, "waited in vain"
        pause.wait(0.02)


def bound_addresses(broker: Program) -> tuple[str, str, str]:
    """Return the addresses for requests, for ready workers and for results that a broker says it listens on."""
    requests, ready, results = (broker.wait_for(rf"^{name} +(\S+)$")[1] for name in ("requests", "ready", "results"))
    return requests, ready, results
