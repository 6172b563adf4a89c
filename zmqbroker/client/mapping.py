"""`Client.map`: any number of bodies through a bounded window, one task for each body or for a chunk of them.

Bodies may come slowly, as the lines of a log do; replies that are there must not wait for them then. So what is no
sequence is iterated in a thread of its own, and replies and bodies come by the same queue.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, NamedTuple

from zmqbroker.client.futures import TaskFailed, body_of, outcome_of
from zmqbroker.client.session import Settle
from zmqbroker.wire import FAILED, Frames, Reply, chunks, frames_of, is_list
from zmqbroker.wire.chunks import Failure

PARTS = 8  # of the window; the thread that iterates is woken when there is room for one: to wake it is dear


class Request(NamedTuple):
    """A task to be sent, and how its reply is read."""

    body: Frames
    outcomes: Callable[[Reply], list[Any]]  # a result or a TaskFailed for each body in it


class Sender(NamedTuple):
    """What a client does for a `map`."""

    send: Callable[[Frames, Settle], str]  # sends a task, and returns its key
    cancel: Callable[[str], object]
    check: Callable[[], None]  # raises RuntimeError when no reply can come


class End(NamedTuple):
    """There are no more requests."""

    error: BaseException | None  # that the iterable raised; None: it ended


Arrivals = SimpleQueue[Any]  # of replies, each with the number of its task, and of requests and their end


def requests_for(bodies: Iterable[Any], chunk: int) -> Iterator[Request]:
    """Make a task of each body, or of so many at a time."""
    return _single_requests(bodies) if chunk == 1 else _chunk_requests(bodies, chunk)


def _single_requests(bodies: Iterable[Any]) -> Iterator[Request]:
    for body in bodies:
        yield Request(frames_of(body), partial(_single_outcome, as_list=is_list(body)))


def _chunk_requests(bodies: Iterable[Any], size: int) -> Iterator[Request]:
    rest = iter(bodies)
    while chunk := list(islice(rest, size)):
        as_lists = [is_list(body) for body in chunk]
        yield Request(chunks.pack(map(frames_of, chunk)), partial(_chunk_outcomes, as_lists=as_lists))


class _AtHand:
    """Requests that never make anybody wait."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.has_ended = False
        self._requests = requests

    def take(self) -> Request | None:
        """Return the next one; None: there is no more."""
        request = next(self._requests, None)
        self.has_ended = request is None
        return request

    def make_room(self) -> None:
        """Be told that a task is finished."""

    def close(self) -> None:
        """Be told that no more are wanted."""


class _Coming:
    """Requests that a thread finds, at most a window ahead of what is finished."""

    def __init__(self, requests: Iterator[Request], window: int, arrivals: Arrivals) -> None:
        self.has_ended = False
        self._requests = requests
        self._arrivals = arrivals
        self._came: deque[Request] = deque()
        self._room = threading.Semaphore(window)
        self._part = -(-window // PARTS)
        self._finished = 0  # for which no room was made yet
        self._is_left = False
        threading.Thread(target=self._iterate, name="zmqbroker map", daemon=True).start()

    def come(self, what: Request | End) -> None:
        """Take in what has arrived; raises what the iterable raised."""
        if isinstance(what, Request):
            self._came.append(what)
        elif what.error is None:
            self.has_ended = True
        else:
            raise what.error

    def take(self) -> Request | None:
        """Return the next one that has come; None: there is none now."""
        return self._came.popleft() if self._came else None

    def make_room(self) -> None:
        """Be told that a task is finished."""
        self._finished += 1
        if self._finished == self._part:
            self._finished = 0
            self._room.release(self._part)

    def close(self) -> None:
        """Be told that no more are wanted. What the iterable is at it may finish; nobody waits for that."""
        self._is_left = True
        self._room.release()

    def _iterate(self) -> None:
        # Python aborts when it closes, at its end, a stdin that a thread reads: that is kept from it with this frame.
        _stdin = sys.stdin, sys.__stdin__
        end = End(None)
        try:
            while self._room.acquire() and not self._is_left and (request := next(self._requests, None)) is not None:
                self._arrivals.put(request)
        except BaseException as error:
            end = End(error)
        self._arrivals.put(end)


def outcomes(sender: Sender, bodies: Iterable[Any], chunk: int, window: int, ordered: bool) -> Generator[Any]:
    """Send tasks, never more than `window` ahead, and yield what came of each body.

    While replies are there to be yielded, two tasks are sent for each: so neither side waits for the other, and soon
    as many are ahead as the window allows. Those left when the generator is closed are cancelled.
    """
    arrivals: Arrivals = SimpleQueue()
    requests = requests_for(bodies, chunk)
    source = _AtHand(requests) if isinstance(bodies, Sequence) else _Coming(requests, window, arrivals)
    ahead: dict[int, tuple[str, Request]] = {}  # by number, those without a reply: the key, and what was asked
    early: dict[int, list[Any]] = {}  # outcomes that cannot be yielded yet
    sent = finished = 0
    try:
        while True:
            before = sent
            while sent - finished < window and (sent - before < 2 or arrivals.empty()):
                request = source.take()
                if request is None:
                    break
                ahead[sent] = sender.send(request.body, partial(_put, arrivals, sent)), request
                sent += 1
            if not ahead and source.has_ended:
                return
            sender.check()
            arrived = arrivals.get()
            if isinstance(source, _Coming) and type(arrived) is not tuple:
                source.come(arrived)
                continue
            number, reply = arrived
            _, request = ahead.pop(number)
            early[number] = request.outcomes(reply)
            next_number = finished if ordered else number
            while next_number in early:
                yield from early.pop(next_number)
                finished += 1
                next_number += 1
                source.make_room()
    finally:
        source.close()
        for key, _ in ahead.values():
            sender.cancel(key)


def raise_failures(found: Generator[Any]) -> Iterator[Any]:
    """Yield results, and raise the first failure."""
    with closing(found):
        for outcome in found:
            if isinstance(outcome, TaskFailed):
                raise outcome
            yield outcome


def _put(arrivals: Arrivals, number: int, reply: Reply) -> None:
    arrivals.put((number, reply))


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
