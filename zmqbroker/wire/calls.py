"""Calls of Python functions as tasks: what an `Executor` sends, and what a worker for them returns.

To the broker a call is a task like any other. Its first frame is a mark, with the Python and the cloudpickle that have
pickled what follows, as JSON; then come frames that are a pickle. The result looks the same, under a mark that says
whether the function has returned or raised, and in the latter case with the text of the traceback before the pickle.
Nothing here looks into pickles. PROTOCOL.md says the same.
"""

import json
from typing import Any, NamedTuple

from zmqbroker.wire.frames import Frames, MalformedError, head
from zmqbroker.wire.header import quote
from zmqbroker.wire.names import is_queue

CALL, RETURNED, RAISED = b"ZB1 call ", b"ZB1 returned ", b"ZB1 raised "  # marks

QUEUE = "python"  # only workers for calls serve it, and those that begin with it and a dot


class Python(NamedTuple):
    """Who has pickled something."""

    python: str  # its implementation, and its version as far as pickles depend on it: CPython 3.12
    cloudpickle: str  # its version


def is_for_calls(queue: Any) -> bool:
    """Tell whether this names a queue of calls."""
    first, _, name = str(queue).partition(".")
    return is_queue(queue) and first == QUEUE and (queue == QUEUE or name != "")


def first_frame(mark: bytes, own: Python) -> bytes:
    """Build the first frame of a call or a result."""
    return mark + quote(own._asdict()).encode()


def is_marked(body: Frames, mark: bytes) -> bool:
    """Tell whether this is a call, or a result of one, by its mark."""
    return head(body[0], len(mark)) == mark


def parse_call(body: Frames) -> tuple[Python, Frames]:
    """Return who has pickled a call, and its pickle; raises MalformedError for what is no call."""
    if not is_marked(body, CALL):
        raise MalformedError("no call of a function")
    try:
        told = json.loads(bytes(body[0])[len(CALL) :])  # type: ignore[call-overload]
        return Python(str(told["python"]), str(told["cloudpickle"])), body[1:]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise MalformedError("a call that does not say which Python has pickled it") from None


def raised_body(first: bytes, trace: str, pickled: Frames) -> Frames:
    """Build the result of a call that has raised: its first frame, the text of the traceback, and the exception."""
    return [first, trace.encode(errors="replace"), *pickled]


def parse_raised(body: Frames) -> tuple[str, Frames]:
    """Return the text of the traceback, and the pickle of the exception."""
    trace = bytes(body[1]).decode(errors="replace") if len(body) > 1 else ""  # type: ignore[call-overload]
    return trace, body[2:]
