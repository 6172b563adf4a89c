"""A dispatcher as tests use it, with workers that announce themselves, and times that are literal."""

from hypothesis import strategies as st

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.task import Record, Task, Worker
from zmqbroker.wire import Announce, Header

UNSTORED = {  # fields of a header that has nothing to do with a store
    "durable": st.just(False),
    "detach": st.just(False),
    "keep": st.none(),
    "fetch": st.none(),
    "body": st.just(True),
    "forget": st.just(False),
}

SERIAL = Announce(label="serial", serial=True)
PARALLEL = Announce(label="parallel")
NOT_STORED = {  # for strategies of headers that want nothing of a store
    name: st.just(Header._field_defaults[name]) for name in ("durable", "detach", "keep", "fetch", "body", "forget")
}


class Core(Dispatcher):
    """A dispatcher, and what one does to it."""

    def join(self, worker: str, asks: int, announce: Announce = SERIAL, ids: tuple[bytes, ...] = ()) -> None:
        self.announce(worker.encode(), announce, list(ids), 0.0)
        self.ask(worker.encode(), asks)

    def tasks(self, *names: str, **fields: object) -> None:
        for name in names:
            header = Header(**fields) if fields else None  # type: ignore[arg-type]
            self.submit([name.encode()], [name.encode()], 0.0, header)

    def give(self, now: float = 0.0) -> list[tuple[str, str]]:
        """Hand out all that can be, as pairs of a worker and a task."""
        return [(worker, name(task)) for worker, task in self.take(now)]

    def take(self, now: float = 0.0) -> list[tuple[str, Task]]:
        pairs = []
        while (pair := self.hand_out(now)) is not None:
            pairs.append((bytes(pair[0][0]).decode(), pair[1]))
        return pairs

    def done(self, worker: str, attempt_id: bytes, now: float, asks: int = 0) -> None:
        self.answer(worker.encode(), attempt_id, asks, [b"result"], now)

    def failed(self, worker: str, attempt_id: bytes, now: float, asks: int = 0) -> None:
        self.answered(worker.encode(), attempt_id, asks, now)
        self.fail(attempt_id, "no", now)

    def said(self) -> list[tuple[str, bytes, bytes]]:
        """Take what workers are to be told."""
        told = [(bytes(one.worker_id).decode(), one.verb, one.what) for one in self.told]
        self.told.clear()
        return told

    def outcomes(self) -> list[tuple[str, str, int]]:
        """Take what was settled: task, status, attempts."""
        settled = [(bytes(task.envelope[0]).decode(), task.status, task.attempts) for task in self.settled]
        self.settled.clear()
        return settled


def name(task: Task) -> str:
    return bytes(task.body[0]).decode()


def entries(dispatcher: Dispatcher) -> int:
    """Return how many entries its queues have, stale ones too."""
    groups = [group for queue in dispatcher._queues for group in queue._groups.values()]
    return sum(len(line) for group in groups for line in group._lines.values())


def ranks(dispatcher: Dispatcher) -> int:
    """Return how many lines its queues have, empty ones too."""
    groups = [group for queue in dispatcher._queues for group in queue._groups.values()]
    assert all(len(group._lines) == len(group._ranks) for group in groups)
    return sum(len(group._lines) for group in groups)


def places(dispatcher: Dispatcher) -> int:
    """Return how many entries the lines of its workers have, stale ones too."""
    pools = dispatcher._workers._pools.values()
    lines = [line for pool in pools for line in (pool.free, pool.ahead)]
    return sum(len(line._entries) + len(line._doubted) for line in lines)


def due(dispatcher: Dispatcher, *kinds: type) -> float | None:
    """Return the next instant of any of these kinds of things, as of all but queues."""
    dispatcher.next_due()  # as each turn of the loop asks
    wanted = kinds or (Task, Worker, Record)
    instants = [thing.due for thing in dispatcher._timers if isinstance(thing, wanted)]
    if not kinds:
        instants.append(dispatcher._kept.next_due())
    return min((instant for instant in instants if instant is not None), default=None)
