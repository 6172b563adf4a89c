"""Tasks that wait for a worker: in a queue, groups take turns; in a group, the lowest rank comes first.

A task that leaves its line out of turn (it is cancelled, it expires) stays there as a stale entry, to be passed over
later: so each step costs the same however many wait. A line or a ring of groups whose stale entries outnumber the live
ones is rebuilt without them: so its memory is proportional to what is live.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from typing import TYPE_CHECKING

from zmqbroker.broker.statistics import Statistics
from zmqbroker.broker.task import WAITING, Task
from zmqbroker.wire import DEFAULT_QUEUE

if TYPE_CHECKING:
    from zmqbroker.broker.workers import Pool

STALE_KEPT = 1000  # fewer stale entries are not worth a rebuild
EMPTY_KEPT = 100  # fewer empty lines or groups are not either


class Group:
    """The waiting tasks of one group: a line for each rank that occurs, the lowest rank first.

    A task knows how many of its entries are stale; one that waits again may have older ones.
    """

    def __init__(self) -> None:
        self.live = 0
        self.is_in_turn = False  # it has a place in its queue's ring
        self._stale = 0  # entries
        self._lines: dict[int, deque[Task]] = {}  # by rank
        self._ranks: list[int] = []  # a heap of the ranks that have a line
        self._most_lines = EMPTY_KEPT  # with more, it is time to look for empty ones

    def __iter__(self) -> Iterator[Task]:
        return (task for line in self._lines.values() for task in line if task.status is WAITING)

    def append(self, task: Task) -> None:
        """Put a task at the end of its line."""
        rank = task.rank
        line = self._lines.get(rank)
        if line is None:
            line = self._begin_line(rank)
        line.append(task)
        self.live += 1

    def append_first(self, task: Task) -> None:
        """Put a task at the front of its line."""
        rank = task.rank
        line = self._lines.get(rank)
        if line is None:
            line = self._begin_line(rank)
        line.appendleft(task)
        self.live += 1

    def pop(self) -> Task:
        """Take the first task; there must be one."""
        while True:
            line = self._lines[self._ranks[0]]
            if not line:
                del self._lines[heappop(self._ranks)]
                continue
            task = line.popleft()
            if task.stale:
                task.stale -= 1
                self._stale -= 1
                continue
            self.live -= 1
            if self._stale and not self.live:
                self.forget_entries()
            return task

    def withdraw(self, task: Task) -> None:
        """Count one entry less as live: its task is settled, or runs without having been taken from here."""
        self.live -= 1
        self._stale += 1
        task.stale += 1
        if not self.live:
            self.forget_entries()
        elif self._stale > self.live + STALE_KEPT:
            for rank, line in self._lines.items():
                self._lines[rank] = deque(task for task in line if _is_live(task))
            self._stale = 0
            self._drop_empty_lines()

    def firsts(self) -> Iterator[Task | None]:
        """Yield the first task of each line, and None for each stale entry before it, which is dropped."""
        for line in self._lines.values():
            while line and line[0].stale:
                line.popleft().stale -= 1
                self._stale -= 1
                yield None
            yield line[0] if line else None

    def forget_entries(self) -> None:
        """Forget the stale entries; there are no live ones."""
        for line in self._lines.values():
            for task in line:
                if task.stale:
                    task.stale -= 1
            line.clear()
        self._stale = 0

    def _begin_line(self, rank: int) -> deque[Task]:
        if len(self._lines) >= self._most_lines:
            self._drop_empty_lines()
        heappush(self._ranks, rank)
        line = self._lines[rank] = deque()
        return line

    def _drop_empty_lines(self) -> None:
        self._lines = {rank: line for rank, line in self._lines.items() if line}
        self._ranks = sorted(self._lines)
        self._most_lines = 2 * len(self._lines) + EMPTY_KEPT


def _is_live(task: Task) -> bool:
    """Tell whether an entry is live; a stale one is forgotten."""
    if task.stale:
        task.stale -= 1
        return False
    return True


class Queue:
    """A queue: its waiting tasks, what is known of it, and its settings."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.statistics = Statistics()
        self.running = 0
        self.delayed = 0
        self.live = 0  # tasks in their groups, that the next worker may have
        self.aside: OrderedDict[Task, None] = OrderedDict()  # waiting ones that are for workers not in doubt
        self.pools: list[Pool] = []  # of workers that ask from it
        self.limit: int | None = None  # tasks that may run at once; None: any number
        self.limit_waiting: int | None = None  # tasks that may wait; None: any number
        self.is_paused = False
        self.is_closed = False  # nothing is handed out: it is paused, or as many run as may
        self.due: float | None = None  # when to say that no worker asks from it; None: one does, or nothing waits
        self.timer = 0  # names the entry of that instant; 0: there is none
        self.is_served = False  # a task was handed out since that instant was set
        self.said = 0  # times that this was said, since it was last not so
        self._groups: dict[Hashable, Group] = {}
        self._ring: deque[Group] = deque()  # of those that have a task, and of some that had one
        self._most_groups = EMPTY_KEPT  # with more, it is time to look for those without

    def __iter__(self) -> Iterator[Task]:
        yield from self.aside
        for group in self._groups.values():
            yield from group

    @property
    def waiting(self) -> int:
        """The number of tasks that wait, not delayed."""
        return self.live + len(self.aside)

    @property
    def unsettled(self) -> int:
        """The number of tasks that are not settled."""
        return self.statistics.unsettled

    @property
    def has_workers(self) -> bool:
        """Tell whether a worker asks from it."""
        for pool in self.pools:  # noqa: SIM110 (it is asked for each task, and any() costs three times as much)
            if pool.members:
                return True
        return False

    @property
    def plight(self) -> str:
        """Return why what waits here may do so for ever; nothing if it need not."""
        if self.is_paused:
            return f"the queue {self.name} is paused"
        return "" if self.has_workers else f"no worker asks from the queue {self.name}"

    @property
    def is_forgettable(self) -> bool:
        """Tell whether there is nothing to know of it."""
        has_settings = self.is_paused or self.limit is not None or self.limit_waiting is not None
        return not (self.unsettled or self.pools or has_settings or self.name == DEFAULT_QUEUE)

    def append(self, task: Task) -> None:
        """Put a task at the end of its line."""
        group = self._groups.get(task.group) or self._new_group(task.group)
        if not group.is_in_turn:
            self._give_turn(group)
        group.append(task)
        self.live += 1

    def append_first(self, task: Task) -> None:
        """Put a task at the front of its line."""
        group = self._groups.get(task.group) or self._new_group(task.group)
        if not group.is_in_turn:
            self._give_turn(group)
        group.append_first(task)
        self.live += 1

    def pop(self) -> Task:
        """Take the first task of the group whose turn it is; there must be one that is not aside."""
        ring = self._ring
        while not ring[0].live:
            ring.popleft().is_in_turn = False
        group = ring[0]
        task = group.pop()
        self.live -= 1
        if len(ring) > 1:
            if group.live:
                ring.rotate(-1)
            else:
                ring.popleft().is_in_turn = False
        if not self.live and len(self._groups) > EMPTY_KEPT:
            self._forget_empty_groups()
        return task

    def withdraw(self, task: Task) -> None:
        """Take a waiting task out: it is settled, or runs without having been taken from here."""
        if self.aside and task in self.aside:
            del self.aside[task]
            return
        self._groups[task.group].withdraw(task)
        self.live -= 1
        if not self.live and len(self._groups) > EMPTY_KEPT:
            self._forget_empty_groups()

    def consider(self) -> None:
        """Have it looked at whether a worker is ready for its tasks."""
        for pool in self.pools:
            pool.consider()

    def oldest(self, most: int) -> Task | None:
        """Return the task that has waited longest of the first ones in their lines, as far as so many steps tell.

        None: none waits, or none was found. A step is a line, or a stale entry before its first task, which is dropped:
        the next look need not pass it again.
        """
        aside = [next(iter(self.aside))] if self.aside else []
        steps = chain.from_iterable(group.firsts() for group in islice(self._ring, most))
        firsts = [*aside, *filter(None, islice(steps, most))]
        return min(firsts, key=lambda task: task.accepted, default=None)

    def update(self) -> None:
        """Heed a change of its settings, or of what runs while there is a limit."""
        was_closed = self.is_closed
        self.is_closed = self.is_paused or (self.limit is not None and self.running >= self.limit)
        if was_closed and not self.is_closed:
            self.consider()

    def _new_group(self, key: Hashable) -> Group:
        if len(self._groups) >= self._most_groups:
            self._forget_empty_groups()
        group = self._groups[key] = Group()
        return group

    def _give_turn(self, group: Group) -> None:
        while self._ring and not self._ring[0].live:  # one that was alone keeps its place until another one comes
            self._ring.popleft().is_in_turn = False
        group.is_in_turn = True
        self._ring.append(group)

    def _forget_empty_groups(self) -> None:
        self._groups = {key: group for key, group in self._groups.items() if group.live}
        self._ring = deque(group for group in self._ring if group.live)
        self._most_groups = 2 * len(self._groups) + EMPTY_KEPT


class Queues:
    """All queues by name: those that have tasks, workers or settings, and the default one."""

    def __init__(self) -> None:
        self.default = Queue(DEFAULT_QUEUE)
        self._queues = {DEFAULT_QUEUE: self.default}

    def __iter__(self) -> Iterator[Queue]:
        return iter(self._queues.values())

    def __len__(self) -> int:
        return len(self._queues)

    def get(self, name: str) -> Queue | None:
        """Return the queue of a name; None: there is nothing to know of it."""
        return self._queues.get(name)

    def find(self, name: str) -> Queue:
        """Return the queue of a name, a new one if need be."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = Queue(name)
        return queue

    def set_limit(self, name: str, limit: int | None) -> None:
        """Have so many tasks of a queue run at once, at most; None: any number."""
        queue = self.find(name)
        queue.limit = limit
        queue.update()
        queue.consider()
        self.forget_if_empty(queue)

    def set_limit_waiting(self, name: str, limit: int | None) -> None:
        """Have so many tasks of a queue wait, at most; None: any number."""
        queue = self.find(name)
        queue.limit_waiting = limit
        self.forget_if_empty(queue)

    def pause(self, name: str) -> None:
        """Hand out no tasks of a queue until it is resumed; what runs goes on."""
        queue = self.find(name)
        queue.is_paused = True
        queue.update()

    def resume(self, name: str) -> None:
        """Hand out tasks of a queue again."""
        queue = self.find(name)
        queue.is_paused = False
        queue.update()
        self.forget_if_empty(queue)

    def forget_if_empty(self, queue: Queue) -> None:
        """Forget a queue if there is nothing to know of it."""
        if queue.is_forgettable:
            self._queues.pop(queue.name, None)
