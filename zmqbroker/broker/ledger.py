"""Tasks by their numbers, in the order of their acceptance, and pages of them.

A task that has left leaves its number behind, to be passed over later. Where these outnumber the others the list of
numbers is made anew without them, which is looked at now and then: so memory is proportional to what is there. It is
made anew as well for the next page after a task has come that is older than others.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

SELDOM = 1024  # tasks from one look at the numbers of those that have left to the next
MOST_NUMBERS = 2000  # looked at for one page

Thing = TypeVar("Thing")  # what is known of a task


class Ledger(Generic[Thing]):
    """What is known of tasks, by number."""

    def __init__(self, things: "dict[int, Thing] | OrderedDict[int, Thing] | None" = None) -> None:
        """Begin without any; they go into `things`: an OrderedDict if the first to come often leaves first."""
        self._things = {} if things is None else things
        self._numbers: list[int] = []  # rising, unless an older one has come last
        self._is_rising = True
        self.get = self._things.get  # returns what is known of the task with a number; None: nothing
        self.remove = self._things.__delitem__  # forgets the task with a number

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[Thing]:
        return iter(self._things.values())

    def add(self, number: int, thing: Thing) -> None:
        """Take in a task; its number is greater than all before."""
        self._things[number] = thing
        self._numbers.append(number)
        if not number % SELDOM and len(self._numbers) > 2 * len(self._things):
            self._sort()

    def insert(self, number: int, thing: Thing) -> None:
        """Take in a task that may be older than others."""
        if self._numbers and number <= self._numbers[-1]:
            self._is_rising = False
        self.add(number, thing)

    def after(self, number: int) -> tuple[Iterator[Thing], int | None]:
        """Return some tasks with greater numbers, and from where to go on; None: there are no more."""
        first = bisect_right(self._rising(), number)
        numbers = self._numbers[first : first + MOST_NUMBERS]
        return self._found(numbers), numbers[-1] if first + MOST_NUMBERS < len(self._numbers) else None

    def before(self, number: int) -> tuple[Iterator[Thing], int | None]:
        """Return some tasks with smaller numbers, the greatest first, and from where to go on; None: no more."""
        end = bisect_left(self._rising(), number)
        first = max(0, end - MOST_NUMBERS)
        numbers = self._numbers[first:end]
        return self._found(reversed(numbers)), numbers[0] if first else None

    def _found(self, numbers: Iterable[int]) -> Iterator[Thing]:
        return filter(None, map(self.get, numbers))

    def _rising(self) -> list[int]:
        if not self._is_rising:
            self._sort()
        return self._numbers

    def _sort(self) -> None:
        self._numbers = sorted(self._things)
        self._is_rising = True
