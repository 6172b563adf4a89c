"""Bodies that are JSON, for both ends that agree on that. To the broker they are bytes like any other."""

import json
from typing import Any, NoReturn

from zmqbroker.wire.frames import Frames, plain

NO_JSON = "it is no JSON"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_read = json.JSONDecoder(parse_constant=_refuse_constant).decode


def write_json(value: Any) -> bytes:
    """Return a value as JSON, in UTF-8 and on one line.

    Raises TypeError for what JSON has no word for, ValueError for NaN, infinities and what holds itself.
    """
    try:
        return _write(value).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply for JSON") from None


def read_json(body: Frames) -> Any:
    """Return what a body says in JSON; raises ValueError where it is none."""
    text = plain(body)
    if isinstance(text, list):
        raise ValueError(f"{NO_JSON}, which has one frame: it has {len(text)}")
    try:
        return _read(text.decode())
    except RecursionError:
        raise ValueError("it is JSON that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{NO_JSON}: {error}") from None
