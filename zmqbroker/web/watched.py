"""What is known of one broker: its answers, walks through its lists, its last ten minutes, and counters of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from zmqbroker.transport.control import ControlSocket
from zmqbroker.web.asker import Answer, Asker, UnansweredError
from zmqbroker.web.history import History
from zmqbroker.web.tally import Places, Tally
from zmqbroker.web.walk import Walk
from zmqbroker.wire.control import ControlError

LOOKS_EVERY = 5.0  # seconds
LOOKS_SHARE = 2  # times as long as a walk is good, looks are apart: nobody may be there who wants to see them
MOST_PLACES = 1000  # queues that have series of their own
DRAINING = "draining"  # the state of a broker that is about to end
OTHERS = "other"  # what all others are called together
LONGEST_WAIT = 5.0  # seconds for an answer, behind other questions

ENDINGS = ("result", "fail", "reject", "release", "timeout", "lost")  # of attempts
SETTLED = ("done", "failed", "cancelled", "expired")
WAITED = 1 + len(SETTLED) + len(ENDINGS)  # where the buckets of times begin; after them come their seconds

Connect = Callable[[str], ControlSocket]


class Watched:
    """A broker that is watched."""

    def __init__(self, address: str, connect: Connect, is_named: bool) -> None:
        """Begin; `is_named`: the user has named its address, so that is what it is called, and else its REQUESTS."""
        self.address = address
        self.history = History()
        self.places = Places(MOST_PLACES, OTHERS)
        self.tally = Tally()
        self.asker = Asker(lambda: connect(address))
        self.queues = Walk(self.ask, "queues", self._note_queues)
        self.workers = Walk(self.ask, "workers")
        self.status: Answer | None = None  # the last; None: it has never answered
        self._is_named = is_named
        self._looking = asyncio.create_task(self._look())

    @property
    def name(self) -> str:
        """What it is called, and what its series are labelled with."""
        return self.address if self._is_named or self.status is None else str(self.status["addresses"]["requests"])

    async def ask(self, ask: str, **fields: Any) -> Answer:
        """Return an answer; raises UnansweredError, or ControlError for what is refused."""
        shared = asyncio.shield(asyncio.wrap_future(self.asker.ask(ask, **fields)))  # others may wait for it
        try:
            answer = await asyncio.wait_for(shared, LONGEST_WAIT)
        except asyncio.TimeoutError:
            raise UnansweredError(f"the broker at {self.address} has not answered in {LONGEST_WAIT:g} s") from None
        if ask == "status":
            self._note_status(answer)
        return answer

    @property
    def has_drained(self) -> bool:
        """Whether it was about to end, as it was told to, when it was heard of last."""
        return self.status is not None and self.status["state"] == DRAINING

    def leave(self) -> None:
        """Ask no more, as it is gone; what was told of it stays."""
        self._looking.cancel()
        self.asker.stop(f"no broker answers at {self.address} any more")

    async def close(self) -> None:
        """Ask no more."""
        self._looking.cancel()
        self.queues.stop()
        self.workers.stop()
        await asyncio.to_thread(self.asker.close)

    def _note_status(self, status: Answer) -> None:
        """Take note of a status; of another run of the broker, everything that counts begins anew."""
        before, self.status = self.status, status
        if before is None or (before["pid"] == status["pid"] and before["uptime"] <= status["uptime"]):
            return
        self.tally = Tally()
        self.queues.forget()
        self.workers.forget()

    def _note_queues(self, queues: list[Answer]) -> None:
        counts = {queue["name"]: counts_of(queue) for queue in queues}
        self.places.look(counts)
        self.tally.look(counts, self.places.names)

    async def _look(self) -> None:
        """Look from time to time, and remember what was seen."""
        while True:
            with suppress(UnansweredError, ControlError):
                status = await self.ask("status")
                queues = await self.queues.things()
                placed = {queue["name"]: queue for queue in queues if queue["name"] in self.places.names}
                self.history.add(monotonic(), status | status["totals"], placed)
            await asyncio.sleep(max(LOOKS_EVERY, LOOKS_SHARE * self.queues.rest))


def counts_of(queue: Answer) -> list[float]:
    """Return what only grows of what is told of a queue: as `accepted`, SETTLED, ENDINGS, `waited` and `ran`."""
    attempts, waited, ran = queue["attempts"], queue["waited"], queue["ran"]
    return [
        queue["accepted"],
        *(queue[status] for status in SETTLED),
        *(attempts[ending] for ending in ENDINGS),
        *(*waited["counts"], waited["seconds"]),
        *(*ran["counts"], ran["seconds"]),
    ]
