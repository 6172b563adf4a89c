"""A store in memory that dies when it is told to, between any two steps; and what a batch does to what is stored."""

from collections import deque
from collections.abc import Iterator, Set
from math import inf

from zmqbroker.broker.statistics import Times
from zmqbroker.broker.store.gate import Batch, Finished, StoreError, unfit
from zmqbroker.broker.store.rows import DamagedTask, QueueSettings, StoredTask
from zmqbroker.wire import Frames


class SimulatedDisk:
    """What outlives the stores on it."""

    def __init__(self) -> None:
        self.tasks: dict[int, StoredTask] = {}  # by number
        self.queues: dict[str, QueueSettings] = {}
        self.damaged: set[int] = set()  # numbers of tasks that cannot be relied on
        self.has_ended_well = False
        self.is_full = False  # new tasks are refused
        self.room = inf  # bytes for the results of a batch: the largest are left out

    def apply(self, batch: Batch, refused: Set[int] = frozenset()) -> frozenset[int]:
        """Store a batch, all of it at once, but for what was refused before; return the new tasks that are now."""
        if not self.is_full:
            self.tasks |= batch.new
        for number in batch.states.keys() - refused:
            self.tasks[number] = self.tasks[number]._replace(state=batch.states[number])
        for number in batch.results.keys() - refused:
            state, result = batch.results[number]
            self.tasks[number] = StoredTask(self.tasks[number].request, state, result, size(result))
        for number, request in batch.renewed.items():
            self.tasks[number] = self.tasks[number]._replace(request=request)
        for number in batch.forgotten:
            self.tasks.pop(number, None)
        for name, settings in batch.queues.items():
            if settings is None:
                self.queues.pop(name, None)
            else:
                self.queues[name] = settings
        return frozenset(batch.new) if self.is_full else frozenset()

    def find(self, number: int, most: float = inf) -> StoredTask | DamagedTask | None:
        """Return a task; without its body if that is larger than `most` bytes, and it is settled."""
        task = self.tasks.get(number)
        if task is None or number not in self.damaged:
            return task if task is None or task.size <= most else without_result(task)
        return DamagedTask(number, task.request.key, task.request.owner)

    def load(self) -> list[StoredTask | DamagedTask]:
        """Return all tasks as a store loads them: what is settled without its body."""
        found = [self.find(number) for number in sorted(self.tasks)]
        return [without_result(task) for task in found if task is not None]


class SimulatedStore:
    """A store across a network, so to speak: what was started is on the disk after `commit`, and told by `finished`.

    Whoever plays its part calls `commit` as often as it likes. After `die` it can do nothing, and what was started and
    not committed is lost; another one on the same disk finds the rest.
    """

    def __init__(self, disk: SimulatedDisk, slice_length: int = 2) -> None:
        self.disk = disk
        self.path = "simulated"
        self.run = b"runofall"
        self.has_ended_well, disk.has_ended_well = disk.has_ended_well, False
        self.highest = max(disk.tasks, default=0)
        self.floor = self.free = self.size = 0
        self.commits = Times()
        self.started: deque[Batch] = deque()  # and not yet on the disk
        self._slice_length = slice_length
        self._refused: set[int] = set()  # new tasks
        self._finished: list[Finished] = []
        self._is_dead = False

    @property
    def is_low(self) -> bool:
        return self.free < self.floor

    def queues(self) -> list[QueueSettings]:
        return sorted(self.disk.queues.values())

    def load(self) -> Iterator[list[StoredTask | DamagedTask]]:
        found = [task for task in self.disk.load() if number_of(task) <= self.highest]
        for start in range(0, len(found), self._slice_length):
            yield found[start : start + self._slice_length]

    def start(self, batch: Batch) -> None:
        self._live()
        self.started.append(batch)

    def commit(self) -> bool:
        """Have the oldest batch on the disk; tell whether there was one."""
        self._live()
        if not self.started:
            return False
        batch = self.started.popleft()
        left = unfit(batch.results, self.disk.room)
        fitting = batch.without_results(left)
        refused = self.disk.apply(fitting, self._refused)
        self._refused |= refused
        found = {number: self.disk.find(number, most) for number, most in batch.wanted.items()}
        self._finished.append(Finished(batch, refused, {number: fitting.states[number] for number in left}, found))
        return True

    def fileno(self) -> None:
        return None

    def finished(self) -> list[Finished]:
        self._live()
        finished, self._finished = self._finished, []
        return finished

    def look(self) -> None:
        self._live()

    def tidy(self) -> bool:
        return False

    def close(self) -> None:
        self._live()
        while self.commit():
            pass
        self.disk.has_ended_well = True
        self.die()

    def die(self) -> None:
        self.started.clear()
        self._is_dead = True

    def _live(self) -> None:
        if self._is_dead:
            raise StoreError("the store is dead")


def number_of(task: StoredTask | DamagedTask) -> int:
    return task.number if isinstance(task, DamagedTask) else task.request.number


def without_result(task: StoredTask | DamagedTask) -> StoredTask | DamagedTask:
    if isinstance(task, DamagedTask) or task.state.until is None:
        return task
    return task._replace(body=None)


def size(body: Frames) -> int:
    return sum(map(len, body))
