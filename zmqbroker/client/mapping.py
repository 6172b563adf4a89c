"""What a `map` decides: which tasks are sent next, what came too early, and what is yielded next.

It has no queue, no thread and no loop. A face of the client, for threads or for asyncio, gives it the replies that
arrive, yields what it says and tells it so. Tasks are sent some at a time: to hand one to the thread that sends is
dearer than to make it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from zmqbroker.client.bodies import Read, prepare, prepare_json, value_of
from zmqbroker.client.futures import failure_of, outcome_of
from zmqbroker.client.request import Request, Settle
from zmqbroker.wire import Frames, Reply, chunks
from zmqbroker.wire.chunks import Failure

PARTS = 8  # of the window; when there is room for one, tasks are sent, and who iterates slow bodies is woken
MOST_AT_ONCE = 64  # tasks that are sent together

Task = tuple[Frames, Read | list[Read]]  # to be sent, and how its result is read; several: that of each body in it


class Sender(NamedTuple):
    """What a client does for a `map`."""

    request: Callable[[Frames, Settle], Request]  # makes a task's request
    send: Callable[[list[Request]], None]
    cancel: Callable[[str], object]
    check: Callable[[], None]  # raises RuntimeError when no reply can come


class Source(Protocol):
    """Where the tasks come from."""

    has_ended: bool  # and all that came were taken

    def take(self, most: int, finished: int) -> list[Task]:
        """Return the next ones that are there, up to `most`; so many of those that were taken are finished."""


class Mapping:
    """The tasks of one `map`, at most a window of them ahead of what was yielded."""

    def __init__(self, sender: Sender, source: Source, window: int, ordered: bool, settle: Settle) -> None:
        """Begin with nothing sent; `settle` is given the replies."""
        self._sender = sender
        self._source = source
        self._is_ordered = ordered
        self._settle = settle  # one for all, so that one call tells of all that come together
        self._window = window
        self._part = min(-(-window // PARTS), MOST_AT_ONCE)
        self._room = window  # for so many more tasks
        self._sent = 0
        self._ahead: dict[str, tuple[int, Read | list[Read]]] = {}  # by key, without a reply: number, how it is read
        self._early: dict[int, list[Any]] = {}  # outcomes that cannot be yielded yet, by the number of their task
        self._next = 0  # the number of the task that is yielded next

    @property
    def is_over(self) -> bool:
        """Tell whether there is nothing to come; asked when there was nothing to send."""
        return not self._ahead and self._source.has_ended

    def send(self) -> bool:
        """Send the next tasks: a part of the window at most, so that neither side waits for the other.

        False when there are none, or no room for one.
        """
        finished = self._sent + self._room - self._window
        taken = self._source.take(min(self._room, self._part), finished)
        if not taken:
            return False
        make, settle, ahead, requests = self._sender.request, self._settle, self._ahead, []
        for number, (body, read) in enumerate(taken, self._sent):
            request = make(body, settle)
            ahead[request.key] = number, read
            requests.append(request)
        self._sent += len(taken)
        self._room -= len(taken)
        self._sender.send(requests)
        return True

    def take_in(self, reply: Reply) -> Sequence[list[Any]]:
        """Take in the reply to a task, and return what is to be yielded now: for each task what came of its bodies.

        After those of each task, `finish` is to be called.
        """
        number, read = self._ahead.pop(reply.key or "")
        outcomes = [outcome_of(reply, read)] if callable(read) else _chunk_outcomes(reply, read)
        if number != self._next and self._is_ordered:
            self._early[number] = outcomes
            return ()
        self._next += 1
        if not self._early:
            return (outcomes,)
        found = [outcomes]
        while self._next in self._early:
            found.append(self._early.pop(self._next))
            self._next += 1
        return found

    def finish(self) -> None:
        """Note that what came of a task was yielded, and send more when there is room for a part of the window."""
        self._room += 1
        if self._room >= self._part:
            self.send()

    def cancel(self) -> None:
        """Cancel what has no reply: no more is wanted."""
        for key in self._ahead:
            self._sender.cancel(key)


def tasks_for(bodies: Iterable[Any], as_json: bool, chunk: int) -> Iterator[Task]:
    """Make a task of each body, or of so many at a time."""
    prepared = map(prepare_json if as_json else prepare, bodies)
    return prepared if chunk == 1 else _chunk_tasks(prepared, chunk)


def _chunk_tasks(prepared: Iterator[tuple[Frames, Read]], size: int) -> Iterator[Task]:
    while chunk := list(islice(prepared, size)):
        yield chunks.pack(frames for frames, _ in chunk), [read for _, read in chunk]


def _chunk_outcomes(reply: Reply, read: list[Read]) -> list[Any]:
    """Return a result, or the exception in its place, for each body of a chunk."""
    whole = outcome_of(reply, chunks.unpack_results)
    if isinstance(whole, ValueError):
        whole = failure_of(reply, str(whole))
    elif not isinstance(whole, Exception) and len(whole) != len(read):
        whole = failure_of(reply, f"{len(whole)} results for a chunk of {len(read)}")
    if isinstance(whole, Exception):
        return [whole] * len(read)
    return [_chunk_outcome(*pair, reply) for pair in zip(whole, read, strict=True)]


def _chunk_outcome(outcome: Frames | Failure, read: Read, reply: Reply) -> Any:
    return failure_of(reply, outcome.reason) if isinstance(outcome, Failure) else value_of(outcome, read)
