"""All unsettled tasks by their numbers, in the order of their acceptance, and pages of them.

A page begins after a number. Numbers of settled tasks are gaps, of any length, so tasks are kept in blocks of numbers,
and only blocks that have a task are: a page is that of the next few. To take a task in and to forget it costs each task
a step or two, however many there are.
"""

from bisect import bisect_left
from collections.abc import Iterator

from zmqbroker.broker.task import Task

BLOCK_BITS = 10  # of a number: those of a block differ in these
MOST_BLOCKS = 2  # looked through for one page


class Ledger:
    """Tasks by number; numbers rise."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[int, Task]] = {}  # each has a task, but perhaps the newest
        self._order: list[int] = []  # of the blocks, rising

    def __len__(self) -> int:
        return sum(map(len, self._blocks.values()))

    def __iter__(self) -> Iterator[Task]:
        return (task for block in self._blocks.values() for task in block.values())

    def add(self, task: Task) -> None:
        """Take in a task."""
        number = task.number
        try:
            self._blocks[number >> BLOCK_BITS][number] = task
        except KeyError:
            self._begin(number >> BLOCK_BITS)[number] = task

    def remove(self, task: Task) -> None:
        """Forget a task."""
        number = task.number
        block = self._blocks[number >> BLOCK_BITS]
        del block[number]
        if not block:
            self._forget_if_old(number >> BLOCK_BITS)

    def get(self, number: int) -> Task | None:
        """Return the task with a number; None: it is settled, or never was."""
        block = self._blocks.get(number >> BLOCK_BITS)
        return None if block is None else block.get(number)

    def after(self, number: int) -> tuple[list[Task], int | None]:
        """Return some tasks with greater numbers, and from where to go on; None: there are no more."""
        first = bisect_left(self._order, (number + 1) >> BLOCK_BITS)
        blocks = self._order[first : first + MOST_BLOCKS]
        found = [task for block in blocks for task in self._blocks[block].values() if task.number > number]
        if first + MOST_BLOCKS >= len(self._order):
            return found, None
        return found, ((blocks[-1] + 1) << BLOCK_BITS) - 1

    def _begin(self, block: int) -> dict[int, Task]:
        """Have a block that there was not, the newest."""
        newest = self._order[-1:]  # none: this is the first
        self._order.append(block)
        for old in newest:
            if not self._blocks[old]:
                self._forget_if_old(old)
        begun = self._blocks[block] = {}
        return begun

    def _forget_if_old(self, block: int) -> None:
        """Forget a block without tasks; the newest one will have some more."""
        if block != self._order[-1]:
            del self._blocks[block]
            del self._order[bisect_left(self._order, block)]
