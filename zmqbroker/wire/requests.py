"""What clients and the broker say to each other: requests, with a header or without, and their replies."""

from collections.abc import Callable, Sized
from typing import Any, NamedTuple

from zmqbroker.wire.frames import (
    EMPTY,
    LARGEST_ENVELOPE,
    LONGEST_SPAN,
    MOST_FRAMES,
    Frames,
    MalformedError,
    head,
    is_large_envelope,
)
from zmqbroker.wire.header import HEADER, LARGEST_HEADER, quote, read_fields

LARGEST_COUNT = 1_000_000_000  # of tries, and of a priority in either direction
LONGEST_KEY = 256  # characters

DONE = "done"  # the statuses of a reply
FAILED = "failed"
CANCELLED = "cancelled"
INVALID = "invalid"  # the request became no task, and never will
UNAVAILABLE = "unavailable"  # the request became no task, or the broker ended before it was done; later it may be


class Header(NamedTuple):
    """What a client says of its request beyond the plain protocol; None: as the broker is told."""

    key: str | None = None  # a name for the task, unique to it
    timeout: float | None = None  # seconds per attempt; 0: no limit
    tries: int | None = None  # 0: no limit
    delay: float = 0.0  # seconds before the first attempt
    priority: int = 0  # higher first
    cancel: bool = False  # the task with this key is not wanted any more


class MalformedRequestError(MalformedError):
    """A request that fits no rule, and to whom that can be said."""

    def __init__(self, text: str, envelope: Frames, header: Header | None = None) -> None:
        super().__init__(text)
        self.envelope = envelope
        self.header = header  # what can be told of it; None: a plain client


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


def check_fields(fields: dict[str, Any]) -> None:
    """Raise ValueError for a field that no header has, or a value out of its range."""
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"unknown field {name[:50]!r}; there are {', '.join(FIELDS)}")
        is_right, what = FIELDS[name]
        if not is_right(value):
            raise ValueError(f"{name} must be {what}, not {value!r:.50}")


# What the broker receives and sends


def parse_request(message: Frames) -> tuple[Frames, Frames, Header | None]:
    """Split a client's message into its envelope, the task's body and the header; None: a plain client's."""
    try:
        empty = message.index(EMPTY)
    except ValueError:
        raise MalformedRequestError("a request without an empty frame before its body", message[:1]) from None
    envelope, body, header = message[:empty], message[empty + 1 :], None
    if empty > 1:
        if head(envelope[-1], len(HEADER)) == HEADER:
            header = _parse_header(envelope.pop(), envelope)
        if is_large_envelope(envelope):
            raise MalformedRequestError(f"an envelope of more than {LARGEST_ENVELOPE} bytes", envelope, header)
    if not body:
        raise MalformedRequestError("a request without a body", envelope, header)
    return envelope, body, header


def parse_start(message: Frames) -> MalformedRequestError:
    """Say what is wrong with a client's message of more than MOST_FRAMES, of which these are the first."""
    text = f"a request of more than {MOST_FRAMES} frames"
    try:
        envelope, _, header = parse_request(message)
    except MalformedRequestError as error:
        return MalformedRequestError(text, error.envelope, error.header)
    return MalformedRequestError(text, envelope, header)


def _parse_header(frame: Sized, envelope: Frames) -> Header:
    """Read a header; what is wrong with it is raised with its key, if that at least is right."""
    fields: Any = None
    try:
        if len(frame) > LARGEST_HEADER:
            raise ValueError(f"it is larger than {LARGEST_HEADER} bytes")
        fields = read_fields(frame)
        check_fields(fields)
        if fields.get("cancel") and "key" not in fields:
            raise ValueError("cancel needs the key of a task")
    except ValueError as error:
        key = fields.get("key") if isinstance(fields, dict) else None
        header = Header(key=key if FIELDS["key"][0](key) else None)
        raise MalformedRequestError(f"a bad header: {error}", envelope, header) from None
    return Header(**fields)


def reply_message(envelope: Frames, body: Frames) -> Frames:
    """Build the reply to a client; no frames of a `body` are a failure, which is one empty frame."""
    return [*envelope, EMPTY, *(body or (EMPTY,))]


def reply_header(key: str | None, status: str, attempts: int, reason: str) -> bytes:
    """Build what goes last in the envelope of a reply to a client that sent a header."""
    text = f'{{"status": "{status}", "attempts": {attempts}'
    if key is not None:
        text += f', "key": {quote(key)}'
    if status != DONE:
        text += f', "reason": {quote(reason)}'
    return b"%s%s}" % (HEADER, text.encode())


# What clients send and receive, after the envelope


def more_fields(fields: dict[str, Any]) -> str:
    """Write the fields of a header other than the key, once for all requests that share them."""
    return f", {quote(fields)[1:-1]}" if fields else ""


def request_message(body: Frames, key: str, more: str = "") -> Frames:
    """Build a request with a key and `more_fields` in its header, for a DEALER."""
    return [HEADER + f'{{"key": {quote(key)}{more}}}'.encode(), EMPTY, *body]


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
        fields = read_fields(message[0])  # with a reason, however long
        key, status, attempts = fields.get("key"), fields["status"], fields["attempts"]
        reason = fields.get("reason", "")
        is_key = key is None or type(key) is str
        if not (is_key and type(status) is type(reason) is str and type(attempts) is int):
            raise ValueError("a field has the wrong type")
        return Reply(key, status, attempts, reason, message[2:])
    except (ValueError, KeyError) as error:
        raise MalformedError(f"a reply that cannot be read: {error}") from None
