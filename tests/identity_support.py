"""A socket that is secured as a broker's is, and the files that peers need for it: plain pyzmq, no broker of ours."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from conftest import LOOPBACK, PATIENCE_MS
from zmq.auth import load_certificate
from zmq.auth.base import Authenticator

from zmqbroker.transport.identity import PUBLIC, SECRET, create

DOMAIN = "test"
LOOK_MS = 50


class Files(NamedTuple):
    """The files of an identity, and its public key."""

    public: Path
    secret: Path
    key: str


def make(path: Path) -> Files:
    """Make an identity."""
    pair = create(path)
    return Files(Path(f"{path}{PUBLIC}"), Path(f"{path}{SECRET}"), pair.public.decode())


class Doorkeeper:
    """Answers the questions of libzmq's who may come in, in a thread."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.known: set[str] = set()  # public keys
        self.turned_away = 0
        self._authenticator = Authenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, self)
        self._is_over = False
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def callback(self, domain: str, key: bytes) -> bool:
        """Tell whether a key is known; pyzmq calls this."""
        is_known = domain == DOMAIN and key.decode() in self.known
        self.turned_away += not is_known
        return is_known

    def close(self) -> None:
        self._is_over = True
        self._thread.join(PATIENCE_MS / 1000)
        self._authenticator.stop()

    def _answer(self) -> None:
        zap = self._authenticator.zap_socket
        while not self._is_over:
            if zap.poll(LOOK_MS):
                with suppress(StopIteration):  # a coroutine that never waits
                    self._authenticator.handle_zap_message(zap.recv_multipart()).send(None)


class Listener(NamedTuple):
    """A ROUTER that listens."""

    address: str
    socket: zmq.Socket[bytes]
    door: Doorkeeper | None  # None: it is a plain one


@contextmanager
def listening(broker: Files | None, address: str = LOOPBACK) -> Iterator[Listener]:
    """Have a ROUTER listen that has this identity, and knows nobody yet; None: a plain one."""
    with zmq.Context() as context, ExitStack() as closing:
        door = Doorkeeper(context) if broker is not None else None
        if door is not None:
            closing.callback(door.close)
        router = closing.enter_context(context.socket(zmq.ROUTER))
        router.linger = 0
        router.rcvtimeo = PATIENCE_MS
        if broker is not None:
            _, router.curve_secretkey = load_certificate(broker.secret)
            router.curve_server, router.zap_domain = True, DOMAIN.encode()
        router.bind(address)
        yield Listener(router.get_string(zmq.LAST_ENDPOINT), router, door)


class Identities(NamedTuple):
    """Of the three that a test may need."""

    mine: Files
    broker: Files
    other: Files

    @classmethod
    def make(cls, directory: Path) -> "Identities":
        """Make them, in a directory."""
        return cls(*(make(directory / name) for name in cls._fields))
