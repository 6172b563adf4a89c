"""The ids of attempts: opaque to workers, each names a task and one of its hand-outs.

An id has the run of the broker, so that those of an earlier run match nothing; the task's number; the number of the
hand-out; and the task's token, random bytes: who knows it may speak for the attempt, and nobody can make one up.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

TOKEN = 8  # bytes
TOKENS_AT_ONCE = 512  # to ask the system for some is dear


class AttemptIds:
    """Makes the ids of one run, and reads those that come back."""

    def __init__(self, run: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """Begin. `run` starts every id, `random_bytes` returns so many of them."""
        layout = struct.Struct(f">{len(run)}sQQ{TOKEN}s")
        self.next_token: Callable[[], bytes] = _pieces(random_bytes).__next__
        # From the number of a task, that of a hand-out from 1, and the token, to an id.
        self.make: Callable[[int, int, bytes], bytes] = partial(layout.pack, run)
        # From an id to its run, and those three; raises struct.error for what has another length.
        self.read: Callable[[Any], tuple[bytes, int, int, bytes]] = layout.unpack


def _pieces(random_bytes: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield tokens, for ever."""
    while True:
        some = random_bytes(TOKEN * TOKENS_AT_ONCE)
        for start in range(0, len(some), TOKEN):
            yield some[start : start + TOKEN]
