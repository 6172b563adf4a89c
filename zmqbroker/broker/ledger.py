"""All unsettled tasks by their numbers, in the order of their acceptance, and pages of them.

A settled task leaves its number behind, to be passed over later. Where these outnumber the unsettled tasks the list of
numbers is made anew without them, which is looked at now and then: so memory is proportional to what is live.
"""

from bisect import bisect_right
from collections.abc import Iterator

from zmqbroker.broker.task import Task

SELDOM = 1024  # tasks from one look at the numbers of settled ones to the next
MOST_NUMBERS = 2000  # looked at for one page


class Ledger:
    """Tasks by number; numbers rise."""

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        self._numbers: list[int] = []  # rising
        self.get = self._tasks.get  # returns the task with a number; None: it is settled, or never was
        self.remove = self._tasks.__delitem__  # forgets the task with a number

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def add(self, number: int, task: Task) -> None:
        """Take in a task; its number is greater than all before."""
        self._tasks[number] = task
        self._numbers.append(number)
        if not number % SELDOM and len(self._numbers) > 2 * len(self._tasks):
            self._numbers = list(self._tasks)

    def after(self, number: int) -> tuple[Iterator[Task], int | None]:
        """Return some tasks with greater numbers, and from where to go on; None: there are no more."""
        first = bisect_right(self._numbers, number)
        numbers = self._numbers[first : first + MOST_NUMBERS]
        found = filter(None, map(self.get, numbers))
        return found, numbers[-1] if first + MOST_NUMBERS < len(self._numbers) else None
