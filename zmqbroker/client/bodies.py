"""What a client is given for the body of a task, and how the result of that is read."""

from collections.abc import Callable
from typing import Any

from zmqbroker import wire
from zmqbroker.wire import Frames, frames_of, is_list
from zmqbroker.wire.json_body import read_json, write_json

Read = Callable[[Frames], Any]  # makes of a result's frames what the user gets; raises ValueError


class _Unsaid:
    """Stands for an argument that was not given, where None would be one."""

    def __repr__(self) -> str:
        return "..."


UNSAID: Any = _Unsaid()


def as_bytes(frames: Frames) -> Any:
    """Return a result as bytes, or as a list of bytes if it has several frames."""
    return wire.plain(frames)


def as_list(frames: Frames) -> Any:
    """Return a result as a list of bytes."""
    body = wire.plain(frames)
    return [body] if isinstance(body, bytes) else body


def as_json(frames: Frames) -> Any:
    """Return what a result says in JSON; raises ValueError where it is none."""
    try:
        return read_json(frames)
    except ValueError as error:
        raise ValueError(f"the task is done, but its result cannot be read: {error}") from None


def reading(is_json: bool) -> Read:
    """Return how a result is read whose task's body is not known."""
    return as_json if is_json else as_bytes


def value_of(frames: Frames, read: Read) -> Any:
    """Return what a result is read as, or the ValueError that says why it cannot be read."""
    try:
        return read(frames)
    except ValueError as error:
        return error


def prepare(body: Any, json: Any = UNSAID) -> tuple[Frames, Read]:
    """Return the frames of a body, or of what is to be one as JSON, and how the result is to be read.

    Raises TypeError for what is neither or both, ValueError for no frames and what JSON cannot say.
    """
    if json is not UNSAID:
        if body is not UNSAID:
            raise TypeError("a task has a body or json, not both")
        return [write_json(json)], as_json
    if body is UNSAID:
        raise TypeError("a task has a body: bytes, a list of bytes, or json=...")
    return frames_of(body), as_list if is_list(body) else as_bytes


def prepare_json(value: Any) -> tuple[Frames, Read]:
    """Return what `prepare` does for one of several values that are to be JSON."""
    return [write_json(value)], as_json
