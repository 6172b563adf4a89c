"""Processes of one kind, kept running: one that ends is replaced, until the supervisor is told to stop."""

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf

from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.notify import ServiceManager
from zmqbroker.worker.command import ending
from zmqbroker.worker.lifeline import AT_ONCE, FINISH, LEAVE_WITHIN, Process, Program, reap_others
from zmqbroker.worker.limits import Limits
from zmqbroker.worker.watch import Failures, Watch

FIRST_DELAY = 0.1  # seconds between a crash and the replacement; doubled with each crash in a row
LONGEST_DELAY = 30.0  # seconds
LONG_LIFE = 10.0  # seconds; a process that lived as long did not crash at once
SILENCE = 1.0  # seconds to end for who can say nothing more
GRACE = 5.0  # seconds to leave for who was told to leave at once
LONGEST_NAME = 100  # characters

log = logging.getLogger("zmqbroker.supervisor")


class CannotStartError(Exception):
    """A process said that it cannot start, or cannot go on. Its text says why."""


class Place:
    """A place for one process after another."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.start_at = 0.0  # when there is none: not before this
        self.delay = 0.0  # between the last crash and the start after it


@dataclass
class Totals:
    """What processes have done; a body of a chunk counts as a task."""

    handled: int = 0
    failed: int = 0
    crashes: int = 0
    hung: int = 0

    def count(self, process: Process) -> None:
        """Add what a process has done so far."""
        handled, failed = process.slot.counts()
        self.handled += handled
        self.failed += failed

    def __str__(self) -> str:
        tasks = f"{self.handled - self.failed} tasks done, {self.failed} failed"
        return f"{tasks}, {self.crashes} processes crashed, {self.hung} hung"


class Supervisor:
    """Keeps a number of processes running. Its `run` belongs into the main thread."""

    def __init__(
        self, program: Program, processes: int, name: str, limits: Limits, tell: Callable[[Failures], object]
    ) -> None:
        """Prepare to run a program in so many processes; `name` is what the log calls what they do.

        They start in what is the current directory now, also if another one has taken its place. `tell` has the broker
        know why attempts failed whose process was killed by the `limits`, or has died.
        """
        directory = None  # what is gone is found out by who needs it
        with suppress(OSError):
            directory = os.getcwd()
        self.service_manager = ServiceManager()  # who hears how `run` goes on: nobody, if it was not set before
        self._program = program._replace(directory=directory)
        self._name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
        self._watch = Watch(limits, tell)
        self._look_at = inf  # at the tasks in hand
        self._places = [Place() for _ in range(processes)]
        self._leaving: list[Process] = []  # in no place any more
        self._totals = Totals()  # of the processes that are gone
        self._is_proven = False  # a process has started, so the others can
        self._has_reached = False  # a process has reached a broker
        self._complaint = ""  # of a process that could not go on
        self._alarm = Alarm()
        self._why = ""  # it was to stop
        self._stops_asked = 0
        self._stops_done = 0
        self._reports_asked = 0
        self._reports_done = 0
        self._kill_at = inf

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
                    self._look_at = self._watch.look(self._processes(), now)
                    self._bury_all(now)
                    self._report()
                    if self._stops_done and not self._processes():
                        break
                    self._start(now)
                    if self.service_manager.due <= now:
                        self.service_manager.tell_alive(now)
                    self._wait(self._next_at(), now)
        finally:
            for process in self._processes():
                process.kill()
            self._alarm.close()
        if self._complaint:
            raise CannotStartError(self._complaint)
        log.info("ended")

    def stop(self, why: str = "") -> None:
        """Let the processes finish what they have in hand; asked again, end them at once. For a signal handler.

        `why` is said in the log, even with --quiet.
        """
        self._why = why
        self._stops_asked += 1
        self._alarm.ring()

    def report(self) -> None:
        """Have a line logged that says what the processes have done so far. For a signal handler."""
        self._reports_asked += 1
        self._alarm.ring()

    def describe(self) -> str:
        """Return how many processes run, and what they have done."""
        return f"{len(self._running())} of {len(self._places)} processes run; {self._all_done()}"

    def _report(self) -> None:
        """Say what the processes have done, if somebody has asked since."""
        if self._reports_done == self._reports_asked:
            return
        self._reports_done = self._reports_asked
        each = [f"{process.pid}: {process.slot.counts()[0]}" for process in self._running()]
        what = f"{len(each)} of {len(self._places)} processes run (tasks so far: {', '.join(each) or 'none'})"
        log.warning("%s; in all %s", what, self._all_done())  # asked for, so even with --quiet

    def _all_done(self) -> Totals:
        totals = replace(self._totals)
        for process in self._processes():
            totals.count(process)
        return totals

    def _running(self) -> list[Process]:
        return [process for process in self._working() if process.was_ready]

    def _working(self) -> list[Process]:
        return [place.process for place in self._places if place.process is not None]

    def _processes(self) -> list[Process]:
        return [*self._leaving, *self._working()]

    def _stop_further(self, now: float) -> None:
        """Do what `stop` asked for since."""
        if self._stops_done == 0 and self._stops_asked >= 1:
            self._stops_done = 1
            when = "ending when the tasks in hand are done; a second signal ends them at once"
            log.log(logging.WARNING if self._why else logging.INFO, "%s", f"{self._why}: {when}" if self._why else when)
            self.service_manager.tell_stopping(now)
            for process in self._processes():
                process.tell(FINISH)
        if self._stops_done == 1 and self._stops_asked >= 2:
            self._stops_done = 2
            self._kill_at = now + GRACE
            for process in self._processes():
                process.tell(AT_ONCE)
        if now >= self._kill_at:
            for process in self._processes():
                log.warning("process %d does not end: killed", process.pid)
                process.kill()
            self._kill_at = inf

    def _bury_all(self, now: float) -> None:
        """Empty the places of processes that leave or have ended, and take leave of those that have ended."""
        for place in self._places:
            if place.process is not None:
                self._look_after(place, place.process, now)
        for process in self._leaving.copy():
            status = process.end(now)
            if status is not None:
                self._leaving.remove(process)
                self._forget(process)
                _tell_of_leaving(process, status)
        reap_others({process.pid for process in self._processes()})

    def _forget(self, process: Process) -> None:
        self._totals.count(process)
        process.slot.close()

    def _look_after(self, place: Place, process: Process, now: float) -> None:
        """Empty a place whose process leaves or has ended, and see when the next one is due there."""
        status = process.end(now)
        if process.is_leaving:
            self._leaving.append(process)
            place.process, place.start_at, place.delay = None, now, 0.0
        elif status is not None:
            place.process, place.start_at = None, now
            task = process.slot.in_hand()
            self._forget(process)
            if self._stops_done:
                return
            if process.has_hung:
                self._totals.hung += 1
                return
            if process.complaint and process.was_ready:  # as it is with the others
                self._complaint = process.complaint
                self.stop()
                return
            if process.complaint and not self._is_proven:
                raise CannotStartError(process.complaint)
            self._totals.crashes += 1
            end = process.complaint or ending(status)
            where = "" if task is None else f" at {task.name}"
            self._delay(place, f"process {process.pid} crashed{where}: {end}", now, now - process.started_at)
        elif now >= process.silent_at + SILENCE:
            log.warning("process %d has closed its lifeline, or become another program: killed", process.pid)
            process.silent_at = now  # in case that is not enough
            process.kill()

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
                    place.process = Process(self._program, now)
                except OSError as error:
                    what = f"cannot start a process: {error}"
                    if not self._is_proven:
                        raise CannotStartError(what) from None
                    self._delay(place, what, now, 0.0)
                else:
                    log.debug("process %d starts", place.process.pid)

    def _open_places(self) -> list[Place]:
        """Return where processes are to run: nowhere once stopped, and first of all in one place only.

        Nowhere, too, while more are leaving than there are places: they may not end.
        """
        if len(self._leaving) > len(self._places):
            return []
        return [] if self._stops_done else self._places if self._is_proven else self._places[:1]

    def _next_at(self) -> float:
        """Return when there is something to do, come what may; inf: there is not."""
        due = [self._look_at, self._kill_at, self.service_manager.due]
        due += [place.start_at for place in self._open_places() if place.process is None]
        due += [process.silent_at + SILENCE for process in self._working() if process.is_silent]
        return min(due)

    def _wait(self, until: float, now: float) -> None:
        """Wait for a signal, for a process to start or to end, or for an instant."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._alarm, selectors.EVENT_READ)
            for process in self._processes():
                if not process.is_silent:
                    selector.register(process.lifeline, selectors.EVENT_READ, process)
            for key, _ in selector.select(None if until == inf else max(0.0, until - now)):
                if key.data is not None:
                    key.data.listen(time.monotonic())
        self._alarm.hear()
        if not self._is_proven and any(process.was_ready for process in self._processes()):
            self._is_proven = True
            self.service_manager.tell_ready(time.monotonic())
            plural = "es" if len(self._places) > 1 else ""
            log.info("%d process%s for %s", len(self._places), plural, self._name)
        if not self._has_reached and (reached := next(filter(None, (each.reached for each in self._processes())), "")):
            self._has_reached = True
            log.info("reached %s", reached)


@contextmanager
def _ends_of_children_ring() -> Iterator[None]:
    """Have a Python handler for SIGCHLD: without one the signal would not wake anybody."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _tell_of_leaving(process: Process, status: int) -> None:
    if status == -signal.SIGALRM:
        why = f"threads that run on: {process.threads}" if process.threads else "what it does at its exit, or children"
        log.warning("process %d was done and did not end within %d s (%s): killed", process.pid, LEAVE_WITHIN, why)
    else:
        log.debug("process %d has done its share", process.pid)
