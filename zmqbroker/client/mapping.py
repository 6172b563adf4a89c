"""`Client.map`: any number of bodies through a bounded window, one task for each body or for a chunk of them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, NamedTuple

from zmqbroker.client.futures import TaskFailed, body_of, outcome_of
from zmqbroker.client.session import Settle
from zmqbroker.wire import FAILED, Frames, Reply, chunks
from zmqbroker.wire.chunks import Body, Failure


class Request(NamedTuple):
    """A task to be sent, and how its reply is read."""

    body: Frames
    outcomes: Callable[[Reply], list[Any]]  # a result or a TaskFailed for each body in it


class Sender(NamedTuple):
    """What a client does for a `map`."""

    send: Callable[[Frames, Settle], str]  # sends a task, and returns its key
    cancel: Callable[[str], object]
    check: Callable[[], None]  # raises RuntimeError when no reply can come


def single_requests(bodies: Iterable[Body]) -> Iterator[Request]:
    """Make a task of each body."""
    for body in bodies:
        yield Request(frames_of(body), partial(_single_outcome, as_list=not isinstance(body, bytes)))


def chunk_requests(bodies: Iterable[Body], size: int) -> Iterator[Request]:
    """Make a task of so many bodies at a time."""
    rest = iter(bodies)
    while chunk := list(islice(rest, size)):
        as_lists = [not isinstance(body, bytes) for body in chunk]
        yield Request(chunks.pack(map(frames_of, chunk)), partial(_chunk_outcomes, as_lists=as_lists))


def outcomes(sender: Sender, requests: Iterator[Request], window: int, ordered: bool) -> Generator[Any, None, None]:
    """Send the requests, never more than `window` ahead, and yield what came of each body.

    While replies are there to be yielded, two tasks are sent for each: so neither side waits for the other, and soon
    as many are ahead as the window allows. Those left when the generator is closed are cancelled.
    """
    arrived: SimpleQueue[tuple[int, Reply]] = SimpleQueue()
    ahead: dict[int, tuple[str, Request]] = {}  # by number, those without a reply: the key, and what was asked
    early: dict[int, list[Any]] = {}  # outcomes that cannot be yielded yet
    sent = finished = 0
    ended = False
    try:
        while True:
            before = sent
            while not ended and sent - finished < window and (sent - before < 2 or arrived.empty()):
                request = next(requests, None)
                if request is None:
                    ended = True
                    break
                ahead[sent] = sender.send(request.body, partial(_put, arrived, sent)), request
                sent += 1
            if not ahead:
                return
            sender.check()
            number, reply = arrived.get()
            _, request = ahead.pop(number)
            early[number] = request.outcomes(reply)
            next_number = finished if ordered else number
            while next_number in early:
                yield from early.pop(next_number)
                finished += 1
                next_number += 1
    finally:
        for key, _ in ahead.values():
            sender.cancel(key)


def raise_failures(found: Generator[Any, None, None]) -> Iterator[Any]:
    """Yield results, and raise the first failure."""
    with closing(found):
        for outcome in found:
            if isinstance(outcome, TaskFailed):
                raise outcome
            yield outcome


def frames_of(body: Body) -> Frames:
    """Return a body's frames; raises TypeError for what is none."""
    if isinstance(body, bytes):
        return [body]
    if not isinstance(body, (list, tuple)) or not body or not all(isinstance(frame, bytes) for frame in body):
        raise TypeError(f"a body is bytes or a list of bytes, not {type(body).__name__}")
    return list(body)


def _put(arrived: "SimpleQueue[tuple[int, Reply]]", number: int, reply: Reply) -> None:
    arrived.put((number, reply))


def _single_outcome(reply: Reply, as_list: bool) -> list[Any]:
    return [outcome_of(reply, as_list)]


def _chunk_outcomes(reply: Reply, as_lists: list[bool]) -> list[Any]:
    whole = outcome_of(reply, as_list=True)
    if isinstance(whole, TaskFailed):
        return [whole] * len(as_lists)
    try:
        found = chunks.unpack_results(reply.body)
        if len(found) != len(as_lists):
            raise ValueError(f"{len(found)} results for a chunk of {len(as_lists)}")
    except ValueError as error:
        return [TaskFailed(str(error), FAILED, reply.attempts)] * len(as_lists)
    return [_chunk_outcome(*pair, reply.attempts) for pair in zip(found, as_lists, strict=True)]


def _chunk_outcome(outcome: Frames | Failure, as_list: bool, attempts: int) -> Any:
    if isinstance(outcome, Failure):
        return TaskFailed(outcome.reason, FAILED, attempts)
    return body_of(outcome, as_list)
