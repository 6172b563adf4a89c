"""All unsettled tasks by their numbers, in the order of their acceptance, and pages of them.

A page begins after a number. Numbers of settled tasks are gaps, of any length, so the ledger knows how many tasks there
are in each block of numbers, and passes over empty blocks.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from zmqbroker.broker.task import Task

BLOCK_BITS = 10  # of a number: those of a block differ in these
MOST_BLOCKS = 2  # looked through for one page


class Ledger:
    """Tasks by number; numbers rise."""

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        self._sizes: dict[int, int] = {}  # tasks in each block that has one
        self._blocks: list[int] = []  # those, rising

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def add(self, task: Task) -> None:
        """Take in a task."""
        self._tasks[task.number] = task
        block = task.number >> BLOCK_BITS
        size = self._sizes.get(block)
        if size is None:
            self._sizes[block] = 1
            insort(self._blocks, block)  # at the end, as numbers rise
        else:
            self._sizes[block] = size + 1

    def remove(self, task: Task) -> None:
        """Forget a task."""
        del self._tasks[task.number]
        block = task.number >> BLOCK_BITS
        size = self._sizes[block]
        if size == 1:
            del self._sizes[block]
            del self._blocks[bisect_left(self._blocks, block)]
        else:
            self._sizes[block] = size - 1

    def get(self, number: int) -> Task | None:
        """Return the task with a number; None: it is settled, or never was."""
        return self._tasks.get(number)

    def after(self, number: int) -> tuple[list[Task], int | None]:
        """Return some tasks with greater numbers, and from where to go on; None: there are no more."""
        first = bisect_left(self._blocks, (number + 1) >> BLOCK_BITS)
        blocks = self._blocks[first : first + MOST_BLOCKS]
        found = []
        for block in blocks:
            for each in range(max(number + 1, block << BLOCK_BITS), (block + 1) << BLOCK_BITS):
                task = self._tasks.get(each)
                if task is not None:
                    found.append(task)
        if first + MOST_BLOCKS >= len(self._blocks):
            return found, None
        return found, ((blocks[-1] + 1) << BLOCK_BITS) - 1
