"""All unsettled tasks by their numbers, in the order of their acceptance, and pages of them.

A settled task leaves its number behind, to be passed over later. When these outnumber the unsettled tasks the list of
numbers is made anew without them: so memory is proportional to what is live.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice

from zmqbroker.broker.task import Task

STALE_KEPT = 1000  # fewer numbers of settled tasks are not worth a rebuild
MOST_STEPS = 2000  # numbers looked at for one page


class Ledger:
    """Tasks by number; numbers rise."""

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        self._numbers: list[int] = []  # rising
        self.get = self._tasks.get  # the task with a number; None: it is settled, or never was

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def add(self, task: Task) -> None:
        """Take in a task."""
        tasks, numbers = self._tasks, self._numbers
        if len(numbers) > 2 * len(tasks) + STALE_KEPT:
            numbers[:] = tasks
        tasks[task.number] = task
        numbers.append(task.number)

    def remove(self, task: Task) -> None:
        """Forget a task."""
        del self._tasks[task.number]

    def after(self, number: int) -> tuple[list[Task], int | None]:
        """Return some tasks with greater numbers, and from where to go on; None: there are no more."""
        first = bisect_right(self._numbers, number)
        numbers = list(islice(self._numbers, first, first + MOST_STEPS))
        found = [self._tasks[each] for each in numbers if each in self._tasks]
        return found, numbers[-1] if first + MOST_STEPS < len(self._numbers) else None
