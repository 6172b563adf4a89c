"""What a thread asks of the broker and waits for itself, and what the answers to questions about tasks mean."""

from collections.abc import Callable, Iterable
from concurrent.futures import InvalidStateError
from math import inf
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Lock
from time import monotonic

from zmqbroker.client.futures import CLOSED, UNREACHABLE, failure_of
from zmqbroker.client.link import Link
from zmqbroker.client.request import Request
from zmqbroker.wire import CANCELLED, INVALID, UNKNOWN, UNSETTLED, Reply


def ask(link: Link, request: Request, until: float, leave: Callable[[str], bool]) -> Reply | None:
    """Send a request, and wait for its answer; None: it was left without one, at the instant `until` (inf: never).

    To leave it is what `leave` does with its name, and is done as well when this is interrupted.
    """
    arrival = Arrival()
    request.settle = arrival.put
    try:
        link.call(request, until)
        link.check_can_wait()
        reply = arrival.get(until)
        if reply is None:
            link.check_can_wait()
            if not leave(request.name):
                reply = arrival.get(inf)  # which has come just now
        return reply
    except BaseException:
        leave(request.name)
        raise


class Arrival:
    """A reply that one thread waits for, and another one brings.

    It is no future: what a signal handler raises could leave that locked, and the background thread would wait for it.
    Nor is it a SimpleQueue: before Python 3.13 its `get` may wait for ever when its time is over at the wrong moment.
    """

    def __init__(self) -> None:
        self._replies: list[Reply] = []
        self._missing = Lock()  # locked until there is one
        self._missing.acquire()

    def put(self, replies: list[Reply]) -> None:
        """Bring the reply, once."""
        self._replies += replies
        self._missing.release()

    def get(self, until: float) -> Reply | None:
        """Wait for the reply; None: there is none at the instant `until` (inf: never)."""
        timeout = -1 if until == inf else min(max(until - monotonic(), 0.0), TIMEOUT_MAX)
        return self._replies[0] if self._missing.acquire(timeout=timeout) else None


def check_cancelled(key: str, reply: Reply) -> None:
    """Raise KeyError when there was nothing to cancel, TaskFailed when the broker was not there to do it."""
    if reply.status in (INVALID, UNKNOWN):
        raise KeyError(key)
    if reply.status != CANCELLED:
        raise failure_of(reply, reply.reason, reply.status)


def forget(link: Link, requests: Iterable[Request]) -> None:
    """Send all of these, which forget outcomes, and wait for the answers.

    Raises what `check_forgotten` does.
    """
    arrived: SimpleQueue[list[Reply]] = SimpleQueue()
    names, replies = set(), []
    try:
        for request in requests:
            request.settle = arrived.put
            names.add(request.name)
            link.submit([request])
        while names:
            link.check_can_wait()
            for reply in arrived.get():
                names.discard(reply.id or "")
                replies.append(reply)
    finally:
        for name in names:
            link.drop(name)
    check_forgotten(replies)


def check_forgotten(replies: Iterable[Reply]) -> None:
    """Raise InvalidStateError when tasks have none yet, TaskFailed when the broker was not there to forget them."""
    unsettled = []
    for reply in replies:
        if reply.status in (CLOSED, UNREACHABLE, INVALID):
            raise failure_of(reply, reply.reason, reply.status)
        if reply.status in UNSETTLED:
            unsettled.append(f"{reply.key} is {reply.status}")
    if unsettled:
        raise InvalidStateError(f"not settled yet, so not forgotten: {', '.join(unsettled)}")
