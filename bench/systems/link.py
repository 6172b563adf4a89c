"""How the client process reaches a system: what a module's `connect` returns."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

Settings = dict[str, Any]  # where the server is, and whatever else a system's processes must be told


class Link(NamedTuple):
    """A connected client."""

    submit: Callable[[bytes], Any]  # sends a task and returns a handle
    result: Callable[[Any, float], bytes]  # waits for the result, for so many seconds; raises what the system raises
    echo: Callable[[Iterable[bytes], int], Iterator[bytes]] | None = None  # results in order, with a bounded window
    count_right: Callable[[Iterable[bytes], int], int] | None = None  # how many of the results were right, likewise
    chunked: Callable[[Iterable[bytes], int], Iterator[bytes]] | None = None  # like `echo`, in chunks of that size
    call: Callable[[bytes], bytes] | None = None  # sends a task and waits; None: `submit` and `result` do it
    servers: tuple[int, ...] = ()  # the ids of server processes that the client has started
