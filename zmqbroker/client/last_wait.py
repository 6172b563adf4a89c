"""How long threads wait for replies when the main thread of their program has ended: they may keep it from its end."""

from zmqbroker.transport import threads

LAST_REPLIES = 10.0  # seconds without any that a program waits whose main thread has ended
LOOK = 2.0  # seconds between two looks whether it has


class LastWait:
    """Tells when to give up. It is told when a reply came."""

    def __init__(self) -> None:
        self._since = 0.0  # when it was noticed that the main thread has ended, or last a reply came; 0: neither

    def replied(self) -> None:
        """Note that there are replies yet."""
        self._since = 0.0

    def next_look(self, now: float) -> float:
        """Return the instant at which to ask `is_over` again."""
        return now + LOOK

    def is_over(self, now: float) -> bool:
        """Tell whether the main thread has ended, and no reply has come for LAST_REPLIES since."""
        if not threads.has_main_ended():
            return False
        self._since = self._since or now
        return now >= self._since + LAST_REPLIES
