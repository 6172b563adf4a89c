"""When deadlines may be judged."""

PAUSE = 0.1  # seconds; how long a loop that was held up reads before it judges


class Pause:
    """Puts off judgement while results that came in time may lie unread.

    A loop that was held up, or has a great many results to read, first gets a pause to do so; but a deadline that one
    pause has put off is not put off by another, so nobody can do so for ever.
    """

    def __init__(self, now: float) -> None:
        self.until = now  # no deadline is judged before this instant

    def begin(self, due: float, now: float) -> None:
        """Put off the judgement of what is due first, if that was not done before."""
        if due > self.until:
            self.until = now + PAUSE
