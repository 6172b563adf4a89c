"""What the peers of `bench.growth` say of queues and groups: the headers of tasks, and workers that ask from queues."""

from argparse import Namespace
from math import gcd
from typing import Any

import zmq

from bench.roles import say
from zmqbroker import __version__
from zmqbroker.wire import HEADER, Announce, announced
from zmqbroker.wire.header import quote
from zmqbroker.wire.names import MOST_QUEUES

STRIDE = 7919  # from one queue or group to the next one: so that neighbours, which have the same workers, are no burst
SHARED = "shared"  # the queue that all lists contain


def headers(options: Namespace) -> list[bytes]:
    """Return the headers that tasks have in turn; none: they are plain."""
    if options.queues:
        return [_header("queue", f"queue-{number}") for number in _scattered(options.queues)]
    if options.groups:
        return [_header("group", f"user {number}") for number in _scattered(options.groups)]
    return [_header("queue", SHARED)] if options.lists else []


def lists(options: Namespace) -> list[tuple[str, ...]]:
    """Return the lists of queues that workers ask from in turn; none: they are plain."""
    if options.queues:
        names = [f"queue-{number}" for number in range(options.queues)]
        return [tuple(names[start : start + MOST_QUEUES]) for start in range(0, len(names), MOST_QUEUES)]
    if options.groups:
        return [("default",)]
    return [(SHARED, f"other-{number}") for number in range(options.lists)]


def work(ready: "zmq.Socket[Any]", names: list[bytes], options: Namespace) -> None:
    """Answer each task; say so when every worker has answered."""
    asked_from, share = lists(options), options.slots // options.peers
    for number, name in enumerate(names):
        announce = Announce(queues=asked_from[number % len(asked_from)])
        _send(ready, name, announced.announce_message(announce, __version__, []))
        for asks in [announced.MOST_ASKED] * (share // announced.MOST_ASKED) + [share % announced.MOST_ASKED]:
            _send(ready, name, announced.counted_message(announced.READY, asks))
    unserved = set(names)
    while True:
        name, first, *task = ready.recv_multipart()
        if first:  # the welcome
            continue
        attempt_id, body = task
        _send(ready, name, announced.outcome_message(announced.DONE, 1, attempt_id, [body]))
        if unserved:
            unserved.discard(name)
            if not unserved:
                say(served=True)


def _send(ready: "zmq.Socket[Any]", name: bytes, message: list[Any]) -> None:
    ready.send_multipart([name, *message])


def _header(field: str, value: str) -> bytes:
    return HEADER + quote({field: value}).encode()


def _scattered(number: int) -> list[int]:
    assert gcd(number, STRIDE) == 1
    return [place * STRIDE % number for place in range(number)]
