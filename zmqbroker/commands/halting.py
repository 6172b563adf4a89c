"""When a submission is to be halted because too much of it fails: `--halt`, in the words of GNU parallel. Pure."""

import re
from typing import NamedTuple

NOW, SOON = "now", "soon"
FEWEST = 3  # tasks that are to have failed before a share of them counts
FORM = re.compile(r"(now|soon),fail=([0-9]+)(%?)")


class Halt(NamedTuple):
    """How many failures are too many, and what is done then."""

    when: str  # NOW: all is cancelled; SOON: what runs is waited for
    most: int  # failures, or
    is_share: bool  # so many in a hundred of the tasks that have come to an end

    def is_due(self, failed: int, settled: int) -> bool:
        """Tell whether so many failures among so many tasks are too many."""
        if self.is_share:
            return failed >= FEWEST and 100 * failed >= self.most * settled
        return failed >= self.most


def halt(text: str) -> Halt:
    """Read when to halt; raises ValueError for what does not say it."""
    match = FORM.fullmatch(text)
    if match is None or int(match[2]) == 0 or (match[3] and int(match[2]) > 100):
        raise ValueError(f"{text!r} is not soon,fail=N or now,fail=N, with a whole number from 1 up, or N% up to 100%")
    return Halt(match[1], int(match[2]), bool(match[3]))
