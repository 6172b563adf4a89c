"""From the thread that receives replies to an event loop, which is woken once for all that come together."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

MOST_AT_ONCE = 200  # deliveries; then the loop sees to others


class Bridge:
    """Has functions called in a loop with what comes for them in other threads; once it is closed, not at all."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._came: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._is_called = False  # the loop will look, so it needs no other call

    def carry(self, hear: Callable[[Any], object]) -> Callable[[Any], None]:
        """Return what is called in any thread, and has `hear` called in the loop with the same."""
        return partial(self._put, hear)

    def _put(self, hear: Callable[[Any], object], what: Any) -> None:
        self._came.append((hear, what))
        if not self._is_called:
            self._call()

    def _call(self) -> None:
        self._is_called = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed
            self._came.clear()
            self._is_called = False

    def _deliver(self) -> None:
        self._is_called = False  # first, so that what comes from now on is delivered here or calls again
        try:
            for _ in range(min(len(self._came), MOST_AT_ONCE)):
                hear, what = self._came.popleft()
                hear(what)
        finally:
            if self._came:
                self._call()
