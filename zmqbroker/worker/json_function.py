"""A handler that calls a function with what a body says in JSON, and returns as JSON what that returns.

What cannot be helped by trying again is rejected: a body that is no JSON, arguments that the function does not take,
and a result that JSON has no word for.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from zmqbroker.wire import frames_of
from zmqbroker.wire.chunks import Body
from zmqbroker.wire.json_body import read_json, write_json
from zmqbroker.worker.outcome import Reject


class JsonFunction:
    """Calls a function with the members of an object by name, or with those of an array by their places."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature: inspect.Signature | None = None  # of what has one that can be known
        with suppress(TypeError, ValueError):
            self._signature = inspect.signature(function)

    def __call__(self, body: Body) -> bytes:
        """Call the function on a body; raises Reject for what can never be done, else what the function raises."""
        by_place, by_name = _arguments(body)
        if self._signature is not None:
            try:
                self._signature.bind(*by_place, **by_name)
            except TypeError as error:
                raise Reject(f"the function does not take these arguments: {error}") from None
        result = self._function(*by_place, **by_name)
        try:
            return write_json(result)
        except (TypeError, ValueError) as error:
            raise Reject(f"the result cannot be said in JSON: {error}") from None


def _arguments(body: Body) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call, by place and by name; raises Reject for a body that has none."""
    try:
        value = read_json(frames_of(body))
    except ValueError as error:
        raise Reject(f"the body cannot be read: {error}") from None
    if isinstance(value, dict):
        return [], value
    if isinstance(value, list):
        return value, {}
    raise Reject(f"the body is JSON, but neither an object nor an array of arguments: {write_json(value).decode():.50}")
