"""All queues, or workers, of a broker, as they were a moment ago: a walk through the pages of its answers.

A page takes the broker about a millisecond, of which it gives no more than a twentieth of its time while it has other
things to do. So the more pages there are the longer a walk is good, that walks take REST_SHARE of the broker at most.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from zmqbroker.web.asker import FRESH, Answer, UnansweredError

PAGE_TAKES = 0.001  # seconds of the broker's
REST_SHARE = 50  # times as long as a walk takes the broker, none is begun after it
MOST_PAGES = 10_000  # a broker's own lists end after 50,000 things
PATIENCE = 8.0  # seconds for a first walk to end: scrapes are given up after 10

Ask = Callable[..., Awaitable[Answer]]


class Walk:
    """Walks through a list; who wants to have it shares a walk with all others who do."""

    def __init__(self, ask: Ask, what: str, noted: Callable[[list[Answer]], None] | None = None) -> None:
        """Prepare; `ask` asks the broker for `what`, `noted` (None: nobody) is told of each walk's things."""
        self.pages = 1  # of the last walk
        self.last: Answer = {}  # the answer that its last page came in
        self._ask = ask
        self._what = what
        self._noted = noted
        self._things: list[Answer] = []
        self._ended = -1.0  # when the last walk did; negative: none has
        self._walking: asyncio.Task[None] | None = None

    @property
    def rest(self) -> float:
        """The seconds for which a walk is good."""
        return max(FRESH, self.pages * PAGE_TAKES * REST_SHARE)

    def age(self, now: float) -> float:
        """Return how many seconds ago the last walk ended."""
        return round(now - self._ended, 3)

    async def things(self, patience: float = PATIENCE) -> list[Answer]:
        """Return all things; of the last walk, if a new one takes longer than `patience` seconds.

        Raises UnansweredError where there has been no walk either, or it fails; ControlError where it is refused.
        """
        if self._ended < 0 or monotonic() >= self._ended + self.rest:
            if self._walking is None or self._walking.done():
                self._walking = asyncio.create_task(self._walk())
                self._walking.add_done_callback(_hear)
            done, _ = await asyncio.wait([self._walking], timeout=patience)
            if done:
                self._walking.result()
            elif self._ended < 0:
                raise UnansweredError(f"the broker has not told of all its {self._what} in {patience:g} s")
        return self._things

    def forget(self) -> None:
        """Forget the last walk: it was of another run of the broker."""
        self._things, self._ended = [], -1.0

    def stop(self) -> None:
        """Walk no further."""
        if self._walking is not None:
            self._walking.cancel()

    async def _walk(self) -> None:
        found: list[Answer] = []
        pages, cursor = 0, 0
        while cursor is not None:
            before, self.last = cursor, await self._ask(self._what, after=cursor)
            found += self.last[self._what]
            pages, cursor = pages + 1, self.last["cursor"]
            if cursor is not None and (cursor <= before or pages == MOST_PAGES):
                raise UnansweredError(f"the broker's list of {self._what} does not end")
        self._things, self.pages, self._ended = found, pages, monotonic()
        if self._noted is not None:
            self._noted(found)


def _hear(walking: "asyncio.Task[None]") -> None:
    """Hear why a walk has failed, which nobody else does where nobody waits for it any more."""
    if not walking.cancelled():
        walking.exception()
