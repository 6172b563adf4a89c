"""Frames to messages and back, for all three roles: PROTOCOL.md, as code.

Nothing here knows a socket. A message is a list of frames; a frame is bytes, or the transport's own frame type
where it is large. `parse_...` functions take a message as it was received and raise `MalformedError` when it fits no
rule; the others build messages to send.

An envelope is all that stands before the first empty frame: the routing id that the receiving ROUTER put there,
and whatever the sender had put before the empty frame. It is echoed as it came.
"""

from collections.abc import Sized
from math import isfinite
from typing import NamedTuple

Frames = list[Sized]  # of bytes; large ones may be of the transport's own type

EMPTY = b""
LONGEST_REASON = 1000  # characters of a worker's reason that are kept
LONGEST_TOUCH = 1e9  # seconds, 30 years: what is longer is a mistake

FAIL = b"fail"
REJECT = b"reject"
RELEASE = b"release"
TOUCH = b"touch"


class MalformedError(ValueError):
    """A message that fits no rule of the protocol; the text says which part is wrong."""

    def __init__(self, text: str, envelope: Frames | None = None) -> None:
        super().__init__(text)
        self.envelope = envelope  # where a failure can be sent; None: nobody waits for an answer


class Control(NamedTuple):
    """What a worker says of an attempt, other than its result."""

    verb: bytes  # FAIL, REJECT, RELEASE or TOUCH
    attempt_id: Sized
    reason: str = ""  # with FAIL and REJECT
    seconds: float | None = None  # with TOUCH; None: the timeout


# What the broker receives


def parse_request(message: Frames) -> tuple[Frames, Frames]:
    """Split a client's message into its envelope and the task's body."""
    try:
        empty = message.index(EMPTY)
    except ValueError:
        raise MalformedError("a request without an empty frame before its body", message[:1]) from None
    body = message[empty + 1 :]
    if not body:
        raise MalformedError("a request without a body", message[:empty])
    return message[:empty], body


def parse_ready(message: Frames) -> Frames:
    """Return the envelope of a worker's ready message, whatever its body says."""
    try:
        return message[: message.index(EMPTY)]
    except ValueError:
        raise MalformedError("a ready message without an empty frame") from None


def is_control(message: Frames) -> bool:
    """Tell a control message from a result: a result names its attempt first, which is never empty."""
    return not message[0] or len(message) == 1


def parse_control(message: Frames) -> Control:
    """Read a worker's control message; an attempt id alone means that the attempt failed."""
    if len(message) == 1 and message[0]:
        return Control(FAIL, message[0], "the worker reported a failure")
    if len(message) < 3:
        raise MalformedError("a control message without a verb and an attempt id")
    verb, attempt_id = message[1], message[2]
    argument = _head(message[3], 4 * LONGEST_REASON) if len(message) > 3 else b""
    if verb in (FAIL, REJECT):
        return Control(verb, attempt_id, reason=argument.decode(errors="replace")[:LONGEST_REASON])
    if verb == RELEASE:
        return Control(RELEASE, attempt_id)
    if verb == TOUCH:
        return Control(TOUCH, attempt_id, seconds=_parse_seconds(argument) if argument else None)
    raise MalformedError(f"an unknown verb: {_head(verb, 20)!r}")


def _head(frame: Sized, size: int) -> bytes:
    """Return the first bytes of a frame of any type; all of them support the buffer protocol."""
    return bytes(memoryview(frame)[:size])  # type: ignore[arg-type]


def _parse_seconds(argument: bytes) -> float:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = -1.0
    if not (isfinite(seconds) and 0 < seconds <= LONGEST_TOUCH):
        raise MalformedError(f"a touch whose argument is not a number of seconds: {argument[:20]!r}")
    return seconds


# What the broker sends


def task_message(envelope: Frames, attempt_id: bytes, body: Frames) -> Frames:
    """Build the answer to a ready message: one attempt of a task."""
    return [*envelope, EMPTY, attempt_id, *body]


def reply_message(envelope: Frames, body: Frames) -> Frames:
    """Build the reply to a client; an empty `body` (no frames) is a failure."""
    return [*envelope, EMPTY, *(body or (EMPTY,))]
