"""Tasks and turns for the tests of the store: each seed has one story, that can be told again from any point."""

import random

from simulated_store import SimulatedDisk, size

from zmqbroker.broker.store.gate import Batch
from zmqbroker.broker.store.rows import Request, State, StoredTask
from zmqbroker.wire import CANCELLED, DONE, EXPIRED, FAILED

NO_RESERVE = {"floor": 0, "reserve": 0}
LATER = 4e9  # an instant


def stored(number: int, *body: bytes, **fields: object) -> StoredTask:
    """Return a new task that waits."""
    request = Request(number, b"secret%02d" % (number % 100), f"key-{number}", **fields)  # type: ignore[arg-type]
    frames = body or (b"body of %d" % number,)
    return StoredTask(request, State(), list(frames), size(list(frames)))


def batch_of(*tasks: StoredTask) -> Batch:
    batch = Batch()
    for task in tasks:
        batch.add(task)
    return batch


class Story:
    """What a broker has stored turn by turn, made up from a seed; and what is on its disk after so many turns."""

    def __init__(self, seed: int, most_tasks: int = 8, largest: int = 300) -> None:
        self._random = random.Random(seed)
        self._most_tasks = most_tasks
        self._largest = largest
        self._next_number = 1
        self.disk = SimulatedDisk()
        self.turns = 0

    def tell(self) -> Batch:
        """Return the next turn."""
        batch, chance = Batch(), self._random
        self.turns += 1
        for number, task in sorted(self.disk.tasks.items()):
            event = chance.random()
            if task.state.until is not None:
                if event < 0.2:
                    batch.forget(number)
            elif event < 0.25:
                hand_outs = task.state.hand_outs + 1
                batch.change(number, State("running", None, hand_outs, hand_outs, 0, "", f"worker {hand_outs}"))
            elif event < 0.45:
                batch.change(number, State(DONE, None, 1, 1, until=LATER), self._body(b"result"))
            elif event < 0.55:
                batch.change(number, State(chance.choice([FAILED, CANCELLED, EXPIRED]), reason="no", until=LATER))
            elif event < 0.6:
                batch.forget(number)
        for _ in range(chance.randint(1, self._most_tasks)):
            fields = {"queue": chance.choice([None, "mail"]), "priority": chance.randint(-2, 2), "timeout": 5}
            batch.add(stored(self._next_number, *self._body(b"body"), **fields))
            self._next_number += 1
        self.disk.apply(batch)
        return batch

    def _body(self, what: bytes) -> list[bytes]:
        chance = self._random
        length = chance.choice([0, 10, self._largest])
        return [b"%s %d %d;" % (what, self.turns, frame) * length for frame in range(chance.choice([1, 1, 3]))]
