"""The header, by which a client or a worker says that it wants more than the plain protocol.

It is one frame, the last of an envelope: four bytes that name it, then a JSON object.
"""

import json
from collections.abc import Sized
from typing import Any

HEADER = b"ZB1 "  # how a header starts
LARGEST_HEADER = 4096  # bytes, of a request
LARGEST_ANNOUNCE = 65536  # bytes, of a worker's

ROLE = "role"  # the field by which an announce and a welcome are told from a request
WORKER = "worker"
WORKERS_BELONG = "a worker belongs to the one for workers (READY)"
CLIENTS_BELONG = "a client belongs to the one for clients (REQUESTS)"

_read = json.JSONDecoder().raw_decode  # json.loads and json.dumps take three times as long for what is so short
quote = json.JSONEncoder(allow_nan=False).encode


def read_fields(header: Sized) -> dict[str, Any]:
    """Return the fields of a header; raises ValueError for what is no JSON object."""
    return read_object(bytes(header)[len(HEADER) :])  # type: ignore[call-overload]


def read_object(text: bytes) -> dict[str, Any]:
    """Return what a JSON object has; raises ValueError for what is none."""
    try:
        stripped = text.decode().strip(" \t\r\n")
        found, end = _read(stripped)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(found, dict) or end < len(stripped):
        raise ValueError("it is no JSON object")
    return found
