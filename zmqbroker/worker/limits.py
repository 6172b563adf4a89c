"""How long a process may be at a task before it is taken to hang, with a deadline or without."""

from math import inf
from typing import NamedTuple

DEFAULT_GRACE = 3.0  # seconds
SHORTEST_LOOK = 0.05  # seconds between two looks


class InHand(NamedTuple):
    """A task that a process is at. Instants are of CLOCK_MONOTONIC, which all processes of a machine share."""

    began: float
    deadline: float  # as the broker sees it, touches included; inf: none
    attempt_id: bytes
    name: str = "a task"  # in logs


class Verdict(NamedTuple):
    """Why a process is to be killed."""

    what: str  # for the log
    reason: str  # for the broker; empty: it has given the attempt up already


class Limits(NamedTuple):
    """The limits of a task in hand, in seconds; inf: there is none."""

    grace: float = DEFAULT_GRACE  # from the deadline that the broker has set
    kill_after: float = inf  # from the beginning

    @property
    def interval(self) -> float:
        """How long one need not look again: no task that begins after a look is due before that."""
        return max(SHORTEST_LOOK, min(self.grace, self.kill_after))

    def due_at(self, task: InHand) -> float:
        """Return when the process of a task is to be killed, if it is still at it."""
        return min(task.deadline + self.grace, task.began + self.kill_after)

    def verdict(self, task: InHand, now: float) -> Verdict | None:
        """Return why to kill the process of a task; None: its time has not come."""
        if now < self.due_at(task):
            return None
        if now >= task.began + self.kill_after:
            text = f"killed after {self.kill_after:g} s"
            return Verdict(f"is still at {task.name}: {text}", text)
        past, age = now - task.deadline, now - task.began
        return Verdict(f"is still at {task.name} after {age:.1f} s, {past:.1f} s past its deadline: killed", "")
