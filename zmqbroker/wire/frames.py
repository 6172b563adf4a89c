"""What every message is made of: frames, and the looks at them that all roles share.

A message is a list of frames; a frame is bytes, or the transport's own frame type where it is large. An envelope is all
that stands before the first empty frame: the routing id that the receiving ROUTER put there, and whatever the sender
had put before the empty frame. It is echoed as it came.
"""

from collections.abc import Sized
from math import inf
from typing import Any

Frames = list[Sized]  # of bytes; large ones may be of the transport's own type

EMPTY = b""
LARGEST_ENVELOPE = 65536  # bytes, without the routing id and the header
MOST_FRAMES = 1000  # of a message that the broker receives
LONGEST_SPAN = 1e9  # seconds, 30 years: what is longer is a mistake
LONGEST_REASON = 1000  # characters of a worker's reason that are kept


class MalformedError(ValueError):
    """A message that fits no rule of the protocol; the text says which part is wrong."""


def head(frame: Sized, size: int) -> bytes:
    """Return the first bytes of a frame of any type; all of them support the buffer protocol."""
    return frame[:size] if isinstance(frame, bytes) else bytes(_view(frame)[:size])


def is_same(frames: Frames, others: Frames) -> bool:
    """Tell whether two lists of frames of any type are equal byte for byte; `==` looks into bytes only."""
    return list(map(_view, frames)) == list(map(_view, others))


def plain(body: Frames) -> Any:
    """Return a body as those see it who need not care about frames: bytes, or a list of bytes if there are several."""
    if len(body) == 1:
        return bytes(body[0])  # type: ignore[call-overload]
    return [bytes(frame) for frame in body]  # type: ignore[call-overload]


def frames_of(body: Any) -> Frames:
    """Return the frames of a body as one gives it, copies of what may change.

    Raises TypeError for what is no body, ValueError for one of no frames.
    """
    if isinstance(body, bytes):
        return [body]
    if isinstance(body, (bytearray, memoryview)):
        return [bytes(body)]
    if not is_list(body):
        raise TypeError(f"a body is bytes or a list of bytes, not {type(body).__name__}")
    if not body:
        raise ValueError("a body has at least one frame: an empty one is b'' or [b'']")
    for frame in body:
        if not isinstance(frame, (bytes, bytearray, memoryview)):
            raise TypeError(f"a body is bytes or a list of bytes, not a list with {type(frame).__name__}")
    return [bytes(frame) for frame in body]


def is_list(body: Any) -> bool:
    """Tell whether a body is a list of frames: then so is its result."""
    return isinstance(body, (list, tuple))


def parse_reason(argument: Sized) -> str:
    """Read why an attempt failed: text, whatever it is, up to a length."""
    return head(argument, 4 * LONGEST_REASON).decode(errors="replace")[:LONGEST_REASON]


def parse_seconds(argument: Sized) -> float | None:
    """Read for how long a worker asks; None: it does not say. Raises MalformedError for what is no such number."""
    text = head(argument, 40)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = inf
    if not 0 < seconds <= LONGEST_SPAN:
        raise MalformedError(f"a touch whose argument is not a number of seconds: {text[:20]!r}")
    return seconds


def is_large_envelope(envelope: Frames) -> bool:
    """Tell whether an envelope is larger than anybody needs; its routing id does not count."""
    return len(envelope) > 1 and sum(map(len, envelope)) - len(envelope[0]) > LARGEST_ENVELOPE


def _view(frame: Sized) -> memoryview:
    return memoryview(frame)  # type: ignore[arg-type]
