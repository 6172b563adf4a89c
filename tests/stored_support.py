"""A dispatcher with a store and a control, and one worker, for tests of what is stored."""

from typing import Any

from core_support import Core
from simulated_store import SimulatedDisk, SimulatedStore

from zmqbroker.broker.about import Answer
from zmqbroker.broker.control import Control
from zmqbroker.broker.questions import Later, RefusedError
from zmqbroker.broker.store.journal import HandOut, Journal
from zmqbroker.broker.storing import Storing
from zmqbroker.broker.task import Task
from zmqbroker.wire import Header


class StoredCore(Core):
    """A dispatcher with a store, and with whom tasks are once that is stored."""

    def __init__(self, disk: SimulatedDisk | None = None, **settings: Any) -> None:
        self.store = SimulatedStore(disk or SimulatedDisk())
        super().__init__(journal=Journal(self.store.run, self.store.highest), **settings)
        self.sent: list[HandOut] = []
        self.storing = Storing(self.store, self, lambda hand_out, now: self.sent.append(hand_out))
        self.storing.load(0.0, lambda: False)
        self.control = Control(self, lambda worker: "", lambda: None, self.store)
        self.join("worker", 1)

    def turn(self, now: float = 0.0) -> None:
        """Take a turn, and have all of it stored, and what follows from it."""
        for envelope, task in iter(lambda: self.hand_out(now), None):
            self.journal.hold(HandOut(envelope, task, task.attempt_id))
        while self.storing.has_news or self.store.started:
            self.storing.turn(now)
            while self.store.commit():
                pass
            self.storing.turn(now)

    def leave(self, key: str, body: bytes = b"body", **fields: Any) -> None:
        """Have a task stored whose client does not wait."""
        self.submit([b"client"], [body], 0.0, Header(key=key, detach=True, **fields))

    def fail_next(self, reason: str = "no", now: float = 0.0) -> Task:
        """Have the worker reject the next task, and ask for another one."""
        self.turn(now)
        task = self.sent.pop().task
        self.answered(b"worker", task.attempt_id, 1, now)
        self.reject(task.attempt_id, reason, now)
        self.turn(now)
        return task

    def do_next(self, now: float = 0.0) -> Task:
        self.turn(now)
        task = self.sent.pop().task
        self.done("worker", task.attempt_id, now, asks=1)
        self.turn(now)
        return task

    def inquire(self, ask: str, now: float = 0.0, **fields: Any) -> Answer:
        """Return the answer to a question, once it is there; raises RefusedError."""
        answer = self.control.answer({"ask": ask, **fields}, now)
        if isinstance(answer, Later):
            told: list[Answer | RefusedError] = []
            answer.then = told.append
            self.turn(now)
            (answer,) = told  # type: ignore[assignment]
        if isinstance(answer, RefusedError):
            raise answer
        assert isinstance(answer, dict)
        return answer

    def begin_anew(self) -> "StoredCore":
        """Return a broker that begins with what this one has stored."""
        self.store.die()
        return StoredCore(self.store.disk)
