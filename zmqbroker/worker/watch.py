"""What a supervisor does about tasks in hand: what hangs is killed, and the broker learns why a task failed."""

import logging
from collections.abc import Callable, Sequence
from math import inf

from zmqbroker.worker.command import ending
from zmqbroker.worker.lifeline import Process
from zmqbroker.worker.limits import Limits

Failures = Sequence[tuple[bytes, str]]  # the id of each attempt, and why it failed

log = logging.getLogger("zmqbroker.supervisor")


class Watch:
    """Looks at the tasks that processes have in hand."""

    def __init__(self, limits: Limits, tell: Callable[[Failures], object]) -> None:
        """Prepare to look; `tell` has the broker know of attempts that failed."""
        self._limits = limits
        self._tell = tell

    def look(self, processes: Sequence[Process], now: float) -> float:
        """Kill those that hang, having told why, and tell why those ended that have died with a task in hand.

        The broker takes the attempt for lost soon after the connection has dropped, so nothing else comes first.
        Returns when to look again; inf: there is nothing to look at.
        """
        failures = []
        hung = []
        look_at = now + self._limits.interval if processes else inf
        for process in processes:
            status = process.notice_end()
            task = process.slot.in_hand()
            if task is None or process.has_hung:
                continue
            if status is not None:
                failures.append((task.attempt_id, ending(status)))
            elif verdict := self._limits.verdict(task, now):
                hung.append((process, task, verdict.what))
                if verdict.reason:
                    failures.append((task.attempt_id, verdict.reason))
            else:
                look_at = min(look_at, self._limits.due_at(task))
        if failures:
            self._tell(failures)
        for process, task, what in hung:
            if process.kill_at(task):
                log.warning("process %d %s", process.pid, what)
        return look_at
