"""What is counted of the loop: what came by each socket, and how busy it is.

It costs a reading of the clock for each turn, and an addition for each batch of messages; messages cost nothing.
"""

from typing import Any, Protocol, TypeVar

from zmqbroker.broker.counters import Counters

SPAN = 60.0  # seconds after which the longest turn begins to be forgotten

REQUESTS, READY, RESULTS, CONTROL = "requests", "ready", "results", "control"  # the sockets


class Counted(Protocol):
    """What messages are read from."""

    @property
    def received(self) -> int:
        """The number of messages that came."""


Read = TypeVar("Read", bound=Counted)


class Traffic:
    """Messages by socket, and how long turns took."""

    __slots__ = ("_counters", "_inboxes", "_longest_before", "_malformed", "_next", "_seen", "busy", "longest")

    def __init__(self, counters: Counters, now: float) -> None:
        self.busy = 0.0  # seconds that turns took, without their waits
        self.longest = 0.0  # seconds of the longest turn in this span
        self._longest_before = 0.0  # in the one before
        self._next = now + SPAN  # when the next one begins
        self._counters = counters
        self._seen = counters.malformed  # messages that a socket has been charged with
        self._inboxes: dict[str, Counted] = {}
        self._malformed: dict[str, int] = {}

    def watch(self, where: str, inbox: Read) -> Read:
        """Tell from now on of what comes there; return the inbox."""
        self._inboxes[where] = inbox
        self._malformed[where] = 0
        return inbox

    def charge(self, where: str) -> None:
        """Note that whatever was malformed since this was called last has come by this socket."""
        total = self._counters.malformed
        if total != self._seen:
            self._malformed[where] += total - self._seen
            self._seen = total

    def look(self, now: float) -> None:
        """Begin a new span if it is time for that."""
        if now >= self._next:
            self._longest_before, self.longest = self.longest, 0.0
            self._next = now + SPAN

    def about(self, connections: dict[str, int]) -> dict[str, Any]:
        """Return what is told of it; `connections` are those that there are, of the sockets where that is known."""
        return {
            "busy": round(self.busy, 6),
            "longest_turn": round(max(self.longest, self._longest_before), 6),
            "sockets": {
                where: {
                    "messages": inbox.received,
                    "malformed": self._malformed[where],
                    "connections": connections.get(where),
                }
                for where, inbox in self._inboxes.items()
            },
        }
