"""What a worker that announces itself and the broker say to each other on READY: one address, both ways.

An announce is a header, last in an envelope, and the ids of the attempts that the worker is still at. All else that it
says is one frame that begins as a header does, because each frame costs: a word, the number of tasks that it asks for
in addition, an attempt id. What the broker says of attempts looks the same, but stands where an envelope would, so that
nobody takes it for a task.
"""

import re
from collections.abc import Sized
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote_text
from typing import Any, NamedTuple

from zmqbroker.wire.frames import EMPTY, Frames, MalformedError, head
from zmqbroker.wire.header import CLIENTS_BELONG, HEADER, LARGEST_ANNOUNCE, ROLE, WORKER, quote, read_fields
from zmqbroker.wire.names import DEFAULT_QUEUE, queue_list
from zmqbroker.wire.requests import INVALID, Header, MalformedRequestError, named, reply_header, reply_message
from zmqbroker.wire.results import FAIL, REJECT, RELEASE, TOUCH

PROTOCOL = 1  # the version of what is said here
MOST_ASKED = 64  # tasks in one message
LARGEST_WORD = 200  # bytes, attempt id and all
LARGEST_PROGRESS = 4096  # bytes
LONGEST_NAME = 200  # characters of a label, or a host, that are kept
LONGEST_VERSION = 50  # characters

READY = b"ready"  # asks for tasks
DONE = b"done"  # with a result
PROGRESS = b"progress"
WITHDRAW = b"withdraw"  # takes back what was asked for

DROP = b"drop"  # do not begin it
CANCEL = b"cancel"  # nobody wants it any more
WITHDRAWN = b"withdrawn"  # no task follows that was not asked for anew

OUTCOMES = (DONE, FAIL, REJECT, RELEASE)  # each with the number of tasks asked for, and an attempt id
NAMED = (TOUCH, PROGRESS)  # with an attempt id only
COUNTED = (READY, WITHDRAW)  # with a number only


_match_done = re.compile(rb"ZB1 done (\d|[1-5]\d|6[0-4]) (.{1,100})", re.DOTALL).fullmatch


class Announce(NamedTuple):
    """Who a worker says that it is."""

    queues: tuple[str, ...] = (DEFAULT_QUEUE,)  # that it asks from, the first first
    label: str = ""
    host: str = ""
    pid: int = 0
    serial: bool = False  # it does one task after the other, in the order in which it got them
    headers: bool = False  # its tasks are to tell about themselves

    @property
    def name(self) -> str:
        """How it is called in logs."""
        where = f"{self.host}:{self.pid}" if self.host else ""
        return f"{self.label} ({where})" if self.label and where else self.label or where or "a worker"


class Word(NamedTuple):
    """One thing that is said of an attempt, or of tasks that are asked for."""

    verb: bytes
    asks: int  # the number of tasks
    attempt_id: bytes


# What the broker receives


def has_header(message: Frames) -> bool:
    """Tell whether a message, as a ROUTER receives it, has a header, of an announce or not."""
    if EMPTY not in message:
        return False
    empty = message.index(EMPTY)
    return empty > 1 and head(message[empty - 1], len(HEADER)) == HEADER


class MisplacedRequestError(MalformedRequestError):
    """A request with a header that has come to READY. Its text says what belongs there, and where it does."""

    def __init__(self, envelope: Frames, header: Header) -> None:
        super().__init__(f"this is the address for workers (READY): {CLIENTS_BELONG}", envelope, header)


def parse_announce(message: Frames) -> tuple[Announce, list[bytes]]:
    """Read an announce as a ROUTER receives it: who it is, and the ids of the attempts that it is at.

    Raises MisplacedRequestError for a request with a header, MalformedRequestError for what else is no announce.
    """
    empty = message.index(EMPTY)
    envelope, header = message[: empty - 1], message[empty - 1]
    try:
        if len(header) > LARGEST_ANNOUNCE:
            raise ValueError(f"it is larger than {LARGEST_ANNOUNCE} bytes")
        fields = read_fields(header)
    except ValueError as error:
        raise MalformedRequestError(f"a bad header: {error}", envelope) from None
    if fields.get(ROLE) != WORKER:
        raise MisplacedRequestError(envelope, named(fields))
    if len(envelope) > 1:
        raise MalformedRequestError("an announce with an envelope of its own", envelope)
    if EMPTY in message[empty + 1 :]:
        raise MalformedRequestError("an announce that names an attempt without an id", envelope)
    try:
        announce = _announce(fields)
    except MalformedError as error:
        raise MalformedRequestError(str(error), envelope) from None
    return announce, [head(frame, LARGEST_WORD) for frame in message[empty + 1 :]]


def _announce(fields: dict[str, Any]) -> Announce:
    if fields.get("protocol") != PROTOCOL:
        raise MalformedError(f"an announce of protocol {fields.get('protocol')!r:.20}: this broker speaks {PROTOCOL}")
    known = {name: fields[name] for name in Announce._fields if name in fields}
    try:
        queues = queue_list(known.pop("queues", [DEFAULT_QUEUE]))
    except ValueError as error:
        raise MalformedError(str(error)) from None
    for name, value in known.items():
        kind = {"pid": int, "serial": bool, "headers": bool}.get(name, str)
        if type(value) is not kind:
            raise MalformedError(f"{name} of an announce must be of type {kind.__name__}, not {value!r:.50}")
        if isinstance(value, str):
            known[name] = value[:LONGEST_NAME]
    return Announce(queues, **known)


def is_plain(message: Frames) -> bool:
    """Tell whether this is a plain worker's ready message, without more envelope than its routing id."""
    if message[1] or len(message) < 3:
        return False
    frame = message[2]  # a large one, which is no bytes, is no word
    return type(frame) is not bytes or not frame.startswith(HEADER)


def match_done(message: Frames) -> tuple[bytes, bytes] | None:
    """Return how many tasks a DONE of the usual form asks for, and its attempt id; None: see `parse_word`."""
    done = None if message[1] else _match_done(message[2])  # type: ignore[call-overload]  # any frame has a buffer
    return None if done is None else done.groups()


def parse_word(frame: Sized) -> Word | None:
    """Read the frame of a word; None: it is none. Raises MalformedError for one without what belongs to it."""
    if len(frame) > LARGEST_WORD:
        return None
    verb, _, rest = bytes(frame)[len(HEADER) :].partition(b" ")  # type: ignore[call-overload]
    if verb in OUTCOMES:
        number, _, attempt_id = rest.partition(b" ")
    elif verb in COUNTED:
        number, attempt_id = rest, b""
    elif verb in NAMED:
        number, attempt_id = b"0", rest
    else:
        return None
    is_number = len(number) <= 2 and number.isdigit() and int(number) <= MOST_ASKED
    if not is_number or (verb in COUNTED) == bool(attempt_id):
        raise MalformedError(f"{verb.decode()} needs a number from 0 to {MOST_ASKED}, an attempt id, or both")
    return Word(verb, int(number), attempt_id)


def parse_said(argument: Frames) -> Sized:
    """Return the argument of PROGRESS, which the broker does not read; raises MalformedError for what is none."""
    if not argument or len(argument[0]) > LARGEST_PROGRESS:
        raise MalformedError(f"progress without an argument of up to {LARGEST_PROGRESS} bytes")
    return argument[0]


# What the broker sends


def welcome_message(worker: Sized, version: str) -> Frames:
    """Build the answer to an announce."""
    fields = f'{{"role": "broker", "protocol": {PROTOCOL}, "version": {quote(version)}}}'
    return [worker, HEADER + fields.encode(), EMPTY]


def refusal_message(error: MalformedRequestError) -> Frames:
    """Build the answer to what `parse_announce` has raised."""
    header = error.header or Header()
    at = "READY" if isinstance(error, MisplacedRequestError) else None
    about = reply_header(header.key, INVALID, 0, str(error), None, header.id, at)
    return reply_message([*error.envelope, about], [])


def task_header(number: int, key: str | None, queue: str, attempt: int, tries: int, timeout: float | None) -> bytes:
    """Build the header of a task for a worker that wants one; `timeout` is in seconds, None: no limit."""
    name = "null" if key is None else quote_text(key)
    return f'ZB1 {{"number": {number}, "key": {name}, {_limits(queue, attempt, tries, timeout)}}}'.encode()


@lru_cache(maxsize=256, typed=True)  # most tasks share it: it is a third of their header
def _limits(queue: str, attempt: int, tries: int, timeout: float | None) -> str:
    limit = "null" if timeout is None else repr(timeout)
    return f'"queue": "{queue}", "attempt": {attempt}, "tries": {tries}, "timeout": {limit}'  # it needs no quoting


def told_message(worker: Sized, verb: bytes, what: bytes) -> Frames:
    """Build what a worker is told: DROP or CANCEL and an attempt id, or WITHDRAWN and a number."""
    return [worker, b"%s%s %s" % (HEADER, verb, what), EMPTY]


# What workers send and receive


def announce_message(announce: Announce, version: str, attempt_ids: list[bytes]) -> Frames:
    """Build an announce, for a DEALER."""
    fields = {ROLE: WORKER, "protocol": PROTOCOL, "version": version} | announce._asdict()
    return [HEADER + quote(fields).encode(), EMPTY, *attempt_ids]


def counted_message(verb: bytes, asks: int) -> Frames:
    """Build READY or WITHDRAW."""
    return [EMPTY, b"%s%s %d" % (HEADER, verb, asks)]


def outcome_message(verb: bytes, asks: int, attempt_id: bytes, argument: Frames) -> Frames:
    """Build an outcome that asks for so many tasks as well; the argument is a result's body, a reason, or nothing."""
    return [EMPTY, b"%s%s %d %s" % (HEADER, verb, asks, attempt_id), *argument]


def named_message(verb: bytes, attempt_id: bytes, argument: bytes) -> Frames:
    """Build TOUCH, with seconds or nothing, or PROGRESS, with JSON."""
    return [EMPTY, b"%s%s %s" % (HEADER, verb, attempt_id), argument]


class Given(NamedTuple):
    """A task, as a worker receives it."""

    attempt_id: bytes
    body: Frames
    header: Sized = EMPTY  # read when somebody asks: most handlers never do

    @property
    def fields(self) -> dict[str, Any]:
        """Return what it tells about itself; nothing where that was not asked for."""
        try:
            return read_fields(self.header) if len(self.header) else {}
        except ValueError:
            return {}


class Welcome(NamedTuple):
    """What answers an announce."""

    fields: dict[str, Any]
    refusal: str  # empty: the broker takes it; else why not

    @property
    def version(self) -> str:
        """Return the version that the broker says it has."""
        return str(self.fields.get("version", ""))[:LONGEST_VERSION]


def parse_told(message: Frames) -> Given | Welcome | Word:
    """Read what the broker says to a DEALER that has announced itself; raises MalformedError for anything else."""
    first = message[0]
    if not len(first):
        return _given(message[1:], EMPTY)
    if head(first, len(HEADER)) != HEADER or len(message) < 2 or len(message[1]):
        raise MalformedError("a message without a header")
    if len(message) > 3:
        return _given(message[2:], first)
    verb, _, what = head(first, LARGEST_WORD)[len(HEADER) :].partition(b" ")
    if verb in (DROP, CANCEL):
        return Word(verb, 0, what)
    if verb == WITHDRAWN:
        return Word(WITHDRAWN, int(what) if what.isdigit() else 0, b"")
    return _welcome(first)


def _given(rest: Frames, header: Sized) -> Given:
    if len(rest) < 2 or not len(rest[0]):
        raise MalformedError("a task without an attempt id or a body")
    attempt_id = rest[0]
    if type(attempt_id) is not bytes:
        attempt_id = bytes(attempt_id)  # type: ignore[call-overload]
    return tuple.__new__(Given, (attempt_id, rest[1:], header))  # half as dear as to call it


def _welcome(header: Sized) -> Welcome:
    try:
        fields = read_fields(header)
    except ValueError as error:
        raise MalformedError(f"a bad header: {error}") from None
    if fields.get(ROLE) == "broker":
        return Welcome(fields, "")
    if "status" not in fields:
        raise MalformedError("a header that is neither a welcome nor a refusal")
    return Welcome(fields, str(fields.get("reason") or fields["status"]))
