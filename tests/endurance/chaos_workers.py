"""The workers of `chaos.py`: `req`, `dealer`, `announced` and `library` as programs, `handle` for `zmqbroker work`.

They do most tasks, and everything else with some: they are slow, too slow, they drop, fail, reject and release tasks,
raise exceptions, answer twice, die. A seed decides, anew for each task. Those that speak plain frames can be told to
connect anew when they have got nothing for some time: the broker may have died, and not know them any more.
"""

import heapq
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from math import inf
from typing import Any

import zmq
from chaos_tasks import (
    DAMAGED,
    ENDED,
    LISTS,
    POISON,
    REJECTED,
    RELEASED,
    TOOK,
    Journal,
    looks_like_ours,
    make_answer,
    randomness,
    read_body,
)

import zmqbroker

TOO_LONG = (0.9, 1.6)  # seconds, with attempts of 1 s; some are just in time
SHORT = (0.0, 0.05)
SLOTS = (2, 6)
LINGER_MS = 1000  # for the results of who leaves
LIBRARY_SLOTS = (1, 2, 3, 64, None, None)

# What a worker does with a task, and how often it does so, relative to the others. `drop` has a rate of its own.
MANNERS = {
    "answer": 300.0,
    "answer soon": 40.0,
    "answer too late": 4.0,
    "answer twice": 4.0,
    "fail": 6.0,
    "fail shortly": 6.0,
    "reject": 2.0,
    "release": 6.0,
    "touch": 4.0,
    "die": 0.3,
}
DROP_RATES = (0.0, 2.0, 20.0)  # relative to the above; a worker has one of them

Socket = zmq.Socket[Any]


class Mind:
    """Decides what a worker does with its tasks, and writes down what it was given."""

    def __init__(self, queues: Sequence[str] = ()) -> None:
        """Prepare for tasks of some queues; none: of the default one."""
        self.journal = Journal()
        self._queues = ",".join(queues or ("default",))
        self._rng = randomness("mind")
        self._manners = MANNERS | {"drop": self._rng.choice(DROP_RATES)}

    def take(self, body: Sequence[bytes], attempt_id: bytes) -> tuple[str, str, float]:
        """Return the name of a task, what to do with it, and how many seconds that takes."""
        task = read_body(body)
        if task is None:
            if looks_like_ours(body):
                self.journal.write(DAMAGED, body[0].hex()[:100])
            return "", "answer", 0.0
        name, flag = task
        self.journal.write(TOOK, name, self._queues, attempt_id.hex())
        if flag == POISON:
            die()
        manner = self._rng.choices(list(self._manners), list(self._manners.values()))[0]
        span = TOO_LONG if manner in ("answer too late", "touch") else SHORT if manner == "answer soon" else (0.0, 0.0)
        return name, manner, self._rng.uniform(*span)

    def end(self, name: str, manner: str) -> None:
        """Write down that a task has been worked on; or die of it."""
        if manner == "die":
            die()
        if name:
            self.journal.write(ENDED, name)


def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # it does not die before the signal is delivered


def say(mind: Mind, results: Socket, manner: str, name: str, attempt_id: bytes, body: Sequence[bytes]) -> None:
    """Tell the broker what came of a task, with plain frames."""
    mind.end(name, manner)
    if manner == "fail":
        results.send_multipart([b"", b"fail", attempt_id, b"as it \xff happens"])
    elif manner == "fail shortly":
        results.send(attempt_id)
    elif manner == "reject":
        mind.journal.write(REJECTED, name)
        results.send_multipart([b"", b"reject", attempt_id, b"no"])
    elif manner == "release":
        mind.journal.write(RELEASED, name)
        results.send_multipart([b"", b"release", attempt_id])
    elif manner != "drop":
        for _ in range(2 if manner == "answer twice" else 1):
            results.send_multipart([attempt_id, *answer(body)])


def answer(body: Sequence[bytes]) -> list[bytes]:
    """Return the answer to a task; for what is none, anything."""
    return make_answer(body) if read_body(body) is not None else [b"?"]


def touch(results: Socket, attempt_id: bytes) -> None:
    """Ask for more time than any manner takes."""
    results.send_multipart([b"", b"touch", attempt_id, b"3"])


def connect(kind: int, address: str) -> Socket:
    """Connect a socket."""
    opened: Socket = zmq.Context.instance().socket(kind)
    opened.linger = LINGER_MS
    opened.connect(address)
    return opened


def be_req(ready: str, results_address: str, patience: str = "inf") -> None:
    """Be a plain REQ worker, which connects anew when it has got nothing for so many seconds."""
    mind, ask, results = Mind(), connect(zmq.REQ, ready), connect(zmq.PUSH, results_address)
    while True:
        ask.send(b"ready")
        if not ask.poll(milliseconds(float(patience))):
            ask.close(linger=0)
            ask = connect(zmq.REQ, ready)
            continue
        attempt_id, *body = ask.recv_multipart()
        name, manner, seconds = mind.take(body, attempt_id)
        if manner == "touch":
            touch(results, attempt_id)
        time.sleep(seconds)
        say(mind, results, manner, name, attempt_id, body)


def be_dealer(ready: str, results_address: str, patience: str = "inf") -> None:
    """Be a DEALER worker that does several tasks at a time; it connects anew as a REQ does."""
    mind, ask, results = Mind(), connect_dealer(ready), connect(zmq.PUSH, results_address)
    in_hand: list[tuple[float, bytes, str, str, list[bytes]]] = []  # a heap, by when it is done
    while True:
        if ask.poll(milliseconds(in_hand[0][0] - time.monotonic() if in_hand else float(patience))):
            _, _, attempt_id, *body = ask.recv_multipart()
            name, manner, seconds = mind.take(body, attempt_id)
            if manner == "touch":
                touch(results, attempt_id)
            heapq.heappush(in_hand, (time.monotonic() + seconds, attempt_id, manner, name, body))
        elif not in_hand:
            ask.close(linger=0)
            ask = connect_dealer(ready)
        while in_hand and in_hand[0][0] <= time.monotonic():
            _, attempt_id, manner, name, body = heapq.heappop(in_hand)
            say(mind, results, manner, name, attempt_id, body)
            ask.send_multipart([b"hop", b"", b"ready"])


def connect_dealer(ready: str) -> Socket:
    """Connect, and be ready for several tasks."""
    ask = connect(zmq.DEALER, ready)
    for _ in range(randomness("slots").randint(*SLOTS)):
        ask.send_multipart([b"hop", b"", b"ready", b"for one more"])
    return ask


def milliseconds(seconds: float) -> int | None:
    """Return for how long to poll; None: for ever."""
    return None if seconds == inf else max(0, int(seconds * 1000)) + 1


def be_announced(ready: str, number: str, patience: str = "inf") -> None:
    """Be a worker that says from which queues it asks, and does several tasks at a time, with plain frames.

    It connects anew as a REQ does.
    """
    queues = LISTS[int(number) % len(LISTS)]
    mind, ask = Mind(queues), announce(ready, queues)
    in_hand: list[tuple[float, bytes, str, str, list[bytes]]] = []  # a heap, by when it is done
    while True:
        if ask.poll(milliseconds(in_hand[0][0] - time.monotonic() if in_hand else float(patience))):
            first, attempt_id, *body = ask.recv_multipart()
            if not first:  # else the welcome, or that nobody wants a task any more
                name, manner, seconds = mind.take(body, attempt_id)
                if manner == "touch":
                    ask.send_multipart([b"", b"ZB1 touch " + attempt_id, b"3"])
                heapq.heappush(in_hand, (time.monotonic() + seconds, attempt_id, manner, name, body))
        elif not in_hand:
            ask.close(linger=0)
            ask = announce(ready, queues)
        while in_hand and in_hand[0][0] <= time.monotonic():
            _, attempt_id, manner, name, body = heapq.heappop(in_hand)
            say_word(mind, ask, manner, name, attempt_id, body)


def announce(ready: str, queues: Sequence[str]) -> Socket:
    """Connect, say from which queues one asks, and ask for several tasks."""
    ask = connect(zmq.DEALER, ready)
    ask.send_multipart([b"ZB1 " + json.dumps({"role": "worker", "protocol": 1, "queues": queues}).encode(), b""])
    ask.send_multipart([b"", b"ZB1 ready %d" % randomness("slots").randint(*SLOTS)])
    return ask


def say_word(mind: Mind, ask: Socket, manner: str, name: str, attempt_id: bytes, body: Sequence[bytes]) -> None:
    """Tell the broker what came of a task, and ask for one more, in a word."""
    mind.end(name, manner)
    if manner == "drop":
        ask.send_multipart([b"", b"ZB1 ready 1"])
    elif manner.startswith("fail"):
        ask.send_multipart([b"", b"ZB1 fail 1 " + attempt_id, b"as it \xff happens"])
    elif manner in ("reject", "release"):
        mind.journal.write(REJECTED if manner == "reject" else RELEASED, name)
        ask.send_multipart([b"", b"ZB1 %s 1 %s" % (manner.encode(), attempt_id)])
    else:
        for asks in (b"1", b"0") if manner == "answer twice" else (b"1",):
            ask.send_multipart([b"", b"ZB1 done %s %s" % (asks, attempt_id), *answer(body)])


class Handler:
    """The function of a `zmqbroker.Worker`, which cannot do all that a plain worker can."""

    def __init__(self, queues: Sequence[str] = ()) -> None:
        self._mind: Mind | None = None
        self._queues = queues

    def __call__(self, body: Any) -> list[bytes] | bytes:
        """Do a task, or something else."""
        if self._mind is None:
            self._mind = Mind(self._queues)  # in the process that does the tasks
        frames = body if isinstance(body, list) else [body]
        task = zmqbroker.current_task()
        name, manner, seconds = self._mind.take(frames, task.attempt_id)
        if manner == "touch":
            task.touch(3)
            task.progress(1, 2, name)
        time.sleep(seconds)
        if manner == "drop":  # returning nothing would be a result
            time.sleep(random.Random(name).uniform(*TOO_LONG))
        self._mind.end(name, manner)
        if manner == "reject":
            self._mind.journal.write(REJECTED, name)
            raise zmqbroker.Reject("no")
        elif manner == "fail":
            raise zmqbroker.Fail("as it happens")
        elif manner == "fail shortly":
            raise RuntimeError
        return answer(frames)


handle = Handler()  # for `zmqbroker work`


def be_library(ready: str, results: str, number: str = "") -> None:
    """Be a `zmqbroker.Worker`, until SIGTERM; with a number one that asks from some queues."""
    logging.basicConfig(level=logging.ERROR)
    queues = LISTS[int(number) % len(LISTS)] if number else ("default",)
    slots = randomness("slots").choice(LIBRARY_SLOTS)
    worker = zmqbroker.Worker(ready, Handler(queues), queues=queues, slots=slots)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


KINDS = {"req": be_req, "dealer": be_dealer, "library": be_library, "announced": be_announced}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
