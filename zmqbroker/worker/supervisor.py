"""Processes of one kind, kept running: one that ends is replaced, until the supervisor is told to stop.

Each process has one end of a socket pair, its lifeline. There it says READY, or why it cannot start, and later why it
cannot go on, which the others cannot either. FINISH tells it to
leave when it is done with what it has in hand, AT_ONCE not to wait for that. The end of file means that the supervisor
is gone, however that came about, and is as good as FINISH.
"""

import logging
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from zmqbroker.transport.alarm import Alarm
from zmqbroker.worker.command import ending, kill_group

READY = b"ready"  # what a process says that has started; anything else, before or after it, is why it cannot go on
FINISH = b"f"
AT_ONCE = b"a"
FIRST_DELAY = 0.1  # seconds between a crash and the replacement; doubled with each crash in a row
LONGEST_DELAY = 30.0  # seconds
LONG_LIFE = 10.0  # seconds; a process that lived as long did not crash at once
GRACE = 5.0  # seconds to leave for who was told to leave at once

log = logging.getLogger("zmqbroker.supervisor")


class CannotStartError(Exception):
    """A process said that it cannot start, or cannot go on. Its text says why."""


class Process:
    """A process that runs, and its lifeline."""

    def __init__(self, arguments: Sequence[str], now: float) -> None:
        """Start it in a session of its own, which Ctrl-C does not reach; its last argument is the lifeline's number."""
        self.started_at = now
        self.is_starting = True
        self.said = b""
        self.lifeline, theirs = socket.socketpair()
        self.lifeline.setblocking(False)
        with theirs:
            number = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    [*arguments, str(number)], stdin=subprocess.DEVNULL, pass_fds=[number], start_new_session=True
                )
            except OSError:
                self.lifeline.close()
                raise
        self.pid = self._process.pid

    @property
    def was_ready(self) -> bool:
        """Tell whether it said so."""
        return self.said.startswith(READY)

    @property
    def complaint(self) -> str:
        """Return why it cannot start or go on; nothing if it did not say."""
        return self.said.removeprefix(READY).decode(errors="replace")

    def listen(self) -> None:
        """Take in what it says."""
        with suppress(OSError):  # nothing now; or it is gone, which is seen elsewhere
            text = self.lifeline.recv(65536)
            self.said += text
            self.is_starting = bool(text) and not self.was_ready

    def end(self) -> int | None:
        """Return the exit status, or minus the signal; None while it runs."""
        status = self._process.poll()
        if status is not None:
            self.listen()
            self.lifeline.close()
        return status

    def tell(self, word: bytes) -> None:
        """Say FINISH or AT_ONCE; a process that is still starting has nothing in hand, and just ends."""
        with suppress(OSError):
            self.lifeline.send(word)
        if self.is_starting:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it with its group."""
        kill_group(self._process)


class Place:
    """A place for one process after another."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.start_at = 0.0  # when there is none: not before this
        self.delay = 0.0  # between the last crash and the start after it


class Supervisor:
    """Keeps a number of processes running. Its `run` belongs into the main thread."""

    def __init__(self, arguments: Sequence[str], processes: int, name: str) -> None:
        """Prepare to run `arguments` in so many processes; `name` is what the log calls what they do."""
        self._arguments = arguments
        self._name = name
        self._places = [Place() for _ in range(processes)]
        self._is_proven = False  # a process has started, so the others can
        self._complaint = ""  # of a process that could not go on
        self._alarm = Alarm()
        self._stops_asked = 0
        self._stops_done = 0
        self._kill_at: float | None = None

    def run(self) -> None:
        """Keep the processes running until stopped, and return when all have ended.

        The first one is started alone. Raises CannotStartError when it says that it cannot, and in the end when one
        says that it cannot go on.
        """
        try:
            with self._alarm.rung_by_signals(), _ends_of_children_ring():
                while True:
                    now = time.monotonic()
                    self._stop_further(now)
                    for place in self._places:
                        self._bury(place, now)
                    if self._stops_done and not self._processes():
                        break
                    self._start(now)
                    self._wait(self._next_at(), now)
        finally:
            for process in self._processes():
                process.kill()
            self._alarm.close()
        if self._complaint:
            raise CannotStartError(self._complaint)
        log.info("ended")

    def stop(self) -> None:
        """Let the processes finish what they have in hand; asked again, end them at once. For a signal handler."""
        self._stops_asked += 1
        self._alarm.ring()

    def _processes(self) -> list[Process]:
        return [place.process for place in self._places if place.process is not None]

    def _stop_further(self, now: float) -> None:
        """Do what `stop` asked for since."""
        if self._stops_done == 0 and self._stops_asked >= 1:
            self._stops_done = 1
            log.info("ending when the tasks in hand are done; a second signal ends them at once")
            for process in self._processes():
                process.tell(FINISH)
        if self._stops_done == 1 and self._stops_asked >= 2:
            self._stops_done = 2
            self._kill_at = now + GRACE
            for process in self._processes():
                process.tell(AT_ONCE)
        if self._kill_at is not None and now >= self._kill_at:
            for process in self._processes():
                log.warning("process %d does not end: killed", process.pid)
                process.kill()
            self._kill_at = None

    def _bury(self, place: Place, now: float) -> None:
        """Empty a place whose process has ended, and see when the next one is due there."""
        process = place.process
        status = None if process is None else process.end()
        if process is None or status is None:
            return
        place.process = None
        if self._stops_done:
            return
        if process.complaint and process.was_ready:
            self._complaint = process.complaint
            self.stop()
            return
        if process.complaint and not self._is_proven:
            raise CannotStartError(process.complaint)
        if status == 0 and process.was_ready:
            log.debug("process %d has done its share", process.pid)
            place.start_at, place.delay = now, 0.0
        else:
            end = process.complaint or ending(status)
            self._delay(place, f"process {process.pid} crashed: {end}", now, now - process.started_at)

    def _delay(self, place: Place, what: str, now: float, life: float) -> None:
        """Say what happened to a process after a life of so many seconds, and when the next one will start."""
        place.delay = 0.0 if life >= LONG_LIFE else min(max(2 * place.delay, FIRST_DELAY), LONGEST_DELAY)
        place.start_at = now + place.delay
        log.warning("%s; another one starts %s", what, f"in {place.delay:g} s" if place.delay else "at once")

    def _start(self, now: float) -> None:
        """Start what is due."""
        for place in self._open_places():
            if place.process is None and place.start_at <= now:
                try:
                    place.process = Process(self._arguments, now)
                except OSError as error:
                    self._delay(place, f"cannot start a process: {error.strerror}", now, 0.0)
                else:
                    log.debug("process %d starts", place.process.pid)

    def _open_places(self) -> list[Place]:
        """Return where processes are to run: nowhere once stopped, and first of all in one place only."""
        return [] if self._stops_done else self._places if self._is_proven else self._places[:1]

    def _next_at(self) -> float | None:
        """Return when there is something to do, come what may."""
        due = [place.start_at for place in self._open_places() if place.process is None]
        if self._kill_at is not None:
            due.append(self._kill_at)
        return min(due, default=None)

    def _wait(self, until: float | None, now: float) -> None:
        """Wait for a signal, for a process to start or to end, or for an instant."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._alarm, selectors.EVENT_READ)
            for process in self._processes():
                if process.is_starting:
                    selector.register(process.lifeline, selectors.EVENT_READ, process)
            for key, _ in selector.select(None if until is None else max(0.0, until - now)):
                if key.data is not None:
                    key.data.listen()
        self._alarm.hear()
        if not self._is_proven and any(process.was_ready for process in self._processes()):
            self._is_proven = True
            plural = "es" if len(self._places) > 1 else ""
            log.info("%d process%s for %s", len(self._places), plural, self._name)


@contextmanager
def _ends_of_children_ring() -> Iterator[None]:
    """Have a Python handler for SIGCHLD: without one the signal would not wake anybody."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
