"""How long nobody has answered at an address, when to say so, and when to give up: it is told the time, and decides.

It outlives the connections to that address, so that one after another that fails at once is silence too.
"""

from math import inf

from zmqbroker.transport.limits import is_number

FIRST_COMPLAINT = 5.0  # seconds without an answer before saying so
FIRST_PAUSE = 10.0  # seconds between the first complaint and the second; doubled for each that follows
LONGEST_PAUSE = 600.0
ASK_BEFORE = 1.0  # seconds before a complaint: then one finds out the reason


class Patience:
    """Waits for an answer at one address."""

    def __init__(self, address: str, timeout: float | None, now: float) -> None:
        """Begin to wait. `timeout` is how long, in seconds; None: for ever. Raises ValueError for what is none."""
        if timeout is not None and (timeout == 0 or not is_number(timeout)):
            raise ValueError(f"connect_timeout must be seconds, more than 0, not {timeout!r:.50}")
        self._address = address
        self._timeout = inf if timeout is None else timeout
        self._since = now  # inf: it is answered
        self._complain_at = now + FIRST_COMPLAINT
        self._pause = FIRST_PAUSE

    def answered(self) -> None:
        """Note that somebody is there, and that there is nothing to wait for."""
        self._since = self._complain_at = inf

    def lost(self, now: float) -> None:
        """Note that whoever was there is gone; without effect while nobody is."""
        if self._since == inf:
            self._since = now
            self._complain_at = now + FIRST_COMPLAINT
            self._pause = FIRST_PAUSE

    def wants_reason(self, now: float) -> bool:
        """Tell whether one should find out now why nobody answers."""
        return now >= min(self._complain_at - ASK_BEFORE, self._over_at - ASK_BEFORE)

    def complaint(self, now: float, reason: str) -> str | None:
        """Return what is to be logged now, if anything; `reason` may be empty."""
        if now < self._complain_at:
            return None
        self._complain_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return f"nobody answers at {self._address}: is the broker running there?{_in_brackets(reason)}"

    def verdict(self, now: float, reason: str) -> str | None:
        """Return why to give up; None while that is not due."""
        if now < self._over_at:
            return None
        return (
            f"nobody has answered at {self._address} for {self._timeout:g} s: is the broker running there?"
            f"{_in_brackets(reason)}"
        )

    def next_due(self, now: float) -> float:
        """Return the next instant after `now` at which it decides something new; inf: never."""
        instants = (self._complain_at - ASK_BEFORE, self._complain_at, self._over_at - ASK_BEFORE, self._over_at)
        return min((instant for instant in instants if instant > now), default=inf)

    @property
    def _over_at(self) -> float:
        return self._since + self._timeout


def _in_brackets(reason: str) -> str:
    return f" ({reason})" if reason else ""
