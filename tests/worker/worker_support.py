"""The broker's side of READY in the hands of a test: what a worker that announces itself says, and is told."""

import json
from typing import Any, NamedTuple

import zmq
from conftest import LOOPBACK, PATIENCE_MS

from zmqbroker.wire.announced import Announce, parse_announce, parse_word, task_header, told_message, welcome_message


class Outcome(NamedTuple):
    """What a worker says of an attempt, or (without one) asks for."""

    verb: bytes
    attempt_id: bytes
    argument: tuple[bytes, ...] = ()
    asks: int = 0


class BareBroker:
    """The socket that workers talk to. It welcomes whoever announces itself, unless told otherwise."""

    def __init__(self, ready: str = LOOPBACK) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ready = self._context.socket(zmq.ROUTER)
        self._ready.linger, self._ready.rcvtimeo = 0, PATIENCE_MS
        self._ready.bind(ready)
        self.ready = self._ready.get_string(zmq.LAST_ENDPOINT)
        self.asked = 0  # tasks, by all workers, that were not given yet

    def announced(self, *, welcome: bool = True) -> tuple[bytes, Announce, list[bytes]]:
        """Wait for an announce: its connection, who it is, and the attempts that it is at."""
        worker, *rest = self._ready.recv_multipart()
        announce, attempt_ids = parse_announce([worker, *rest])
        if welcome:
            self.welcome(worker)
        return worker, announce, attempt_ids

    def welcome(self, worker: bytes) -> None:
        """Answer an announce."""
        self._send(welcome_message(worker, "test"))

    def said(self) -> tuple[bytes, Outcome]:
        """Wait for anything but an announce: the connection that it came by, and what it says."""
        worker, empty, frame, *argument = self._ready.recv_multipart()
        assert empty == b""
        word = parse_word(frame)
        assert word is not None, frame
        self.asked += -word.asks if word.verb == b"withdraw" else word.asks
        return worker, Outcome(word.verb, word.attempt_id, tuple(argument), word.asks)

    def met(self) -> bytes:
        """Wait for a worker that announces itself and asks for tasks: its connection."""
        worker, _, _ = self.announced()
        asking, outcome = self.said()
        assert (asking, outcome.verb) == (worker, b"ready")
        return worker

    def answer(self) -> list[bytes]:
        """Wait for what comes of an attempt: a verb, its id, and an argument."""
        _, outcome = self.said()
        return [outcome.verb, outcome.attempt_id, *outcome.argument]

    def has_message(self, most_ms: int = 0) -> bool:
        return bool(self._ready.poll(most_ms))

    def give(self, worker: bytes, attempt_id: bytes, *body: bytes, **fields: Any) -> None:
        """Hand out a task, with a header where it is to tell about itself."""
        about = {"number": 1, "key": None, "queue": "default", "attempt": 1, "tries": 3, "timeout": None} | fields
        header = [task_header(**about)] if fields else []
        self.asked -= 1
        self._send([worker, *header, b"", attempt_id, *body])

    def tell(self, worker: bytes, verb: bytes, what: bytes) -> None:
        """Say DROP, CANCEL or WITHDRAWN."""
        self._send(told_message(worker, verb, what))

    def send(self, worker: bytes, *frames: bytes) -> None:
        """Say anything."""
        self._send([worker, *frames])

    def refuse(self, worker: bytes, reason: str) -> None:
        """Answer an announce as a broker does that takes no workers there."""
        self.send(worker, b"ZB1 " + json.dumps({"status": "invalid", "reason": reason}).encode(), b"", b"")

    def _send(self, frames: list[Any]) -> None:
        self._ready.send_multipart(frames)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> "BareBroker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
