"""Noticing that a program has ended but for the threads that wait here for replies, and that they wait in vain."""

import threading

LAST_REPLIES = 10.0  # seconds without any that a program waits whose main thread has ended
LOOK = 2.0  # seconds between two looks whether it has


class Program:
    """The program that waits for replies. It is told when one came."""

    def __init__(self) -> None:
        self._since = (
            0.0  # when it was noticed that the main thread has ended, and since when no reply came; 0: neither
        )

    def replied(self) -> None:
        """Note that there are replies yet."""
        self._since = 0.0

    def next_look(self, now: float) -> float:
        """Return the instant at which to ask `is_over` again."""
        return now + LOOK

    def is_over(self, now: float) -> bool:
        """Tell whether the main thread has ended, and no reply has come for LAST_REPLIES since."""
        if threading.main_thread().is_alive():
            return False
        self._since = self._since or now
        return now >= self._since + LAST_REPLIES
