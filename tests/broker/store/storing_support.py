"""A broker with a store as the loop drives it, without sockets and clocks, that may die between any two steps."""

import itertools
from collections import deque
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from simulated_store import SimulatedDisk, SimulatedStore

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.report import Report
from zmqbroker.broker.sending import Sender
from zmqbroker.broker.store.gate import Batch, Finished
from zmqbroker.broker.store.journal import Journal
from zmqbroker.broker.storing import Storing
from zmqbroker.wire import Announce, Frames, Header, Reply, parse_reply

EPOCH = 1e9  # what the wall's clock shows at the instant 0

_tokens = itertools.count(1)


def random_bytes(number: int) -> bytes:
    """Return bytes that were never returned before."""
    return b"".join(next(_tokens).to_bytes(8, "big") for _ in range(number // 8))


class Died(BaseException):
    """The broker was killed."""


class DyingStore(SimulatedStore):
    """A simulated store that takes the broker's life with it."""

    life: "Life"

    def start(self, batch: Batch) -> None:
        self.life.step()
        super().start(batch)
        if not self.life.is_late:
            while self.commit():
                pass

    def commit(self) -> bool:
        if self.started:
            self.life.step()
        return super().commit()

    def finished(self) -> list[Finished]:
        self.life.step()
        return super().finished()


class Life:
    """One life of a broker: what is said to it goes to its `dispatcher`, and what it says is here."""

    def __init__(self, disk: SimulatedDisk, now: float = 0.0, store: Any = DyingStore, **options: Any) -> None:
        """Begin with what is on the disk, or little of it if it `is_over` at once.

        Other options are the dispatcher's, and `keep`, `keep_failed` the journal's.
        """
        is_over = options.pop("is_over", False)
        keeps = {name: options.pop(name) for name in ("keep", "keep_failed") if name in options}
        self.now = now
        self.fuse: int | None = None  # steps that are left to it; None: any number
        self.is_late = False  # what is started is not committed by itself
        self.sent: list[tuple[bytes, bytes, Frames]] = []  # tasks: to whom, the attempt's id, and the body
        self.told: list[tuple[bytes, bytes, bytes]] = []  # to whom, the verb, and of what
        self.replies: deque[tuple[bytes, Reply]] = deque()
        self.plain_replies: deque[tuple[bytes, Frames]] = deque()
        self.gone: set[bytes] = set()  # connections of workers that are not there any more
        self.jump = 0.0  # seconds by which the wall's clock is off
        self.disk = disk
        self.store = store(disk)
        self.store.life = self
        self.journal = Journal(self.store.run, self.store.highest, **keeps)
        self.dispatcher = Dispatcher(random_bytes=random_bytes, journal=self.journal, **options)
        self.dispatcher.restore_queues(self.store.queues())
        sockets: Any = SimpleNamespace(requests="requests", ready="ready")
        self._sender = Sender(sockets, self.dispatcher, Report())
        self.storing = Storing(self.store, self.dispatcher, self._sender.send_stored)
        with self._patched():
            self.storing.load(now, lambda: is_over)

    def step(self) -> None:
        """Take a step, if one is left."""
        if self.fuse is not None:
            if not self.fuse:
                raise Died
            self.fuse -= 1

    def turn(self, now: float | None = None) -> None:
        """Take a turn, as the loop does."""
        self.now = self.now if now is None else now
        dispatcher, sender = self.dispatcher, self._sender
        with self._patched():
            due = dispatcher.next_due()
            if due is not None and due <= self.now:
                dispatcher.expire(self.now)
            for news in (dispatcher.moves, dispatcher.lost, dispatcher.held_back, dispatcher.unserved):
                news.clear()
            sender.hand_out(self.now)
            self.storing.turn(self.now)
            self.storing.look(self.now, is_idle=True)
            sender.send_progress()
            sender.send_replies(self.now)
            for worker_id, verb, what in dispatcher.told:
                self.told.append((bytes(worker_id), verb, bytes(what)))  # type: ignore[call-overload]
            dispatcher.told.clear()

    def end(self, reason: str = "the broker was shut down") -> None:
        """End well, as the loop does."""
        self.is_late = False
        with self._patched():
            self.dispatcher.stop_accepting(reason)
            while self.store.commit():
                pass
            self.storing.turn(self.now)
            self.dispatcher.abandon(reason, self.now)
            while self.storing.has_news:
                self.storing.turn(self.now)
            self._sender.send_replies(self.now)
        self.store.close()

    # What is said to it

    def submit(self, client: str, task: bytes = b"body", **fields: Any) -> None:
        header = Header(**fields) if fields else None
        self.dispatcher.submit([client.encode()], [task], self.now, header)

    def join(self, worker: str, asks: int, announce: Announce, *ids: bytes) -> None:
        self.dispatcher.announce(worker.encode(), announce, list(ids), self.now)
        self.dispatcher.ask(worker.encode(), asks)

    def done(self, worker: str, attempt_id: bytes, result: bytes = b"result", asks: int = 0) -> None:
        self.dispatcher.answered(worker.encode(), attempt_id, asks, self.now)
        self.dispatcher.result(attempt_id, [result], self.now)

    def failed(self, worker: str, attempt_id: bytes, asks: int = 0) -> None:
        self.dispatcher.answered(worker.encode(), attempt_id, asks, self.now)
        self.dispatcher.fail(attempt_id, "no", self.now)

    def lose(self, worker: str) -> None:
        self.gone.add(worker.encode())
        self.dispatcher.lose_worker(worker.encode(), self.now)

    # What it has said

    def given(self) -> list[tuple[str, bytes]]:
        """Take what was sent to workers: to whom, and which task."""
        sent, self.sent = self.sent, []
        return [(worker.decode(), bytes(body[0])) for worker, _, body in sent]

    def attempt_ids(self) -> list[bytes]:
        """Take what was sent to workers: the ids of the attempts."""
        sent, self.sent = self.sent, []
        return [attempt_id for _, attempt_id, _ in sent]

    def answers(self) -> list[tuple[str, str]]:
        """Take what clients were told: whom, and the status."""
        return [(client, reply.status) for client, reply in self.take_replies()]

    def take_replies(self) -> list[tuple[str, Reply]]:
        replies = [(client.decode(), reply) for client, reply in self.replies]
        self.replies.clear()
        return replies

    # How it sends

    def _patched(self) -> ExitStack:
        """Have it send to here, and see the wall's clock as it is here."""
        stack = ExitStack()
        stack.enter_context(patch("zmqbroker.broker.sending.send", self._send))
        stack.enter_context(patch("zmqbroker.broker.storing.time", lambda: EPOCH + self.now + self.jump))
        return stack

    def _send(self, socket: str, message: Frames) -> bool:
        self.step()
        peer, *frames = message
        if socket == "requests":
            if len(frames[0]):
                self.replies.append((bytes(peer), parse_reply(frames)))  # type: ignore[call-overload]
            else:
                self.plain_replies.append((bytes(peer), frames[1:]))  # type: ignore[call-overload]
            return True
        if peer in self.gone:
            return False
        empty = frames.index(b"")
        self.sent.append((bytes(peer), bytes(frames[empty + 1]), frames[empty + 2 :]))  # type: ignore[call-overload]
        return True
