"""Asks a broker about stored tasks, one question after the other; and a broker in a thread that may end by itself."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from conftest import LOOPBACK, PATIENCE_MS, Peers, PlainWorker

from zmqbroker import Broker
from zmqbroker.broker.store.gate import StoreError

NO_FRAME = [b""]


class Asking:
    """A client of a broker with a store."""

    def __init__(self, client: "zmq.Socket[bytes]") -> None:
        self.client = client

    def send(self, key: str, body: bytes = b"", **fields: Any) -> None:
        """Send a request with this key."""
        self.client.send_multipart([b"ZB1 " + json.dumps({"key": key, **fields}).encode(), b"", body])

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the header and the body of the next answer."""
        header, _, *body = self.client.recv_multipart()
        return json.loads(header.removeprefix(b"ZB1 ")), body

    def ask(self, key: str, body: bytes = b"", **fields: Any) -> tuple[str, str, list[bytes]]:
        """Send a request, and return the status, the reason and the body of the answer."""
        self.send(key, body, **fields)
        header, result = self.receive()
        assert header["key"] == key
        return header["status"], header.get("reason", ""), result

    def leave(self, key: str, body: bytes, **fields: Any) -> None:
        """Leave a task with the broker."""
        assert self.ask(key, body, detach=True, **fields) == ("accepted", "", NO_FRAME)

    def fetch(self, key: str, wait: float = 0.0) -> tuple[str, str, list[bytes]]:
        """Ask for an outcome."""
        return self.ask(key, fetch=wait)


class Serving(Asking):
    """A broker with a store, and its client."""

    def __init__(self, broker: Broker, peers: Peers) -> None:
        super().__init__(peers.open(zmq.DEALER, broker.addresses.requests))
        self._broker = broker
        self._peers = peers
        self.failure: StoreError | None = None  # with which it has ended; None: it has not

    def worker(self) -> PlainWorker:
        """Return a worker of it."""
        addresses = self._broker.addresses
        return PlainWorker(self._peers.open(zmq.REQ, addresses.ready), self._peers.open(zmq.PUSH, addresses.results))

    def run(self) -> None:
        """Serve, and note how that ends."""
        try:
            self._broker.run()
        except StoreError as error:
            self.failure = error


@contextmanager
def serving(path: Path) -> Iterator[Serving]:
    """Have a broker serve with the store in a file, until the `with` block ends; raises StoreError."""
    with Peers() as peers, Broker(*[LOOPBACK] * 3, context=peers.context, store=path, store_floor=0) as broker:
        broker.load()
        served = Serving(broker, peers)
        thread = threading.Thread(target=served.run, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            for _ in range(2):
                broker.stop()
            thread.join(PATIENCE_MS / 1000)
            assert not thread.is_alive()
