"""The keeper: speaks for the task in hand, and has a thread that has the worker's line while a handler takes long.

So the broker is heard, and is called again when the connection was lost. The thread looks whether a handler has taken
KEEP_AFTER seconds, sleeps for good when no task has begun for a while, and never waits with the lock. While a task is
in hand nobody uses session and line without the lock; while there is none they are the worker's, who needs no lock.
"""

import os
import threading
from collections.abc import Callable, Sized
from dataclasses import dataclass
from math import ceil, inf
from time import monotonic

import zmq

from zmqbroker.transport.alarm import Alarm
from zmqbroker.wire import Frames
from zmqbroker.wire.announced import Given
from zmqbroker.worker.line import Line
from zmqbroker.worker.session import Session

KEEP_AFTER = 0.05  # seconds of a handler
SLEEP_AFTER = 1.0  # seconds without a task
LONGEST_WAIT = 3600.0  # seconds
PATIENCE = 5.0  # seconds for the thread to end


def _ignore(*_: object) -> None:
    pass


@dataclass
class Upkeep:
    """What the keeper does for a task that takes long, and who is told of what."""

    touch_every: float = inf  # seconds
    touch_until: float = inf  # seconds of the task
    on_touch: Callable[[float | None], object] = _ignore  # the seconds that were asked for, by whomever, in its thread
    on_welcome: Callable[[str], object] = _ignore  # what was reached, at each connection
    on_begin: Callable[[bytes, Sized, float], object] = _ignore  # the attempt id, what it tells about itself, now
    on_end: Callable[[], object] = _ignore  # before the outcome is said
    on_cancel: Callable[[], object] = _ignore  # nobody wants what is in hand; in the keeper's thread, with its lock


class Keeper:
    """Speaks for the task in hand, from any thread."""

    def __init__(self, session: Session, line: Line, worker_name: str) -> None:
        """Prepare; the thread is started when it is first woken."""
        self.worker_name = worker_name  # in logs
        self.upkeep = Upkeep()
        self.is_asleep = True  # whoever begins a task is to wake it then
        self._session = session
        self._line = line
        self._lock = threading.Lock()
        self._bell = Alarm()
        self._thread: threading.Thread | None = None
        self._is_keeping = False  # it waits for what happens on the line
        self._is_told_to_stop = False
        self._is_over = False
        self._touched_at = 0.0
        self._process_id = os.getpid()

    def wake(self) -> None:
        """Have it look at what is in hand."""
        self.is_asleep = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zmqbroker keeper", daemon=True)
            self._thread.start()
        self._bell.ring()

    def stop(self) -> None:
        """Have what was not begun given back at once. For any thread or signal handler."""
        self._is_told_to_stop = True
        self._bell.ring()

    def close(self) -> None:
        """End the thread; it is waited for, but not for long: it may be at what is to be done at a cancel."""
        self._is_over = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        self._bell.close()

    # For the task in hand

    def finish(self, verb: bytes, argument: Frames, now: float) -> None:
        """Say what came of it: from now on there is none."""
        with self._lock:
            self.upkeep.on_end()
            if self._is_told_to_stop:
                self.withdraw()
            self._line.say(self._session.finish(verb, argument, now))
        self._ring_if_keeping()

    def touch(self, given: Given | None, seconds: float | None) -> None:
        """Ask for more time for a task, if it is in hand. Raises RuntimeError in a process that was forked since."""
        self.refuse_in_child("touch")
        with self._lock:
            if given is not None and self._session.in_hand is given:
                self._touch(seconds)
        self._ring_if_keeping()

    def progress(self, given: Given, said: bytes) -> None:
        """Tell how far a task has come, if it is in hand. Raises RuntimeError in a process that was forked since."""
        self.refuse_in_child("progress")
        with self._lock:
            if self._session.in_hand is given:
                self._session.progress(said)
                self._line.say(self._session.say_progress(monotonic()))
        self._ring_if_keeping()

    def is_cancelled(self, given: Given) -> bool:
        """Tell whether nobody wants the result of a task that is in hand."""
        return self._session.in_hand is given and self._session.is_cancelled

    def refuse_in_child(self, what: str) -> None:
        """Raise RuntimeError in a process that was forked: the socket is its parent's."""
        if os.getpid() != self._process_id:
            raise RuntimeError(f"{what} of a Worker that another process has made: make one in each process")

    def _ring_if_keeping(self) -> None:
        """Have it look again: something was sent, which may hide what has come, or the task is done."""
        if self._is_keeping:
            self._bell.ring()

    def withdraw(self) -> None:
        """Ask for nothing any more, and give back what was not begun."""
        if not self._session.is_stopping:
            self._line.say_all(self._session.stop())

    def _touch(self, seconds: float | None) -> None:
        self._line.say(self._session.touch(b"" if seconds is None else str(seconds).encode()))
        self._touched_at = monotonic()
        self.upkeep.on_touch(seconds)

    # The thread

    def _run(self) -> None:
        while not self._is_over:
            now = monotonic()
            try:
                descriptors, wait = self._keep(now) or ([], self._next_look(now))
            except zmq.ZMQError:  # the context was closed: the worker will see
                return
            waited_for = [(descriptor, zmq.POLLIN) for descriptor in (self._bell.fileno(), *descriptors)]
            zmq.zmq_poll(waited_for, -1 if wait == inf else ceil(1000 * wait))
            self._bell.hear()

    def _keep(self, now: float) -> tuple[list[int], float] | None:
        """Do what is due while a handler takes long; return what to wait for and how long. None: it does not."""
        session, line = self._session, self._line
        with self._lock:
            self._is_keeping = session.in_hand is not None and now >= session.begun_at + KEEP_AFTER
            if not self._is_keeping:
                return None
            if self._is_told_to_stop:
                self.withdraw()
            touch_due = self._touch_if_due(now)
            line.say(session.say_progress(now))
            was_cancelled = session.is_cancelled
            line.receive_all(now)
            due = min(line.due, touch_due, session.progress_due(), now + LONGEST_WAIT)
            descriptors = line.descriptors()
            if session.is_cancelled and not was_cancelled:
                self.upkeep.on_cancel()
        return descriptors, max(0.0, due - now)

    def _touch_if_due(self, now: float) -> float:
        """Touch the task in hand as the upkeep wants it; return when that is due again."""
        begun_at, upkeep = self._session.begun_at, self.upkeep
        until = begun_at + upkeep.touch_until
        if max(begun_at, self._touched_at) + upkeep.touch_every <= now < until:
            self._touch(None)
        due = max(begun_at, self._touched_at) + upkeep.touch_every
        return due if due < until else inf

    def _next_look(self, now: float) -> float:
        """Return in how many seconds to look whether a handler takes long; inf: not before it is woken."""
        session = self._session
        if session.in_hand is not None:
            return max(0.001, session.begun_at + KEEP_AFTER - now)
        if now < session.begun_at + SLEEP_AFTER:
            return KEEP_AFTER
        self.is_asleep = True
        if session.in_hand is None:  # whoever begins one now sees that it is to be woken
            return inf
        self.is_asleep = False
        return 0.0
