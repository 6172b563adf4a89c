"""A broker that says what a test tells it to."""

import json
from typing import Any

import zmq
from conftest import PATIENCE_MS, Peers

from zmqbroker import wire


class ToldBroker:
    """A ROUTER for one client at a time."""

    def __init__(self, peers: Peers) -> None:
        self._socket: zmq.Socket[bytes] = peers.context.socket(zmq.ROUTER)
        self._socket.rcvtimeo = PATIENCE_MS
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.fields: dict[str, Any] = {}  # of the last request
        self.body: list[bytes] = []  # of that
        self._client = b""

    def receive(self) -> dict[str, Any]:
        """Take one request, and return the fields of its header."""
        self._client, header, _, *self.body = self._socket.recv_multipart()
        self.fields = json.loads(header.removeprefix(wire.HEADER))
        return self.fields

    def reply(self, status: str, *body: bytes, reason: str = "", to: dict[str, Any] | None = None) -> None:
        """Reply to the last request, or (by the same connection) `to` the one with these fields."""
        fields = to or self.fields
        header = wire.reply_header(fields.get("key"), status, 1, reason, 17, fields.get("id"))
        self._socket.send_multipart([self._client, header, b"", *(body or (b"",))])

    def answer(self, status: str, *body: bytes, reason: str = "") -> dict[str, Any]:
        """Take one request, reply to it, and return its fields."""
        fields = self.receive()
        self.reply(status, *body, reason=reason)
        return fields

    def has_more(self, within_ms: int) -> bool:
        """Tell whether there is another request, or comes in time."""
        return bool(self._socket.poll(within_ms))

    def close(self) -> None:
        self._socket.close(linger=0)
