"""Frames to messages and back, for all three roles: PROTOCOL.md, as code.

Nothing here knows a socket. A message is a list of frames; a frame is bytes, or the transport's own frame type
where it is large. `parse_...` functions take a message as it was received and raise `MalformedError` when it fits no
rule; the others build messages to send.

An envelope is all that stands before the first empty frame: the routing id that the receiving ROUTER put there,
and whatever the sender had put before the empty frame. It is echoed as it came. A client that wants more than the
plain protocol puts a header last in it: four bytes that name it, then a JSON object.
"""

import json
from collections.abc import Callable, Sized
from math import inf
from typing import Any, NamedTuple

Frames = list[Sized]  # of bytes; large ones may be of the transport's own type

EMPTY = b""
LONGEST_REASON = 1000  # characters of a worker's reason that are kept
LONGEST_SPAN = 1e9  # seconds, 30 years: what is longer is a mistake
LARGEST_COUNT = 1_000_000_000  # of tries, and of a priority in either direction

HEADER = b"ZB1 "  # how a header starts
LARGEST_HEADER = 4096  # bytes
LARGEST_ENVELOPE = 65536  # bytes, without the routing id and the header
MOST_FRAMES = 1000  # of a message that the broker receives
LONGEST_KEY = 256  # characters

DONE = "done"  # the statuses of a reply
FAILED = "failed"
CANCELLED = "cancelled"
INVALID = "invalid"  # the request became no task

_read = json.JSONDecoder().raw_decode  # json.loads and json.dumps take three times as long for what is so short
_quote = json.JSONEncoder().encode

FAIL = b"fail"  # the verbs of control messages
REJECT = b"reject"
RELEASE = b"release"
TOUCH = b"touch"


class Header(NamedTuple):
    """What a client says of its request beyond the plain protocol; None: as the broker is told."""

    key: str | None = None  # a name for the task, unique to it
    timeout: float | None = None  # seconds per attempt; 0: no limit
    tries: int | None = None  # 0: no limit
    delay: float = 0.0  # seconds before the first attempt
    priority: int = 0  # higher first
    cancel: bool = False  # the task with this key is not wanted any more


class MalformedError(ValueError):
    """A message that fits no rule of the protocol; the text says which part is wrong."""

    def __init__(self, text: str, envelope: Frames | None = None, header: Header | None = None) -> None:
        super().__init__(text)
        self.envelope = envelope or []  # where an answer can be sent; no frames: nobody waits for one
        self.header = header  # what can be told of it; None: a plain client


class Control(NamedTuple):
    """What a worker says of an attempt, other than its result."""

    verb: bytes  # FAIL, REJECT, RELEASE or TOUCH
    attempt_id: Sized
    reason: str = ""  # with FAIL and REJECT
    seconds: float | None = None  # with TOUCH; None: the timeout


# What the broker receives


def parse_request(message: Frames) -> tuple[Frames, Frames, Header | None]:
    """Split a client's message into its envelope, the task's body and the header; None: a plain client's."""
    try:
        empty = message.index(EMPTY)
    except ValueError:
        raise MalformedError("a request without an empty frame before its body", message[:1]) from None
    envelope, body, header = message[:empty], message[empty + 1 :], None
    if empty > 1:
        if head(envelope[-1], len(HEADER)) == HEADER:
            header = _parse_header(envelope.pop(), envelope)
        _check_size(envelope, header)
    if not body:
        raise MalformedError("a request without a body", envelope, header)
    return envelope, body, header


def parse_start(message: Frames) -> MalformedError:
    """Say what is wrong with a client's message of more than MOST_FRAMES, of which these are the first."""
    text = f"a request of more than {MOST_FRAMES} frames"
    try:
        envelope, _, header = parse_request(message)
    except MalformedError as error:
        return MalformedError(text, error.envelope, error.header)
    return MalformedError(text, envelope, header)


def _check_size(envelope: Frames, header: Header | None = None) -> None:
    if sum(map(len, envelope)) - len(envelope[0]) > LARGEST_ENVELOPE:
        raise MalformedError(f"an envelope of more than {LARGEST_ENVELOPE} bytes", envelope, header)


def _parse_header(frame: Sized, envelope: Frames) -> Header:
    """Read a header; what is wrong with it is raised with its key, if that at least is right."""
    fields: Any = None
    try:
        if len(frame) > LARGEST_HEADER:
            raise ValueError(f"it is larger than {LARGEST_HEADER} bytes")
        fields = _parse_json(frame)
        check_fields(fields)
        if fields.get("cancel") and "key" not in fields:
            raise ValueError("cancel needs the key of a task")
    except ValueError as error:
        key = fields.get("key") if isinstance(fields, dict) else None
        header = Header(key=key if FIELDS["key"][0](key) else None)
        raise MalformedError(f"a bad header: {error}", envelope, header) from None
    return Header(**fields)


def check_fields(fields: dict[str, Any]) -> None:
    """Raise ValueError for a field that no header has, or a value out of its range."""
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"unknown field {name[:50]!r}; there are {', '.join(FIELDS)}")
        is_right, what = FIELDS[name]
        if not is_right(value):
            raise ValueError(f"{name} must be {what}, not {str(value)[:50]}")


def _parse_json(header: Sized) -> dict[str, Any]:
    try:
        text: str = bytes(header)[len(HEADER) :].decode().strip(" \t\r\n")  # type: ignore[call-overload]
        fields, end = _read(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(fields, dict) or end < len(text):
        raise ValueError("it is no JSON object")
    return fields


def _is_span(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= LONGEST_SPAN


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "key": (lambda value: type(value) is str and 0 < len(value) <= LONGEST_KEY, f"1 to {LONGEST_KEY} characters"),
    "timeout": (_is_span, f"seconds from 0 to {LONGEST_SPAN:g}"),
    "tries": (
        lambda value: type(value) is int and 0 <= value <= LARGEST_COUNT,
        f"a whole number, 0 to {LARGEST_COUNT}",
    ),
    "delay": (_is_span, f"seconds from 0 to {LONGEST_SPAN:g}"),
    "priority": (
        lambda value: type(value) is int and abs(value) <= LARGEST_COUNT,
        f"a whole number, -{LARGEST_COUNT} to {LARGEST_COUNT}",
    ),
    "cancel": (lambda value: type(value) is bool, "true or false"),
}


def parse_ready(message: Frames) -> Frames:
    """Return the envelope of a worker's ready message, whatever its body says."""
    try:
        envelope = message[: message.index(EMPTY)]
    except ValueError:
        raise MalformedError("a ready message without an empty frame") from None
    if len(envelope) > 1:
        _check_size(envelope)
    return envelope


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
    argument = head(message[3], 4 * LONGEST_REASON) if len(message) > 3 else b""
    if verb in (FAIL, REJECT):
        return Control(verb, attempt_id, reason=argument.decode(errors="replace")[:LONGEST_REASON])
    if verb == RELEASE:
        return Control(RELEASE, attempt_id)
    if verb == TOUCH:
        return Control(TOUCH, attempt_id, seconds=_parse_seconds(argument) if argument else None)
    raise MalformedError(f"an unknown verb: {head(verb, 20)!r}")


def is_same(frames: Frames, others: Frames) -> bool:
    """Tell whether two lists of frames of any type are equal byte for byte; `==` looks into bytes only."""
    return list(map(_view, frames)) == list(map(_view, others))


def _view(frame: Sized) -> memoryview:
    return memoryview(frame)  # type: ignore[arg-type]


def head(frame: Sized, size: int) -> bytes:
    """Return the first bytes of a frame of any type; all of them support the buffer protocol."""
    return frame[:size] if isinstance(frame, bytes) else bytes(_view(frame)[:size])


def _parse_seconds(argument: bytes) -> float:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = inf
    if not 0 < seconds <= LONGEST_SPAN:
        raise MalformedError(f"a touch whose argument is not a number of seconds: {argument[:20]!r}")
    return seconds


# What the broker sends


def task_message(envelope: Frames, attempt_id: bytes, body: Frames) -> Frames:
    """Build the answer to a ready message: one attempt of a task."""
    return [*envelope, EMPTY, attempt_id, *body]


def reply_message(envelope: Frames, body: Frames) -> Frames:
    """Build the reply to a client; no frames of a `body` are a failure, which is one empty frame."""
    return [*envelope, EMPTY, *(body or (EMPTY,))]


def reply_header(key: str | None, status: str, attempts: int, reason: str) -> bytes:
    """Build what goes last in the envelope of a reply to a client that sent a header."""
    text = f'{{"status": "{status}", "attempts": {attempts}'
    if key is not None:
        text += f', "key": {_quote(key)}'
    if status != DONE:
        text += f', "reason": {_quote(reason)}'
    return b"%s%s}" % (HEADER, text.encode())


def plain(body: Frames) -> Any:
    """Return a body as those see it who need not care about frames: bytes, or a list of bytes if there are several."""
    if len(body) == 1:
        return bytes(body[0])  # type: ignore[call-overload]
    return [bytes(frame) for frame in body]  # type: ignore[call-overload]


# What clients send and receive, after the envelope


def more_fields(fields: dict[str, Any]) -> str:
    """Write the fields of a header other than the key, once for all requests that share them."""
    return f", {_quote(fields)[1:-1]}" if fields else ""


def request_message(body: Frames, key: str, more: str = "") -> Frames:
    """Build a request with a key and `more_fields` in its header, for a DEALER."""
    return [HEADER + f'{{"key": {_quote(key)}{more}}}'.encode(), EMPTY, *body]


class Reply(NamedTuple):
    """What a client is told of its task."""

    key: str | None
    status: str
    attempts: int
    reason: str
    body: Frames


def parse_reply(message: Frames) -> Reply:
    """Read the reply to a request with a header, as a DEALER receives it."""
    try:
        if head(message[0], len(HEADER)) != HEADER or len(message) < 3 or len(message[1]):
            raise ValueError("no header")
        fields = _parse_json(message[0])  # with a reason, however long
        key, status, attempts = fields.get("key"), fields["status"], fields["attempts"]
        reason = fields.get("reason", "")
        is_key = key is None or type(key) is str
        if not (is_key and type(status) is type(reason) is str and type(attempts) is int):
            raise ValueError("a field has the wrong type")
        return Reply(key, status, attempts, reason, message[2:])
    except (ValueError, KeyError) as error:
        raise MalformedError(f"a reply that cannot be read: {error}") from None


# What workers receive and send


def parse_task(message: Frames) -> tuple[Sized, Frames]:
    """Split the answer to a ready message, as a DEALER receives it, into the attempt id and the task's body."""
    if len(message) < 3 or len(message[0]):
        raise MalformedError("a task without an attempt id or a body")
    return message[1], message[2:]


def result_message(attempt_id: Sized, body: Frames) -> Frames:
    """Build the result of an attempt."""
    return [attempt_id, *body]


def control_message(verb: bytes, attempt_id: Sized, argument: str = "") -> Frames:
    """Build what else a worker says of an attempt; the argument of FAIL and REJECT is a reason, of TOUCH seconds."""
    return [EMPTY, verb, attempt_id, *([argument.encode(errors="replace")] if argument else [])]
