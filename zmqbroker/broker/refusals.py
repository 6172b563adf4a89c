"""Who was refused, from where, and how often: the last ones by name, and the rest as a number."""

from collections import OrderedDict
from typing import Any, NamedTuple

MOST_STRANGERS = 100  # pairs of an address and a key
LONGEST_ADDRESS = 200  # characters


class Stranger(NamedTuple):
    """Who was refused."""

    address: str  # as ZeroMQ has it: of TCP without a port
    key: str  # empty: it showed none
    where: str  # at which of the broker's sockets, the last time
    reason: str


class Refused:
    """How often somebody was refused, and when last."""

    __slots__ = ("at", "count", "stranger")

    def __init__(self, stranger: Stranger, count: int, at: float) -> None:
        self.stranger = stranger
        self.count = count
        self.at = at


class Refusals:
    """The refusals of a broker since its start."""

    def __init__(self) -> None:
        self.total = 0
        self._last: OrderedDict[tuple[str, str], Refused] = OrderedDict()  # the one seen last is the last one

    def note(self, stranger: Stranger, now: float) -> Refused:
        """Count one, and return what is remembered of it.

        Whoever was not seen for the longest time is forgotten, but stays in the total.
        """
        self.total += 1
        stranger = stranger._replace(address=stranger.address[:LONGEST_ADDRESS])
        named = stranger.address, stranger.key
        known = self._last.pop(named, None)
        refused = self._last[named] = Refused(stranger, 1 if known is None else known.count + 1, now)
        if len(self._last) > MOST_STRANGERS:
            self._last.popitem(last=False)
        return refused

    def about(self, most: int, now: float) -> dict[str, Any]:
        """Tell how many there were, and so many of the last ones, the newest first."""
        last = list(reversed(self._last.values()))[:most]
        return {
            "total": self.total,
            "last": [one.stranger._asdict() | {"count": one.count, "age": round(now - one.at, 3)} for one in last],
        }
