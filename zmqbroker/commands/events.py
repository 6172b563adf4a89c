"""What a main thread waits for: signals, and what other threads tell it.

A queue would not do: a signal that another thread of ours gets, or that comes just before the wait, does not wake it.
"""

from math import ceil
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

from zmqbroker.transport.alarm import Alarm

Event = TypeVar("Event")


class Events(Generic[Event]):
    """A queue for one waiting thread, the main one, and any that puts, signal handlers too."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._alarm = Alarm()
        self.woken_by_signals = self._alarm.rung_by_signals  # a context manager, around all that waits

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.put(event)
        self._alarm.ring()

    def get(self) -> Event:
        """Wait for the next event."""
        while True:
            try:
                return self._events.get_nowait()
            except Empty:
                self._wait(-1)

    def get_within(self, seconds: float) -> Event:
        """Wait for the next event; raises Empty when there is none for so long."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            try:
                return self._events.get_nowait()
            except Empty:
                self._wait(ceil(1000 * left))
        return self._events.get_nowait()

    def _wait(self, most_ms: int) -> None:
        self._alarm.wait(most_ms)
        self._alarm.hear()
