"""How long nobody has answered at an address, when to say so, and when to give up: it is told the time, and decides.

It outlives the connections to that address, so that one after another that fails at once is silence too.
"""

from math import inf

from zmqbroker.transport.limits import is_number

FIRST_COMPLAINT = 5.0  # seconds without an answer before saying so
FIRST_PAUSE = 10.0  # seconds between the first complaint and the second; doubled for each that follows
LONGEST_PAUSE = 600.0
ASK_BEFORE = 1.0  # seconds before a complaint: then one finds out the reason
FIRST_RETRY = 0.2  # seconds to the next try where somebody has hung up at once; doubled each time
LONGEST_RETRY = 5.0  # seconds
SURE_AFTER = 2  # looks that found the same amiss: a name may have another address, a broker be restarted
FITTING = ("ROUTER", "DEALER", "REP")  # the kinds of sockets that a DEALER may talk to


class Patience:
    """Waits for an answer at one address."""

    def __init__(self, address: str, timeout: float | None, now: float, belongs: str = "") -> None:
        """Begin to wait. `timeout` is how long, in seconds; None: for ever. `belongs` says which address is right.

        Raises ValueError for what is no timeout.
        """
        if timeout is not None and (timeout == 0 or not is_number(timeout)):
            raise ValueError(f"connect_timeout must be seconds, more than 0, not {timeout!r:.50}")
        self._address = address
        self._timeout = inf if timeout is None else timeout
        self._since = now  # inf: it is answered
        self._complain_at = now + FIRST_COMPLAINT
        self._pause = FIRST_PAUSE
        self._belongs = belongs
        self._was_answered = False  # at any time
        self._retry = FIRST_RETRY
        self._amiss = ""  # what was found amiss with who listens there, in one line; empty: nothing
        self._found_amiss = 0  # times in a row
        self._is_hopeless = False  # it is another kind of socket than a broker's
        self._has_been_told = False  # by who is there, what is to be said next

    def answered(self) -> None:
        """Note that somebody is there, and that there is nothing to wait for."""
        self._since = self._complain_at = inf
        self._was_answered = True
        self._retry = FIRST_RETRY
        self._amiss, self._found_amiss = "", 0

    def found(self, kind: str, mismatch: str, now: float) -> None:
        """Note what kind of socket has hung up, as a `Greeting` says it, and how an identity does not fit; or neither.

        The latter is said as soon as it is sure.
        """
        self._is_hopeless = bool(kind) and kind not in FITTING
        amiss = self._wrong_address(kind) if self._is_hopeless else mismatch
        self._found_amiss = self._found_amiss + 1 if amiss and amiss == self._amiss else bool(amiss)
        self._amiss = amiss
        if self._found_amiss == SURE_AFTER and not self._is_hopeless:
            self._complain_from(now)

    def turned_away(self, why: str, now: float) -> None:
        """Note why who is there does not let us in, by its own word: that is said at once."""
        if why != self._amiss:
            self._complain_from(now)
            self._has_been_told = True
        self._amiss, self._found_amiss, self._is_hopeless = why, SURE_AFTER, False

    def next_try(self, now: float) -> float:
        """Return when to connect again to who has hung up at once: later each time, but in time for what is due."""
        pause, self._retry = self._retry, min(2 * self._retry, LONGEST_RETRY)
        return min(now + pause, self.next_due(now))

    def lost(self, now: float) -> None:
        """Note that whoever was there is gone; without effect while nobody is."""
        if self._since == inf:
            self._since = now
            self._complain_from(now + FIRST_COMPLAINT)

    def wants_reason(self, now: float) -> bool:
        """Tell whether one should find out now why nobody answers."""
        return not self._has_been_told and now >= min(self._complain_at - ASK_BEFORE, self._over_at - ASK_BEFORE)

    def complaint(self, now: float, reason: str) -> str | None:
        """Return what is to be logged now, if anything; `reason` may be empty."""
        if now < self._complain_at:
            return None
        self._complain_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._has_been_told = False  # whoever is there may be gone by the next time
        if self._is_sure:
            return self._amiss
        return f"nobody answers at {self._address}: is the broker running there?{_in_brackets(reason)}"

    def verdict(self, now: float, reason: str) -> str | None:
        """Return why to give up; None while that is not due.

        It is due as soon as another kind of socket listens there than a broker's, unless a broker has been there
        before: what is there now may pass.
        """
        if self._is_sure and self._is_hopeless and not self._was_answered:
            return self._amiss
        if now < self._over_at:
            return None
        if self._amiss:  # though it was found only once
            return self._amiss
        return (
            f"nobody has answered at {self._address} for {self._timeout:g} s: is the broker running there?"
            f"{_in_brackets(reason)}"
        )

    def next_due(self, now: float) -> float:
        """Return the next instant after `now` at which it decides something new; inf: never."""
        instants = (self._complain_at - ASK_BEFORE, self._complain_at, self._over_at - ASK_BEFORE, self._over_at)
        return min((instant for instant in instants if instant > now), default=inf)

    @property
    def _is_sure(self) -> bool:
        return self._found_amiss >= SURE_AFTER

    def _complain_from(self, now: float) -> None:
        """Complain then for the first time, and after pauses that grow anew."""
        self._complain_at = now
        self._pause = FIRST_PAUSE

    def _wrong_address(self, kind: str) -> str:
        what = "it is one for results (RESULTS)" if kind == "PULL" else f"a {kind} socket, no broker, is there"
        return f"{self._address} is the wrong address: {what}; {self._belongs}"

    @property
    def _over_at(self) -> float:
        return self._since + self._timeout


def _in_brackets(reason: str) -> str:
    return f" ({reason})" if reason else ""
