"""Which address of a host's name is tried next, and for how long: it is told the time, and decides.

Each look at the name begins a round: its addresses are tried one after the other, those of IPv4 first, as a broker on
tcp://*:PORT has no other. ZeroMQ does not tell that an address refuses, so each has a span of time to answer in, which
is short at first (a quarter of a second, as in RFC 8305) and doubles with each round for networks that are slow.
"""

from collections.abc import Sequence
from math import inf

FIRST_SPAN = 0.25  # seconds for an address to take the connection
HANDSHAKE = 5.0  # seconds to answer in, for one that has taken it
FIRST_PAUSE = 0.2  # seconds between a round that has failed at once and the next
LONGEST = 5.0  # seconds that either grows to


class Search:
    """Looks for the address of a name at which somebody answers. It begins with a look at the name."""

    def __init__(self) -> None:
        self.is_looking = True  # at the name: `found` or `missed` is to be called
        self._untried: list[str] = []
        self._due = inf  # when what is tried now has had its time, or a pause ends
        self._span = FIRST_SPAN
        self._pause = FIRST_PAUSE

    def found(self, addresses: Sequence[str], now: float) -> None:
        """Note which addresses the name has: they are tried from now on. None is as good as `missed`."""
        self._untried = sorted(addresses, key=lambda address: ":" in address)
        self.missed(now)

    def missed(self, now: float) -> None:
        """Note that the look at the name has failed, or that the address that is tried has hung up."""
        self.is_looking = False
        self._due = now if self._untried else now + self._pause

    def taken(self, now: float) -> None:
        """Note that the address that is tried has taken the connection."""
        self._due = now + HANDSHAKE

    def keep(self) -> None:
        """Note that it has answered: there is no more to decide."""
        self._due = inf

    def advance(self, now: float) -> str | None:
        """Return the address to try, if it is time for another one; at the end of a round begin to look anew."""
        if now < self._due:
            return None
        if self._untried:
            self._due = now + self._span
            return self._untried.pop(0)
        self._span = min(2 * self._span, LONGEST)
        self._pause = min(2 * self._pause, LONGEST)
        self._due = inf
        self.is_looking = True
        return None

    def next_due(self) -> float:
        """Return when to advance; inf: not before `found` or `missed`."""
        return self._due
