"""What a client does when no reply comes for long: it asks where its oldest task stands, for that may be hopeless.

Pure.
"""

from collections.abc import Iterable

from zmqbroker import wire
from zmqbroker.client.request import Request

FIRST_LULL = 10.0  # seconds without a reply before one asks; doubled for each time that follows
LONGEST_LULL = 600.0  # seconds
STANDS = "stands"  # the id of that question: those of others are numbers
_WHERE = wire.more_fields({"fetch": 0.0, "body": False})


class Lull:
    """How long there was no reply though there are tasks; it is told the time, and decides."""

    def __init__(self) -> None:
        self._since: float | None = None  # None: there are no tasks, or a reply has just come
        self._pause = FIRST_LULL

    def end(self) -> None:
        """Note that a reply has come, or that there is nothing to wait for."""
        self._since, self._pause = None, FIRST_LULL

    def question(self, requests: Iterable[Request], now: float) -> Request | None:
        """Return what to ask about the oldest of these requests that was sent; None: nothing, or not yet."""
        if self._since is None:
            self._since = now
        if now < self._since + self._pause:
            return None
        self._since, self._pause = now, min(2 * self._pause, LONGEST_LULL)
        oldest = next((request for request in requests if request.sent and request.name != STANDS), None)
        return None if oldest is None else Request(oldest.key, [wire.EMPTY], _WHERE, None, id=STANDS)
