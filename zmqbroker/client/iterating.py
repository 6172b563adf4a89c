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
from itertools import islice
from queue import SimpleQueue
from typing import Any, NamedTuple

from zmqbroker.client.mapping import PARTS, Mapping, Sender, Task, tasks_for

COME = None  # among arrivals: there are tasks


class End(NamedTuple):
    """There are no more tasks."""

    error: BaseException | None  # that the iterable raised; None: it ended


class AtHand:
    """Tasks that never make anybody wait."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self.has_ended = False
        self._tasks = tasks

    def take(self, most: int, _: int) -> list[Task]:
        """Return the next ones, up to so many."""
        taken = list(islice(self._tasks, most))
        self.has_ended = len(taken) < most
        return taken

    def hear(self, _: End | None) -> None:
        """Be told what was said of tasks, which nobody does."""

    def close(self) -> None:
        """Be told that no more are wanted."""


class Coming:
    """Tasks that somebody else finds, a thread or a coroutine, at most a window ahead of what is finished."""

    def __init__(self, window: int, put: Callable[[Any], object], make_room: Callable[[int], object]) -> None:
        """Take what tells of them, and what is told of room for so many more."""
        self.has_ended = False
        self.is_left = False  # no more are wanted
        self._put = put
        self._make_room = make_room
        self._came: deque[Task] = deque()
        self._is_told = False  # that tasks have come, or will be as soon as it looks
        self._part = -(-window // PARTS)
        self._finished = 0  # for which room was made

    def hear(self, end: End | None) -> None:
        """Be told what was said of tasks, None is COME; raises what the iterable raised."""
        if end is None:
            self._is_told = False
        elif end.error is None:
            self.has_ended = True
        else:
            raise end.error

    def take(self, most: int, finished: int) -> list[Task]:
        """Return the next ones that have come, up to so many, and make room for others when a part is finished."""
        if finished - self._finished >= self._part:
            self._make_room(finished - self._finished)
            self._finished = finished
        came = self._came
        return [came.popleft() for _ in range(min(most, len(came)))]

    def close(self) -> None:
        """Be told that no more are wanted. What the iterable is at it may finish; nobody waits for that."""
        self.is_left = True
        self._make_room(0)

    # By who finds them

    def add(self, task: Task) -> None:
        """Have one that was found."""
        self._came.append(task)
        if not self._is_told:
            self._is_told = True
            self._put(COME)

    def end(self, error: BaseException | None) -> None:
        """Say that there are no more, or what the iterable raised."""
        self._put(End(error))


def source_of(
    bodies: Iterable[Any], tasks: Iterator[Task], window: int, put: Callable[[Any], object]
) -> AtHand | Coming:
    """Return the tasks that are made of these bodies, by themselves or by a thread that tells of them."""
    if isinstance(bodies, Sequence):
        return AtHand(tasks)
    room: SimpleQueue[int] = SimpleQueue()
    coming = Coming(window, put, room.put)
    threading.Thread(target=_find, args=(coming, tasks, window, room), name="zmqbroker map", daemon=True).start()
    return coming


def _find(coming: Coming, tasks: Iterator[Task], window: int, more_room: SimpleQueue[int]) -> None:
    # Python aborts when it closes, at its end, a stdin that a thread reads: that is kept from it with this frame.
    _stdin = sys.stdin, sys.__stdin__
    error = None
    try:
        room = window
        while not coming.is_left:
            if not room:
                room = more_room.get()
                continue
            task = next(tasks, None)
            if task is None:
                break
            room -= 1
            coming.add(task)
    except BaseException as raised:
        error = raised
    coming.end(error)


def outcomes(
    sender: Sender, bodies: Iterable[Any], as_json: bool, chunk: int, window: int, ordered: bool
) -> Generator[Any]:
    """Send tasks, never more than `window` ahead, and yield what came of each body.

    Those left when the generator is closed are cancelled.
    """
    arrivals: SimpleQueue[Any] = SimpleQueue()  # lists of replies, and what is said of tasks: COME or an End
    source = source_of(bodies, tasks_for(bodies, as_json, chunk), window, arrivals.put)
    mapping = Mapping(sender, source, window, ordered, arrivals.put)
    try:
        while True:
            if arrivals.empty() and mapping.send():
                continue
            if mapping.is_over:
                return
            sender.check()
            arrived = arrivals.get()
            if not isinstance(arrived, list):
                source.hear(arrived)
                continue
            for reply in arrived:
                for found in mapping.take_in(reply):
                    yield from found
                    mapping.finish()
    finally:
        source.close()
        mapping.cancel()


def raise_failures(found: Generator[Any]) -> Iterator[Any]:
    """Yield results, and raise the first failure."""
    with closing(found):
        for outcome in found:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome
