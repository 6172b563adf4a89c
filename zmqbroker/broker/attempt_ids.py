"""The ids of attempts: opaque to workers, each names a task and one of its hand-outs.

An id has the run of the broker, so that those of an earlier run match nothing; the task's number; the number of the
hand-out; and the task's token, random bytes: who knows it may speak for the attempt, and nobody can make one up.
"""

import struct
from collections.abc import Callable, Iterator, Sized

from zmqbroker.wire import MalformedError

TOKEN = 8  # bytes
TOKENS_AT_ONCE = 512  # to ask the system for some is dear


class AttemptIds:
    """Makes the ids of one run, and reads those that come back."""

    def __init__(self, run: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """Begin. `run` starts every id, `random_bytes` returns so many of them."""
        self._run = run
        self._struct = struct.Struct(f">{len(run)}sQQ{TOKEN}s")
        self.next_token: Callable[[], bytes] = _pieces(random_bytes).__next__

    def make(self, number: int, hand_out: int, token: bytes) -> bytes:
        """Return the id of a hand-out of a task."""
        return self._struct.pack(self._run, number, hand_out, token)

    def read(self, attempt_id: Sized) -> tuple[int, int, bytes] | None:
        """Return the task's number, the number of the hand-out and the token; None: the id is of another run.

        Raises MalformedError for what is none.
        """
        try:
            run, number, hand_out, token = self._struct.unpack(attempt_id)  # type: ignore[arg-type]
        except struct.error:  # it has another length
            raise MalformedError("no attempt id of a broker") from None
        return (number, hand_out, token) if run == self._run else None


def _pieces(random_bytes: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield tokens, for ever."""
    while True:
        some = random_bytes(TOKEN * TOKENS_AT_ONCE)
        for start in range(0, len(some), TOKEN):
            yield some[start : start + TOKEN]
