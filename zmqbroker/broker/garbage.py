"""Python's garbage collector, in a process that is the broker's own.

A full collection looks at every object: with a million tasks the loop stands still for most of a second, again and
again while they come. It finds next to nothing, as what the broker forgets leaves no cycles behind. So new objects are
looked at once, some at a time, and all of them seldom, and while there are few tasks.
"""

import gc

NEW = 2000  # objects that are looked at together, in a millisecond
NEVER = 2**31 - 1
FEW = 10_000  # tasks; to look at all that belongs to them takes some milliseconds
INTERVAL = 60.0  # seconds between two full collections


class Garbage:
    """Has Python make no full collections, and makes them."""

    def __init__(self, now: float) -> None:
        """Begin with this; what has been imported by now is not looked at again."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(NEW, NEVER, NEVER)
        self._due = now + INTERVAL

    def collect_if_due(self, tasks: int, now: float) -> None:
        """Make a full collection if it is time for one, and there are few tasks."""
        if now >= self._due and tasks <= FEW:
            gc.collect()
            self._due = now + INTERVAL
