"""What comes of a handler: what it raises to say something, and how anything that it returns or raises is told."""

from typing import Any

from zmqbroker import wire
from zmqbroker.wire import Frames


class Reject(Exception):  # noqa: N818 (it is raised to say something, not because something went wrong)
    """Raised by a handler: the task fails for good, whatever its tries. Its text is the reason."""


class Fail(Exception):  # noqa: N818 (as above)
    """Raised by a handler: this attempt failed, and another one follows if tries are left. Its text is the reason."""


class Refused(Fail):
    """Raised by a handler of ours for a task that it cannot do, which the log tells: nobody has meant that.

    Another worker may be able to, unless it `is_final`.
    """

    def __init__(self, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Interrupted(Fail):
    """Raised by a handler that is to leave at once: the attempt failed, and so did that at a whole chunk."""


def frames_of(result: Any) -> Frames:
    """Return what a handler returned as the frames of a result; raises TypeError for what is none.

    They are copies, as the handler may use its buffer for the next body of a chunk before this one is sent.
    """
    if result is None or (wire.is_list(result) and not result):
        return [wire.EMPTY]
    try:
        return wire.frames_of(result)
    except TypeError:
        text = f"the handler returned {type(result).__name__}: not bytes, a list of bytes or None"
        raise TypeError(text) from None


def reason_of(error: BaseException) -> str:
    """Return what the broker is told of an exception that is none of ours."""
    name, text = type(error).__name__, text_of(error)
    if isinstance(error, SystemExit):
        return f"the function called sys.exit({text})"
    return f"{name}: {text}" if text else name


def text_of(error: BaseException) -> str | None:
    """Return what an exception says; None for one that fails at that."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
