"""`Client.map`: any number of bodies through a bounded window, one task for each body or for a chunk of them.

Bodies may come slowly, as the lines of a log do; replies that are there must not wait for them then. So what is no
sequence is iterated in a thread of its own. Replies come by a queue, as many at a time as were received together, and
the thread says by the same queue that bodies have come: once, for all that come until it is heard. Tasks are sent some
at a time, too: to hand one to the thread that sends is dearer than to make it.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from queue import SimpleQueue
from typing import Any, NamedTuple

from zmqbroker.client.bodies import Read, prepare, prepare_json, value_of
from zmqbroker.client.futures import failure_of, outcome_of
from zmqbroker.client.session import Request, Settle
from zmqbroker.wire import Frames, Reply, chunks
from zmqbroker.wire.chunks import Failure

COME = None  # among arrivals: there are requests
PARTS = 8  # of the window; when there is room for one, tasks are sent, and the thread that iterates is woken
MOST_AT_ONCE = 64  # tasks that are sent together

Task = tuple[Frames, Read | list[Read]]  # to be sent, and how its result is read; several: that of each body in it


class Sender(NamedTuple):
    """What a client does for a `map`."""

    request: Callable[[Frames, Settle], Request]  # makes a task's request
    send: Callable[[list[Request]], None]
    cancel: Callable[[str], object]
    check: Callable[[], None]  # raises RuntimeError when no reply can come


class End(NamedTuple):
    """There are no more requests."""

    error: BaseException | None  # that the iterable raised; None: it ended


Arrivals = SimpleQueue[Any]  # of lists of replies, and of what is said of requests: COME or an End


def tasks_for(bodies: Iterable[Any], as_json: bool, chunk: int) -> Iterator[Task]:
    """Make a task of each body, or of so many at a time."""
    prepared = map(prepare_json if as_json else prepare, bodies)
    return prepared if chunk == 1 else _chunk_tasks(prepared, chunk)


def _chunk_tasks(prepared: Iterator[tuple[Frames, Read]], size: int) -> Iterator[Task]:
    while chunk := list(islice(prepared, size)):
        yield chunks.pack(frames for frames, _ in chunk), [read for _, read in chunk]


class _AtHand:
    """Tasks that never make anybody wait."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self.has_ended = False
        self._tasks = tasks

    def take(self, most: int) -> list[Task]:
        """Return the next ones, up to so many."""
        taken = list(islice(self._tasks, most))
        self.has_ended = len(taken) < most
        return taken

    def hear(self, _: "End | None") -> None:
        """Be told what was said of tasks, which nobody does."""

    def make_room(self) -> None:
        """Be told that a task is finished."""

    def close(self) -> None:
        """Be told that no more are wanted."""


class _Coming:
    """Tasks that a thread finds, at most a window ahead of what is finished."""

    def __init__(self, tasks: Iterator[Task], window: int, arrivals: Arrivals) -> None:
        self.has_ended = False
        self._tasks = tasks
        self._arrivals = arrivals
        self._came: deque[Task] = deque()
        self._is_told = False  # that tasks have come, or will be as soon as it looks
        self._window = window
        self._room: SimpleQueue[int] = SimpleQueue()  # for so many more
        self._part = -(-window // PARTS)
        self._finished = 0  # for which no room was made yet
        self._is_left = False
        threading.Thread(target=self._iterate, name="zmqbroker map", daemon=True).start()

    def hear(self, end: End | None) -> None:
        """Be told what was said of tasks, None is COME; raises what the iterable raised."""
        if end is None:
            self._is_told = False
        elif end.error is None:
            self.has_ended = True
        else:
            raise end.error

    def take(self, most: int) -> list[Task]:
        """Return the next ones that have come, up to so many."""
        came = self._came
        return [came.popleft() for _ in range(min(most, len(came)))]

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
                task = next(self._tasks, None)
                if task is None:
                    break
                room -= 1
                self._came.append(task)
                if not self._is_told:
                    self._is_told = True
                    self._arrivals.put(COME)
        except BaseException as error:
            end = End(error)
        self._arrivals.put(end)


def outcomes(
    sender: Sender, bodies: Iterable[Any], as_json: bool, chunk: int, window: int, ordered: bool
) -> Generator[Any]:
    """Send tasks, never more than `window` ahead, and yield what came of each body.

    They are sent when there is room for a part of the window, or nothing to be yielded; one part for each reply at
    most. So neither side waits for the other. Those left when the generator is closed are cancelled.
    """
    arrivals: Arrivals = SimpleQueue()
    settle = arrivals.put  # one for all, so that one call tells of all that come together
    tasks = tasks_for(bodies, as_json, chunk)
    source = _AtHand(tasks) if isinstance(bodies, Sequence) else _Coming(tasks, window, arrivals)
    part = min(-(-window // PARTS), MOST_AT_ONCE)
    ahead: dict[
        str, tuple[int, Read | list[Read]]
    ] = {}  # by key, those without a reply: the number, and how it is read
    replies: deque[Reply] = deque()  # that have arrived
    early: dict[int, list[Any]] = {}  # outcomes that cannot be yielded yet
    sent = finished = 0
    try:
        while True:
            room = window - sent + finished
            if room >= part or (room and not replies and arrivals.empty()):
                requests = []
                for body, read in source.take(min(room, part)):
                    request = sender.request(body, settle)
                    ahead[request.key] = sent, read
                    requests.append(request)
                    sent += 1
                if requests:
                    sender.send(requests)
                    if not replies and arrivals.empty():
                        continue
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
            number, read = ahead.pop(reply.key or "")
            early[number] = _outcomes_of(reply, read)
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


def _outcomes_of(reply: Reply, read: Read | list[Read]) -> list[Any]:
    """Return a result, or the exception in its place, for each body of a task."""
    if callable(read):
        return [outcome_of(reply, read)]
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
