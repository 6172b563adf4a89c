"""The peers of `soak.py`, each in a process of its own: a client, a worker, and one that comes and goes all the time.

A process ends at the end of file on its stdin. What is not as it must be ends it with a message and status 1.
"""

import os
import random
import select
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from zmqbroker import Worker

LONGEST = 60  # seconds without a reply: the task is lost
SIZE = 64  # bytes of a body
CHURN_PENDING = 100  # clients of the churning process that may wait for their reply at a time
POLL_MS = 200

Context = zmq.Context[Any]
Socket = zmq.Socket[Any]


def answer_to(body: bytes) -> bytes:
    """Return what a worker makes of a body: its first 8 bytes name it, the rest proves that it was all there."""
    return body[:8] + zlib.crc32(body).to_bytes(4, "big")


def connect(context: Context, kind: int, address: str) -> Socket:
    """Connect a socket."""
    opened: Socket = context.socket(kind)
    opened.linger = 0
    opened.sndhwm = opened.rcvhwm = 0
    opened.connect(address)
    return opened


def stdin_has_ended() -> bool:
    """Tell whether whoever started this process wants it to end."""
    return bool(select.select([0], [], [], 0)[0])


def work(ready: str, results: str, slots: str) -> None:
    """Do tasks as fast as possible, `slots` at a time."""
    context: Context = zmq.Context()
    ask, answer = connect(context, zmq.DEALER, ready), connect(context, zmq.PUSH, results)
    for _ in range(int(slots)):
        ask.send_multipart([b"", b"ready"])
    while not stdin_has_ended():
        for _ in range(1000):
            if not ask.poll(POLL_MS):
                break
            _, attempt_id, body = ask.recv_multipart()
            answer.send_multipart([attempt_id, answer_to(body)])
            ask.send_multipart([b"", b"ready"])


def serve(ready: str) -> None:
    """Do tasks as a `zmqbroker.Worker` does."""
    worker = Worker(ready, answer_to)

    def stop() -> None:
        while not select.select([0], [], [])[0]:
            pass
        worker.stop()

    threading.Thread(target=stop, daemon=True).start()
    worker.run()


def die(ready: str, results: str, seed: str) -> None:
    """Take a few tasks, and die with one in hand; every second one that dies is a `zmqbroker.Worker`."""
    if int(seed) % 2:
        left = iter(range(random.Random(seed).randrange(20)))
        Worker(ready, lambda body: answer_to(body) if next(left, None) is not None else os._exit(0)).run()
    context: Context = zmq.Context()
    ask, answer = connect(context, zmq.REQ, ready), connect(context, zmq.PUSH, results)
    for _ in range(random.Random(seed).randrange(20)):
        ask.send(b"ready")
        attempt_id, body = ask.recv_multipart()
        answer.send_multipart([attempt_id, answer_to(body)])
    ask.send(b"ready")
    ask.recv_multipart()
    os._exit(0)


def ask_for_work(requests: str, window: str, pause: str, seed: str) -> None:
    """Keep `window` tasks outstanding and check their replies; `pause` seconds before each."""
    rng = random.Random(seed)
    context: Context = zmq.Context()
    client = connect(context, zmq.DEALER, requests)
    outstanding: dict[bytes, tuple[bytes, float]] = {}  # by the first 8 bytes: the right answer, when it was sent
    number = 0
    ended = False
    while not ended or outstanding:
        ended = ended or stdin_has_ended()
        now = time.monotonic()
        while not ended and len(outstanding) < int(window):
            number += 1
            body = number.to_bytes(8, "big") + rng.randbytes(SIZE - 8)
            client.send_multipart([b"", body])
            outstanding[body[:8]] = answer_to(body), now
        for _ in range(int(window)):
            if not client.poll(POLL_MS):
                break
            take_reply(client, outstanding)
            if float(pause):
                time.sleep(float(pause))
        if outstanding and time.monotonic() - next(iter(outstanding.values()))[1] > LONGEST:
            sys.exit(f"a task got no reply within {LONGEST} s")
    print(f"client: {number} tasks, all done", file=sys.stderr)


def take_reply(client: Socket, outstanding: dict[bytes, tuple[bytes, float]]) -> None:
    """Check one reply."""
    empty, reply = client.recv_multipart()
    if empty != b"":
        sys.exit(f"a reply without the empty frame: {empty!r}")
    if not reply:
        sys.exit("a task has failed: this is not to happen, its workers die too seldom")
    right, _ = outstanding.pop(reply[:8], (None, 0.0))
    if reply != right:
        sys.exit(f"a reply that is wrong or came twice: {reply!r} instead of {right!r}")


class Churn:
    """Clients and workers that connect, do one thing, and are gone."""

    def __init__(self, addresses: tuple[str, str, str], seed: str) -> None:
        self._requests, self._ready, self._results = addresses
        self._seed = seed
        self._rng = random.Random(seed)
        self._context: Context = zmq.Context()
        self._answer = connect(self._context, zmq.PUSH, self._results)
        self._pending: deque[tuple[Socket, bytes]] = deque()  # clients, and the reply that each waits for

    def round(self, number: int) -> None:
        """Have a client and a worker come, and as many go."""
        worker = connect(self._context, self._rng.choice([zmq.REQ, zmq.DEALER]), self._ready)
        worker.send_multipart([b"ready"] if worker.type == zmq.REQ else [b"", b"ready"])
        client = connect(self._context, zmq.DEALER, self._requests)
        body = b"churning" + self._rng.randbytes(SIZE - 8)
        header = [b'ZB1 {"key": "%s-%d"}' % (self._seed.encode(), number)] if self._rng.random() < 0.3 else []
        client.send_multipart([*header, b"", body])
        self._pending.append((client, answer_to(body)))
        self._use(worker)
        worker.close()
        while len(self._pending) > CHURN_PENDING or (self._pending and self._pending[0][0].poll(0)):
            self._end_first()

    def finish(self) -> None:
        """Wait for the replies that are still to come."""
        while self._pending:
            self._end_first()

    def _use(self, worker: Socket) -> None:
        """Leave at once, or take a task and leave with it in hand, or do it first."""
        manner = self._rng.random()
        if manner < 0.2 or not worker.poll(5):
            return
        *_, attempt_id, body = worker.recv_multipart()
        if manner < 0.9:
            self._answer.send_multipart([attempt_id, answer_to(body)])

    def _end_first(self) -> None:
        client, right = self._pending.popleft()
        if self._rng.random() < 0.9:  # else it leaves without waiting for its reply
            if not client.poll(LONGEST * 1000):
                sys.exit(f"a client got no reply within {LONGEST} s")
            reply = client.recv_multipart()[-1]
            if reply != right:
                sys.exit(f"a wrong reply: {reply!r} instead of {right!r}")
        client.close()


def churn(requests: str, ready: str, results: str, seed: str, rounds: str, pause: str) -> None:
    """Have so many clients and workers come and go (0: until told to end), with a pause in seconds between them."""
    churning = Churn((requests, ready, results), seed)
    number = 0
    while (number < int(rounds) or not int(rounds)) and not stdin_has_ended():
        churning.round(number)
        number += 1
        if float(pause):
            time.sleep(float(pause))
    churning.finish()
    print(f"churn: {number} clients and {number} workers", file=sys.stderr)


ROLES: dict[str, Callable[..., None]] = {"work": work, "serve": serve, "die": die, "ask": ask_for_work, "churn": churn}

if __name__ == "__main__":
    try:
        ROLES[sys.argv[1]](*sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stderr.flush()
    os._exit(0)  # without waiting for sockets whose broker may be gone
