"""`Client.map`: any number of bodies through a bounded window, one task for each body or for a chunk of them.

Bodies may come slowly, as the lines of a log do; replies that are there must not wait for them then. So what is no
sequence is iterated in a thread of its own. Replies come by a queue, as many at a time as were received together, and
the thread says by the same queue that bodies have come: once, for all that come until it is heard.
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

from zmqbroker.client.futures import body_of, failure_of, outcome_of
from zmqbroker.client.session import Settle
from zmqbroker.wire import Frames, Reply, chunks, frames_of, is_list
from zmqbroker.wire.chunks import Failure

COME = None  # among arrivals: there are requests
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


Arrivals = SimpleQueue[Any]  # of lists of replies, and of what is said of requests: COME or an End


def requests_for(bodies: Iterable[Any], chunk: int) -> Iterator[Request]:
    """Make a task of each body, or of so many at a time."""
    return _single_requests(bodies) if chunk == 1 else _chunk_requests(bodies, chunk)


def _single_requests(bodies: Iterable[Any]) -> Iterator[Request]:
    for body in bodies:
        yield Request(frames_of(body), _outcome_as_list if is_list(body) else _outcome)


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

    def hear(self, _: "End | None") -> None:
        """Be told what was said of requests, which nobody does."""

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
        self._is_told = False  # that requests have come, or will be as soon as it looks
        self._window = window
        self._room: SimpleQueue[int] = SimpleQueue()  # for so many more
        self._part = -(-window // PARTS)
        self._finished = 0  # for which no room was made yet
        self._is_left = False
        threading.Thread(target=self._iterate, name="zmqbroker map", daemon=True).start()

    def hear(self, end: End | None) -> None:
        """Be told what was said of requests, None is COME; raises what the iterable raised."""
        if end is None:
            self._is_told = False
        elif end.error is None:
            self.has_ended = True
        else:
            raise end.error

    def take(self) -> Request | None:
        """Return the next one that has come; None: there is none now."""
        return self._came.popleft() if self._came else None

    def make_room(self) -> None:
        """Be told that a task is finished."""
        self._finished += 1
        if self._finished == self._part:
            self._finished = 0
            self._room.put(self._part)

    def close(self) -> None:
        """Be told that no more are wanted. What the iterable is at it may finish; nobody waits for that."""
        self._is_left = True
        self._room.put(0)

    def _iterate(self) -> None:
        # Python aborts when it closes, at its end, a stdin that a thread reads: that is kept from it with this frame.
        _stdin = sys.stdin, sys.__stdin__
        end = End(None)
        try:
            room = self._window
            while not self._is_left:
                if not room:
                    room = self._room.get()
                    continue
                request = next(self._requests, None)
                if request is None:
                    break
                room -= 1
                self._came.append(request)
                if not self._is_told:
                    self._is_told = True
                    self._arrivals.put(COME)
        except BaseException as error:
            end = End(error)
        self._arrivals.put(end)


def outcomes(sender: Sender, bodies: Iterable[Any], chunk: int, window: int, ordered: bool) -> Generator[Any]:
    """Send tasks, never more than `window` ahead, and yield what came of each body.

    While replies are there to be yielded, two tasks are sent for each: so neither side waits for the other, and soon
    as many are ahead as the window allows. Those left when the generator is closed are cancelled.
    """
    arrivals: Arrivals = SimpleQueue()
    settle = arrivals.put  # one for all, so that one call tells of all that come together
    requests = requests_for(bodies, chunk)
    source = _AtHand(requests) if isinstance(bodies, Sequence) else _Coming(requests, window, arrivals)
    ahead: dict[str, tuple[int, Request]] = {}  # by key, those without a reply: the number, and what was asked
    replies: deque[Reply] = deque()  # that have arrived
    early: dict[int, list[Any]] = {}  # outcomes that cannot be yielded yet
    sent = finished = 0
    try:
        while True:
            before = sent
            while sent - finished < window and (sent - before < 2 or (not replies and arrivals.empty())):
                request = source.take()
                if request is None:
                    break
                ahead[sender.send(request.body, settle)] = sent, request
                sent += 1
            if not ahead and source.has_ended:
                return
            if not replies:
                sender.check()
                arrived = arrivals.get()
                if not isinstance(arrived, list):
                    source.hear(arrived)
                    continue
                replies.extend(arrived)
            reply = replies.popleft()
            number, request = ahead.pop(reply.key or "")
            early[number] = request.outcomes(reply)
            next_number = finished if ordered else number
            while next_number in early:
                yield from early.pop(next_number)
                finished += 1
                next_number += 1
                source.make_room()
    finally:
        source.close()
        for key in ahead:
            sender.cancel(key)


def raise_failures(found: Generator[Any]) -> Iterator[Any]:
    """Yield results, and raise the first failure."""
    with closing(found):
        for outcome in found:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


def _outcome(reply: Reply) -> list[Any]:
    return [outcome_of(reply, as_list=False)]


def _outcome_as_list(reply: Reply) -> list[Any]:
    return [outcome_of(reply, as_list=True)]


def _chunk_outcomes(reply: Reply, as_lists: list[bool]) -> list[Any]:
    whole = outcome_of(reply, as_list=True)
    if isinstance(whole, Exception):
        return [whole] * len(as_lists)
    try:
        found = chunks.unpack_results(reply.body)
        if len(found) != len(as_lists):
            raise ValueError(f"{len(found)} results for a chunk of {len(as_lists)}")
    except ValueError as error:
        return [failure_of(reply, str(error))] * len(as_lists)
    return [_chunk_outcome(*pair, reply) for pair in zip(found, as_lists, strict=True)]


def _chunk_outcome(outcome: Frames | Failure, as_list: bool, reply: Reply) -> Any:
    if isinstance(outcome, Failure):
        return failure_of(reply, outcome.reason)
    return body_of(outcome, as_list)
