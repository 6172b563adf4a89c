"""The vandal of `chaos.py`: sends what no peer would send to all three sockets of a broker, until it is killed.

Some of it is proper by chance: a ready message whose worker never answers, a task that means nothing, a cancel for
nobody's task. It never guesses an attempt id or a key that is in use; that would not be an accident.
"""

import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import zmq
from chaos_tasks import randomness

LONGEST_PAUSE = 0.2  # seconds
MOST_FRAMES = 6
LARGE = 300_000  # bytes
READY_SHARE = 0.1  # of the garbage for the ready socket that may be a proper ready message: each costs somebody's task

GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48)  # of ZMTP 3.0, see RFC 23 of the ZeroMQ project


class Vandal:
    """Connections to the three sockets, and ideas what to send."""

    def __init__(self, requests: str, ready: str, results: str) -> None:
        self._addresses = [requests, ready, results]
        self._rng = randomness("garbage")
        self._context: zmq.Context[Any] = zmq.Context()

    def rage(self) -> None:
        """Do one thing after the other."""
        ideas: list[Callable[[], None]] = [
            self._requests,
            self._ready,
            self._words,
            self._results,
            self._bytes,
            self._kinds,
        ]
        while True:
            self._rng.choice(ideas)()
            time.sleep(self._rng.uniform(0, LONGEST_PAUSE))

    def _requests(self) -> None:
        headers = [
            b"ZB1 " + self._noise(),
            b"ZB1 " + json.dumps({"key": "nobody's", "cancel": True}).encode(),
            b"ZB1 " + json.dumps({"tries": -1}).encode(),
            b"ZB1 " + json.dumps({"timeout": 1e300, "key": "x" * 300}).encode(),
            b"ZB1 " + b"[" * 3000,
            b"ZB1 " + b'{"priority": 1' + b"0" * 5000 + b"}",
            b'ZB1 {"delay": NaN}',
            b'ZB1 {"key": "\xff"}',
            b'ZB1 {"key": "\\ud800"}',
            b'ZB1 {"key": "a task of the vandal", "delay": 0.1}',
        ]
        messages = [
            self._frames(),
            [b""],
            [b"", b""],
            [b"no empty frame"],
            [self._rng.choice(headers), b"", b"body"],
            [self._rng.choice(headers), b""],
            [b"", self._noise()],
        ]
        self._send(zmq.DEALER, 0, self._rng.choice(messages))

    def _ready(self) -> None:
        proper = self._rng.random() < READY_SHARE
        frames = [b"", *self._frames()] if proper else [frame or b"x" for frame in self._frames()]
        self._send(zmq.DEALER, 1, frames)

    def _words(self) -> None:
        """Say what workers say that have announced themselves, by a connection that has, or has not."""
        announces = [
            {"role": "worker", "protocol": 1, "serial": True, "headers": True},
            {"role": "worker", "protocol": 1},
            {"role": "worker", "protocol": 2},
            {"role": "worker", "protocol": 1, "queues": []},
            {"role": "client"},
            {"key": "a request"},
        ]
        verbs = [b"ready", b"withdraw", b"done", b"fail", b"reject", b"release", b"touch", b"progress", b"drop", b"?"]
        numbers = [b"0", b"0", b"64", b"65", b"-1", b"x", b""]
        ids = [b"", b"x", self._rng.randbytes(32), self._rng.randbytes(LARGE)]
        opened: zmq.Socket[Any] = self._context.socket(zmq.DEALER)
        opened.linger = 1000
        opened.connect(self._addresses[1])
        if self._rng.random() < 0.7:
            announce = b"ZB1 " + json.dumps(self._rng.choice(announces)).encode()
            opened.send_multipart([announce, b"", *self._rng.choices(ids, k=self._rng.randrange(3))])
        for _ in range(self._rng.randint(1, 9)):
            verb = self._rng.choice(verbs)
            asks = self._rng.choice(numbers)
            if verb == b"ready" and asks == b"64" and self._rng.random() > READY_SHARE:
                asks = b"0"
            word = b"ZB1 " + b" ".join([verb, asks, self._rng.choice(ids)][: self._rng.randint(1, 3)])
            opened.send_multipart([b"", word, *self._frames()])
        opened.poll(self._rng.randrange(50))
        opened.close()

    def _results(self) -> None:
        verb = self._rng.choice([b"fail", b"reject", b"release", b"touch", b"destroy", b""])
        attempt_id = self._rng.choice([b"", b"x", self._rng.randbytes(24), self._noise()])
        argument = self._rng.choice([b"", b"-1", b"nan", b"1e400", b"\xff\xfe", self._noise()])
        messages = [
            self._frames(),
            [b""],
            [b"", verb],
            [b"", verb, attempt_id],
            [b"", verb, attempt_id, argument],
            [attempt_id, argument],
        ]
        self._send(zmq.PUSH, 2, self._rng.choice(messages))

    def _bytes(self) -> None:
        """Speak something else than ZMTP, or begin to, and hang up."""
        address = self._rng.choice(self._addresses)
        noise = self._rng.choice([b"GET / HTTP/1.0\r\n\r\n", GREETING[:10], GREETING, GREETING + self._noise(), b""])
        transport, _, place = address.partition("://")
        family = socket.AF_UNIX if transport == "ipc" else socket.AF_INET
        host, _, port = place.rpartition(":")
        with socket.socket(family, socket.SOCK_STREAM) as raw:
            raw.settimeout(5)
            try:
                raw.connect(place if transport == "ipc" else (host, int(port)))
                raw.sendall(noise)
            except OSError:
                return  # hung up on, and rightly so

    def _kinds(self) -> None:
        """Connect a kind of socket that does not belong there."""
        kind = self._rng.choice([zmq.PUB, zmq.SUB, zmq.PAIR, zmq.PULL, zmq.REP, zmq.REQ])
        opened: zmq.Socket[Any] = self._context.socket(kind)
        opened.linger = 0
        opened.connect(self._rng.choice(self._addresses))
        if kind in (zmq.PUB, zmq.PAIR, zmq.REQ) and opened.poll(20, zmq.POLLOUT):
            opened.send(self._noise())
        opened.close()

    def _send(self, kind: int, place: int, frames: list[bytes]) -> None:
        opened: zmq.Socket[Any] = self._context.socket(kind)
        opened.linger = 1000
        opened.connect(self._addresses[place])
        for _ in range(self._rng.randint(1, 5)):
            opened.send_multipart(frames)
        if kind == zmq.DEALER and self._rng.random() < 0.5:
            opened.poll(self._rng.randrange(50))
        opened.close()

    def _frames(self) -> list[bytes]:
        return [self._noise() for _ in range(self._rng.randint(1, MOST_FRAMES))]

    def _noise(self) -> bytes:
        return self._rng.randbytes(self._rng.choice([0, 1, 8, 24, 1000, LARGE]))


if __name__ == "__main__":
    Vandal(*sys.argv[1:]).rage()
