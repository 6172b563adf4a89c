"""How a broker ends: it drains, for so long at most."""


class Shutdown:
    """Asked to stop once, the broker finishes what it has accepted, within limits; asked again, it ends at once."""

    def __init__(self, drain: float) -> None:
        """Allow `drain` seconds between the first `stop` and the end."""
        self.drain = drain
        self.until: float | None = None  # the instant at which it ends, come what may; None: not asked to stop

    @property
    def is_draining(self) -> bool:
        """Tell whether the broker was asked to stop."""
        return self.until is not None

    def stop(self, now: float) -> None:
        """Begin to drain; a second time, end."""
        self.until = now + self.drain if self.until is None else now

    def end(self, now: float) -> None:
        """End at once."""
        self.until = now

    def is_over(self, now: float, unsettled: int) -> bool:
        """Tell whether there is nothing left to do, or no time to do it."""
        return self.until is not None and (now >= self.until or not unsettled)
