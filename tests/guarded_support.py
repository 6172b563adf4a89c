"""For the tests of identities: a broker that has one, a file of the authorized, and sockets with keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from conftest import PATIENCE_MS, Peers, PlainWorker, Running
from zmq.auth import create_certificates

from zmqbroker.broker import loop
from zmqbroker.transport.identity import Identity
from zmqbroker.transport.monitor import next_event, open_monitor

ANY_PORT = "tcp://127.0.0.1:*"
SUCCEEDED, REFUSED, FAILED = (
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED),
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH),
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL),
)


class Gate:
    """The keys of a broker, and who is authorized there."""

    def __init__(self, directory: Path) -> None:
        _, secret = create_certificates(directory, "broker")
        self.identity = Path(secret)
        self.identity.chmod(0o600)
        self.authorized = directory / "authorized"
        self.lines: dict[Identity, str] = {}
        self.public = zmq.auth.load_certificate(secret)[0]
        self.write()

    def let_in(self, name: str, roles: str) -> Identity:
        """Authorize somebody new."""
        new = Identity(*zmq.curve_keypair())
        self.lines[new] = f"{roles} {new.public.decode()} {name}\n"
        self.write()
        return new

    def take_out(self, identity: Identity) -> None:
        del self.lines[identity]
        self.write()

    def write(self, more: str = "") -> None:
        """Replace the file in one step: it is looked at so often here that it would be seen half written."""
        new = self.authorized.with_name("new")
        new.write_text("# who may come in\n\n" + "".join(self.lines.values()) + more)
        new.replace(self.authorized)

    def keys(self, own: Identity) -> dict[str, Any]:
        """Return what a socket needs to come in."""
        return {"curve_publickey": own.public, "curve_secretkey": own.secret, "curve_serverkey": self.public}


class Guarded:
    """A broker with an identity that runs, and peers of it."""

    def __init__(self, running: Running, gate: Gate) -> None:
        self.running = running
        self.gate = gate
        self.broker = running.broker
        assert self.broker.control_address is not None
        self.addresses = running.addresses._asdict() | {"control": self.broker.control_address}

    def open(self, where: str, kind: int, own: Identity, **options: Any) -> zmq.Socket[bytes]:
        return self.running.open(kind, self.addresses[where], **self.gate.keys(own), **options)

    def client(self, own: Identity, kind: int = zmq.REQ, **options: Any) -> zmq.Socket[bytes]:
        return self.open("requests", kind, own, **options)

    def worker(self, own: Identity, **options: Any) -> PlainWorker:
        return PlainWorker(
            self.open("ready", zmq.REQ, own, **options), self.open("results", zmq.PUSH, own, linger=1000)
        )

    def handshake(self, where: str, kind: int, **options: Any) -> int:
        """Return how the first handshake of a new socket ends, as its monitor has it."""
        return handshake(self.running, self.addresses[where], kind, **options)

    def status(self, observer: Identity) -> dict[str, Any]:
        return self.ask(observer, ask="status")

    def ask(self, own: Identity, **fields: Any) -> dict[str, Any]:
        """Return all of an answer, which may say that it is refused."""
        from json import dumps, loads

        asker = self.open("control", zmq.DEALER, own)
        asker.send_multipart([b"", dumps({"zmqbroker": 1, **fields}).encode()])
        answer: dict[str, Any] = loads(asker.recv_multipart()[-1])
        asker.close()
        return answer


def handshake(peers: Peers, address: str, kind: int, **options: Any) -> int:
    """Return how the first handshake of a new socket ends, as its monitor has it."""
    with watched(peers, address, kind, **options) as (_, monitor):
        return next_one(monitor)


def next_one(monitor: zmq.Socket[bytes]) -> int:
    """Wait for the end of a handshake."""
    assert monitor.poll(PATIENCE_MS)
    event = next_event(monitor)
    assert event is not None
    return event.number


@contextmanager
def watched(
    peers: Peers, address: str, kind: int, **options: Any
) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Connect a new socket, and give it and the monitor that tells of its handshakes."""
    opened: zmq.Socket[bytes] = peers.context.socket(kind)
    monitor = open_monitor(peers.context, opened, SUCCEEDED | REFUSED | FAILED)
    try:
        opened.linger = 0
        for name, value in options.items():
            setattr(opened, name, value)
        opened.connect(address)
        yield opened, monitor
    finally:
        opened.disable_monitor()
        monitor.close(linger=0)
        opened.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def guard(start: Callable[..., Running], gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Guarded]:
    """Return a function that starts a broker with an identity, which looks at its file all the time."""
    monkeypatch.setattr(loop, "LOOK_INTERVAL", 0.05)

    def guard(**options: Any) -> Guarded:
        return Guarded(start(identity=gate.identity, authorized=gate.authorized, control=ANY_PORT, **options), gate)

    return guard
