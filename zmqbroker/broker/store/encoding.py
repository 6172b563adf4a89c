"""Tasks to rows of the table and back.

SQLite does not notice when a byte of a row has changed on the disk, so each row has two sums: one over what was asked
for, one over the body. Neither changes with an attempt, and what does has none: damage to it may cost an attempt more
or less, or a while, and gives nobody what is another one's.
"""

from functools import lru_cache
from json import loads
from marshal import dumps
from typing import Any
from zlib import crc32

from zmqbroker.broker.store.rows import NO_WISHES, PLAIN, SETTLED, UNSETTLED, DamagedTask, Request, State, StoredTask
from zmqbroker.wire import Frames
from zmqbroker.wire.header import quote

Row = tuple[Any, ...]

FORMAT = 2  # of marshal: the same bytes for the same values in every Python
DISTINCT_WISHES = 256  # whose text is at hand: most clients wish the same for many tasks
WISHES = Request._fields[PLAIN:]  # they have one column together
PLAIN_WISHES = (None,)
KEY = Request._fields.index("key")
ASKED = PLAIN + 1  # columns
TOLD = ASKED + 1 + len(State._fields)  # where the state ends in a row
NEW = State()
INSTANTS = (type(None), float)
STATE_TYPES = {(str, due, int, int, int, str, str, until) for due in INSTANTS for until in INSTANTS}

_make = tuple.__new__  # of a named one: half as dear as to call it


def encode(task: StoredTask) -> Row:
    """Return the row of a task, in the order of the table."""
    request, state, body, _ = task
    return encode_request(request) + encode_state(state) + encode_body(body or [])


def encode_request(request: Request) -> Row:
    """Return the columns of what was asked for, and its sum."""
    wishes = request[PLAIN:]
    asked: Row = request[:PLAIN] + (PLAIN_WISHES if wishes == NO_WISHES else (_text_of(wishes),))
    return asked + (crc32(dumps(asked, FORMAT)),)  # noqa: RUF005 (half as dear)


def encode_state(state: State) -> Row:
    """Return the columns of a state. Names and reasons come from outside: what is no text is not stored as such."""
    if state.reason.isascii() and state.worker.isascii():
        return state
    return state._replace(reason=_text(state.reason), worker=_text(state.worker))


def encode_body(body: Frames) -> Row:
    """Return the columns of a body: the sizes of its frames (None: there is one), its sum, and its bytes."""
    frames: list[Any] = body
    if len(frames) == 1:
        return None, crc32(frames[0]), frames[0]
    sizes, joined = " ".join(str(len(frame)) for frame in frames), b"".join(frames)
    return sizes, crc32(joined, crc32(sizes.encode())), joined


def decode(row: Row) -> StoredTask | DamagedTask:
    """Return the task of a row. Of what is settled the body may have been left: then there is its length instead."""
    asked, state = row[:ASKED], _state_of(row[ASKED + 1 : TOLD])
    sizes, body_sum, body = row[TOLD:]
    if row[ASKED] != crc32(dumps(asked, FORMAT)) or state is None:
        return _damaged(row)
    request: Request = _make(Request, asked[:PLAIN] + (NO_WISHES if asked[PLAIN] is None else _wishes_in(asked[PLAIN])))
    if type(body) is int and state.until is not None:
        return StoredTask(request, state, None, body)
    try:
        if body_sum != (crc32(body) if sizes is None else crc32(body, crc32(str.encode(sizes)))):
            return _damaged(row)
    except TypeError:
        return _damaged(row)
    return _make(StoredTask, (request, state, [body] if sizes is None else _frames(sizes, body), len(body)))


def _state_of(told: Row) -> State | None:
    """Return the state that these columns have; None: they have none. Nearly all that wait were never handed out."""
    if told == NEW and type(told[2]) is type(told[3]) is type(told[4]) is int:  # 0.0 is equal to 0, and damage
        return NEW
    if tuple(map(type, told)) not in STATE_TYPES or told[0] not in (UNSETTLED if told[-1] is None else SETTLED):
        return None
    return _make(State, told)


def _frames(sizes: str, body: bytes) -> Frames:
    frames, start = [], 0
    for size in map(int, sizes.split()):
        frames.append(body[start : start + size])
        start += size
    return list(frames)


@lru_cache(DISTINCT_WISHES)
def _text_of(wishes: Row) -> str:
    """Return what a client wished beyond what all tasks have, as JSON."""
    return quote({name: wish for name, wish, none in zip(WISHES, wishes, NO_WISHES, strict=True) if wish != none})


@lru_cache(DISTINCT_WISHES)
def _wishes_in(text: str) -> Row:
    """Return what `_text_of` made a text of."""
    return Request(0, b"", "", **loads(text))[PLAIN:]


def _damaged(row: Row) -> DamagedTask:
    key = row[KEY]
    return DamagedTask(row[0], key if isinstance(key, str) else None, _owner_in(row[PLAIN]))


def _owner_in(wishes: Any) -> str | None:
    """Return whose a damaged task is, as far as that can be read."""
    try:
        owner = loads(wishes)["owner"]
    except (TypeError, ValueError, KeyError, RecursionError):
        return None
    return owner if isinstance(owner, str) else None


def _text(text: str) -> str:
    return text.encode(errors="replace").decode()
