"""Many bodies as one task: what `Client.map(..., chunk=N)` sends and a `Worker` that understands it returns.

To the broker a chunk is a task like any other. Its body has two frames: a mark with the sizes of what follows, as JSON,
and all the bytes without a gap. A size is a number for a body of one frame, a list of numbers for one of several. The
result looks the same under another mark, with an object that has a reason in place of a size for a body that failed.
So neither a plain worker, which would make nonsense of a chunk, nor one that returns what it gets can be taken for one
that understands. PROTOCOL.md says the same for other languages.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from zmqbroker.wire.frames import LONGEST_REASON, Frames, head

CHUNK = b"ZB1 chunk "
RESULTS = b"ZB1 chunk results "

Body = bytes | list[bytes]


class Failure(NamedTuple):
    """What came of a body that has no result."""

    reason: str
    is_final: bool = False  # no other attempt could do better; said of a task, not inside of a chunk


def is_chunk(body: Frames) -> bool:
    """Tell a task that is a chunk."""
    return len(body) == 2 and head(body[0], len(CHUNK)) == CHUNK


def pack(bodies: Iterable[Frames]) -> Frames:
    """Build the body of a task from several bodies."""
    return _pack(CHUNK, bodies)


def pack_results(outcomes: Iterable[Frames | Failure]) -> Frames:
    """Build the result of a chunk."""
    return _pack(RESULTS, outcomes)


def unpack(body: Frames) -> list[Frames]:
    """Return the bodies of a chunk; raises ValueError when its sizes are not those of its bodies."""
    bodies = _unpack(CHUNK, body)
    if any(isinstance(frames, Failure) for frames in bodies):
        raise ValueError("a chunk with a reason for a size")
    return bodies


def unpack_results(body: Frames) -> list[Frames | Failure]:
    """Return what came of each body of a chunk; raises ValueError for what is no result of one."""
    if len(body) != 2 or head(body[0], len(RESULTS)) != RESULTS:
        raise ValueError("the worker does not understand chunks")
    return _unpack(RESULTS, body)


def _pack(mark: bytes, bodies: Iterable[Frames | Failure]) -> Frames:
    sizes: list[Any] = []
    content: list[Any] = []
    for body in bodies:
        if isinstance(body, Failure):
            sizes.append({"reason": body.reason[:LONGEST_REASON]})
            continue
        sizes.append(len(body[0]) if len(body) == 1 else [len(frame) for frame in body])
        content.extend(body)
    return [mark + json.dumps(sizes).encode(), b"".join(content)]


def _unpack(mark: bytes, body: Frames) -> list[Any]:
    try:
        sizes = json.loads(bytes(body[0])[len(mark) :])  # type: ignore[call-overload]
    except (ValueError, RecursionError):
        raise ValueError("a chunk whose sizes are not JSON") from None
    if not isinstance(sizes, list):
        raise ValueError("a chunk whose sizes are no list")
    content = bytes(body[1])  # type: ignore[call-overload]
    bodies: list[Any] = []
    end = 0
    for size in sizes:
        if isinstance(size, dict) and isinstance(size.get("reason"), str):
            bodies.append(Failure(size["reason"]))
            continue
        frames = []
        for part in size if isinstance(size, list) and size else (size,):
            if type(part) is not int or part < 0:
                raise ValueError(f"a chunk with {str(part)[:50]} for a size")
            start, end = end, end + part
            frames.append(content[start:end])
        bodies.append(frames)
    if end != len(content):
        raise ValueError("a chunk whose sizes are not those of its bodies")
    return bodies
