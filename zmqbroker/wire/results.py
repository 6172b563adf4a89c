"""What plain workers say of their attempts on RESULTS: a result, or a verb."""

from collections.abc import Sized
from typing import NamedTuple

from zmqbroker.wire.frames import EMPTY, Frames, MalformedError, head, parse_reason, parse_seconds

FAIL = b"fail"  # the verbs
REJECT = b"reject"
RELEASE = b"release"
TOUCH = b"touch"


class Verb(NamedTuple):
    """What a worker says of an attempt, other than its result."""

    name: bytes  # FAIL, REJECT, RELEASE or TOUCH
    attempt_id: Sized
    reason: str = ""  # with FAIL and REJECT
    seconds: float | None = None  # with TOUCH; None: the timeout


def is_verb(message: Frames) -> bool:
    """Tell a verb from a result: a result names its attempt first, which is never empty."""
    return not message[0] or len(message) == 1


def parse_verb(message: Frames) -> Verb:
    """Read a worker's verb; an attempt id alone means that the attempt failed."""
    if len(message) == 1 and message[0]:
        return Verb(FAIL, message[0], "the worker reported a failure")
    if len(message) < 3:
        raise MalformedError("a verb without a name and an attempt id")
    name, attempt_id = message[1], message[2]
    argument = message[3] if len(message) > 3 else EMPTY
    if name in (FAIL, REJECT):
        return Verb(name, attempt_id, reason=parse_reason(argument))
    if name == RELEASE:
        return Verb(RELEASE, attempt_id)
    if name == TOUCH:
        return Verb(TOUCH, attempt_id, seconds=parse_seconds(argument))
    raise MalformedError(f"an unknown verb: {head(name, 20)!r}")
