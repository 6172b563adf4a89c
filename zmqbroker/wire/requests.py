"""What clients and the broker say to each other: requests, with a header or without, and their replies.

Nearly all headers of requests have a key and nothing else, and nearly all of replies say that a task is done. These two
are read in one step each when they have the very form that this module gives them; any other header is read as JSON.
"""

import re
from collections.abc import Callable, Sized
from json.encoder import encode_basestring_ascii as quote_text
from math import inf
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
from zmqbroker.wire.header import (
    HEADER,
    LARGEST_ANNOUNCE,
    LARGEST_HEADER,
    ROLE,
    WORKER,
    WORKERS_BELONG,
    quote,
    read_fields,
    read_object,
)
from zmqbroker.wire.names import QUEUE_NAME, is_queue

LARGEST_COUNT = 1_000_000_000  # of tries, and of a priority in either direction
LONGEST_KEY = 256  # characters
LONGEST_ID = 32  # characters
LONGEST_GROUP = 64  # characters
LARGEST_FACTOR = 1000  # by which the time between attempts grows

DONE = "done"  # the statuses of a reply
FAILED = "failed"
CANCELLED = "cancelled"
EXPIRED = "expired"  # there was no result in time
INVALID = "invalid"  # the request became no task, and never will
UNAVAILABLE = "unavailable"  # the request became no task, or the broker ended before it was done; later it may be
PROGRESS = "progress"  # no answer yet: the body says how far the task has come
ACCEPTED = "accepted"  # the task is stored, and its client may leave
UNKNOWN = "unknown"  # there is no task with this key, nor an outcome of one
UNSETTLED = ("waiting", "delayed", "running")  # where a task stands that has no outcome yet: see `broker.task`
_WITHOUT_REASON = (DONE, PROGRESS, ACCEPTED, *UNSETTLED)


class Header(NamedTuple):
    """What a client says of its request beyond the plain protocol; None: as the broker is told."""

    key: str | None = None  # a name for the task, unique to it
    timeout: float | None = None  # seconds per attempt; 0: no limit
    tries: int | None = None  # 0: no limit
    delay: float = 0.0  # seconds before the first attempt
    priority: int = 0  # higher first
    cancel: bool = False  # the task with this key is not wanted any more
    id: str | None = None  # names the request: it is in each reply to it
    progress: bool = False  # replies that say how far the task has come are wanted
    queue: str | None = None  # where it waits; None: in the default one
    group: str | None = None  # whose tasks take turns with those of other groups in its queue; None: of those without
    expires: float | None = None  # seconds from its acceptance, after which no result is wanted
    retry_delay: float | None = None  # seconds before the second attempt
    retry_factor: float | None = None  # by which that grows for each further one
    retry_most: float | None = None  # seconds that it grows to
    durable: bool = False  # the task outlives the broker's process
    detach: bool = False  # so it does, and its client does not wait for its outcome
    keep: float | None = None  # seconds for which its outcome is kept
    fetch: float | None = None  # the outcome of the task with this key is wanted, if there is one within these seconds
    body: bool = True  # with the result
    forget: bool = False  # that outcome is not wanted any more
    worker: bool = False  # the answer is to name the worker that had the task last

    @property
    def is_stored(self) -> bool:
        """Tell whether the task is to be stored."""
        return self.detach or self.durable


class OnlyKey(Header):
    """A header that has a key which needs no quoting, and nothing else, as nearly all have."""

    __slots__ = ()
    key: str


_NO_WISHES = Header()[1:]  # the fields of a header that has a key and nothing else
_KEY = rb'"([ !#-\[\]-~]{1,%d})"' % LONGEST_KEY  # of ASCII, with nothing that JSON escapes
_match_plain = re.compile(rb'ZB1 \{"key": %s\}' % _KEY).fullmatch  # as `request_message` writes it
_match_done = re.compile(  # as `reply_header` does
    rb'ZB1 \{"status": "done", "attempts": (\d{1,18}), "key": %s, "number": (\d{1,18})\}' % _KEY
).fullmatch


def plain_header(key: str) -> Header:
    """Return a header that has a key and nothing else, in half the time."""
    return tuple.__new__(Header, (key,) + _NO_WISHES)  # noqa: RUF005 (half as dear)


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
    "id": (lambda value: type(value) is str and len(value) <= LONGEST_ID, f"text of up to {LONGEST_ID} characters"),
    "progress": (lambda value: type(value) is bool, "true or false"),
    "queue": (is_queue, QUEUE_NAME),
    "group": (
        lambda value: type(value) is str and 0 < len(value) <= LONGEST_GROUP,
        f"text of 1 to {LONGEST_GROUP} characters",
    ),
    "expires": (lambda value: _is_span(value) and value > 0, f"seconds above 0 and up to {LONGEST_SPAN:g}"),
    "retry_delay": (_is_span, f"seconds from 0 to {LONGEST_SPAN:g}"),
    "retry_factor": (
        lambda value: type(value) in (int, float) and 1 <= value <= LARGEST_FACTOR,
        f"a number from 1 to {LARGEST_FACTOR}",
    ),
    "retry_most": (_is_span, f"seconds from 0 to {LONGEST_SPAN:g}"),
    "durable": (lambda value: type(value) is bool, "true or false"),
    "detach": (lambda value: type(value) is bool, "true or false"),
    "keep": (lambda value: _is_span(value) and value > 0, f"seconds above 0 and up to {LONGEST_SPAN:g}"),
    "fetch": (_is_span, f"seconds from 0 to {LONGEST_SPAN:g}"),
    "body": (lambda value: type(value) is bool, "true or false"),
    "forget": (lambda value: type(value) is bool, "true or false"),
    "worker": (lambda value: type(value) is bool, "true or false"),
}
STORED = ("detach", "durable")  # fields of a task that outlives the broker
ABOUT_ANOTHER = ("cancel", "fetch", "forget")  # fields of a request that is no task, but about one


def check_fields(fields: dict[str, Any]) -> None:
    """Raise ValueError for a field that no header has, a value out of its range, or fields that do not go together."""
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"unknown field {name[:50]!r}; there are {', '.join(FIELDS)}")
        is_right, what = FIELDS[name]
        if not is_right(value):
            raise ValueError(f"{name} must be {what}, not {value!r:.50}")
    if fields.get("expires", inf) <= fields.get("delay", 0):
        raise ValueError("expires must be more than delay: both are seconds from the acceptance")
    if "keep" in fields and not _named(fields, STORED):
        raise ValueError("keep goes with detach or durable: no other outcome is kept for long")


# What the broker receives and sends


def parse_request(message: Frames) -> tuple[Frames, Frames, Header | None]:
    """Split a client's message into its envelope, the task's body and the header; None: a plain client's."""
    if len(message) == 3 and not message[1]:  # as nearly all that have none
        return message[:1], message[2:], None
    if len(message) == 4 and not message[2]:  # as nearly all that have one
        usual = _match_plain(message[1])  # type: ignore[call-overload]  # any frame has a buffer
        if usual is not None:
            return message[:1], message[3:], _only_key(usual)
    try:
        empty = message.index(EMPTY)
    except ValueError:
        raise MalformedRequestError("a request without an empty frame before its body", message[:1]) from None
    envelope, body, header = message[:empty], message[empty + 1 :], None
    if empty > 1:
        if head(envelope[-1], len(HEADER)) == HEADER:
            header = _parse_header(envelope.pop(), envelope)
        if len(envelope) > 1 and is_large_envelope(envelope):
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
    """Read a header; what is wrong with it is raised with its key and id, if those at least are right."""
    plain = _match_plain(frame)  # type: ignore[call-overload]  # as above
    if plain is not None:
        return _only_key(plain)
    fields: dict[str, Any] = {}
    try:
        if len(frame) > LARGEST_ANNOUNCE:
            raise ValueError(f"it is larger than {LARGEST_HEADER} bytes")
        fields = read_fields(frame)
        is_announce = fields.get(ROLE) == WORKER
        if not is_announce:
            _check_header(fields, len(frame))
    except ValueError as error:
        raise MalformedRequestError(f"a bad header: {error}", envelope, named(fields)) from None
    if is_announce:
        raise MalformedRequestError(f"this is the address for clients (REQUESTS): {WORKERS_BELONG}", envelope, Header())
    return Header(**fields)


def _only_key(match: re.Match[bytes]) -> OnlyKey:
    return tuple.__new__(OnlyKey, (match[1].decode(), *_NO_WISHES))  # half as dear as to call it


def _check_header(fields: dict[str, Any], size: int) -> None:
    if size > LARGEST_HEADER:
        raise ValueError(f"it is larger than {LARGEST_HEADER} bytes")
    check_fields(fields)
    about, stored = _named(fields, ABOUT_ANOTHER), _named(fields, STORED)
    if (about or stored) and "key" not in fields:
        raise ValueError(f"{(about + stored)[0]} needs the key of a task")
    if about and stored:
        raise ValueError(f"{about[0]} is about a task that there is already, and goes with no {stored[0]}")
    if about[:1] == ["cancel"] and len(about) > 1:
        raise ValueError(f"cancel goes with no {about[1]}")
    if "body" in fields and "fetch" not in fields:
        raise ValueError("body goes with fetch")


def _named(fields: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """Return which of these a header has and means."""
    return [name for name in names if name in fields and fields[name] is not False]


def named(fields: dict[str, Any]) -> Header:
    """Return what names a request whose header may be wrong: its key and its id, as far as those are right."""
    key, id = (value if FIELDS[name][0](value := fields.get(name)) else None for name in ("key", "id"))
    return Header(key=key, id=id)


def reply_message(envelope: Frames, body: Frames) -> Frames:
    """Build the reply to a client; no frames of a `body` are a failure, which is one empty frame."""
    return [*envelope, EMPTY, *(body or (EMPTY,))]


def reply_header(
    key: str | None,
    status: str,
    attempts: int,
    reason: str,
    number: int | None = None,
    id: str | None = None,
    at: str | None = None,
    worker: str | None = None,
) -> bytes:
    """Build what goes last in the envelope of a reply to a client that sent a header.

    `number` is that of the task, None where there is none. `key` and `id` are those of the
    request; None: it had none. `at` is the wrong socket that it came to; None: it came to the right one. `worker` is
    the name of the one that had the task last; None: nobody had it, or that is not to be told.
    """
    text = f'ZB1 {{"status": "{status}", "attempts": {attempts}'
    if key is not None:
        text += f', "key": {quote_text(key)}'
    if number is not None:
        text += f', "number": {number}'
    if id is not None:
        text += f', "id": {quote_text(id)}'
    if at is not None:
        text += f', "at": {quote_text(at)}'
    if worker is not None:
        text += f', "worker": {quote_text(worker)}'
    if status not in _WITHOUT_REASON or (reason and status in UNSETTLED):
        text += f', "reason": {quote_text(reason)}'
    return f"{text}}}".encode()


def done_header(key: str, attempts: int, number: int) -> bytes:
    """Build what `reply_header` does of a task that is done, whose client sent OnlyKey: at a third of the price."""
    return f'ZB1 {{"status": "done", "attempts": {attempts}, "key": "{key}", "number": {number}}}'.encode()


# What clients send and receive, after the envelope


def more_fields(fields: dict[str, Any]) -> str:
    """Write the fields of a header other than the key, once for all requests that share them."""
    return f", {quote(fields)[1:-1]}" if fields else ""


def request_message(body: Frames, key: str, more: str = "", id: str | None = None) -> Frames:
    """Build a request with a key and `more_fields` in its header, and an id unless that is None, for a DEALER."""
    if id is not None:
        more = f', "id": {quote(id)}{more}'
    return [f'ZB1 {{"key": {quote_text(key)}{more}}}'.encode(), EMPTY, *body]


class Reply(NamedTuple):
    """What a client is told of its task."""

    key: str | None
    status: str
    attempts: int
    reason: str
    body: Frames
    number: int | None = None  # of the task, as the broker's log has it; None: the request became none
    id: str | None = None  # of the request
    at: str | None = None  # the broker's socket that the request came to, where that is a wrong one
    worker: str | None = None  # the name of the one that had the task last: empty for a plain one; None: not told


def parse_reply(message: Frames) -> Reply:
    """Read the reply to a request with a header, as a DEALER receives it."""
    done = _match_done(message[0])  # type: ignore[call-overload]  # as above
    if done is not None and len(message) > 2 and not len(message[1]):
        attempts, key, number = done.groups()
        return tuple.__new__(Reply, (key.decode(), DONE, int(attempts), "", message[2:], int(number), None, None, None))
    try:
        if head(message[0], len(HEADER)) != HEADER or len(message) < 3 or len(message[1]):
            raise ValueError("no header")
        fields = read_fields(message[0])  # with a reason, however long
        status, attempts = fields["status"], fields["attempts"]
        reason, number = fields.get("reason", ""), fields.get("number")
        names = key, id, at, worker = tuple(map(fields.get, ("key", "id", "at", "worker")))
        are_names = all(name is None or type(name) is str for name in names)
        is_number = number is None or type(number) is int
        if not (are_names and is_number and type(status) is type(reason) is str and type(attempts) is int):
            raise ValueError("a field has the wrong type")
        return Reply(key, status, attempts, reason, message[2:], number, id, at, worker)
    except (ValueError, KeyError) as error:
        raise MalformedError(f"a reply that cannot be read: {error}") from None


def parse_progress(body: Frames) -> dict[str, Any]:
    """Read how far a task has come, the body of a reply whose status is PROGRESS."""
    try:
        return read_object(b"".join(map(bytes, body)))  # type: ignore[arg-type]  # any frame has a buffer
    except ValueError as error:
        raise MalformedError(f"a progress that cannot be read: {error}") from None
