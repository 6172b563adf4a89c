"""For the tests of the page and the metrics: a server in a thread, in front of brokers that run."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any, NamedTuple

import pytest
from conftest import PATIENCE_MS

from zmqbroker.transport.control import ControlSocket
from zmqbroker.transport.identity import FilePath
from zmqbroker.web.place import Place, listen
from zmqbroker.web.server import application, serve

PATIENCE = PATIENCE_MS / 1000
IMPATIENT = 0.3  # seconds, where a broker does not answer; one that does may take longer on a busy machine


Alter = Callable[[str, dict[str, Any]], dict[str, Any]]


class Got(NamedTuple):
    """An answer by HTTP."""

    status: int
    headers: dict[str, str]  # by names in small letters
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Serving:
    """A server in a thread."""

    def __init__(
        self,
        *addresses: str,
        token: str | None = None,
        checks_host: bool = True,
        patience: float = PATIENCE,
        alter: Alter = lambda what, answer: answer,
        **identity: FilePath | None,
    ) -> None:
        """Begin; `alter` makes of what a broker answers to a question what the server gets."""
        self._patience = patience
        self._alter = alter
        self._identity = identity
        self.asked: list[str] = []  # of brokers, by all connections
        self._opened = listen(Place("127.0.0.1", 0))
        self.port = self._opened.getsockname()[1]
        app = application(addresses, self._connect, token, checks_host)
        has_end = threading.Event()
        ends: list[Callable[[], None]] = []

        def ready(end: Callable[[], None]) -> None:
            ends.append(end)
            has_end.set()

        self._thread = threading.Thread(target=serve, args=(app, self._opened, ready), daemon=True)
        self._thread.start()
        assert has_end.wait(PATIENCE)
        (self._end,) = ends

    def get(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Got:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            told = {name.lower(): text for name, text in answer.getheaders()}
            return Got(answer.status, told, answer.read().decode())
        finally:
            connection.close()

    def stop(self) -> None:
        self._end()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._opened.close()

    def _connect(self, address: str) -> ControlSocket:
        return CountedSocket(self.asked, self._alter, address, self._patience, **self._identity)


class CountedSocket(ControlSocket):
    """One that takes note of what is asked."""

    def __init__(
        self, asked: list[str], alter: Alter, address: str, patience: float, **identity: FilePath | None
    ) -> None:
        super().__init__(address, patience, **identity)
        self._all_asked = asked
        self._alter = alter

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        self._all_asked.append(what)
        return self._alter(what, super().ask(what, **fields))


Serve = Callable[..., Serving]


@pytest.fixture
def serve_page() -> Iterator[Serve]:
    """Return a function that starts a server for brokers with these control addresses."""
    with ExitStack() as stack:

        def start(*addresses: str, **options: Any) -> Serving:
            serving = Serving(*addresses, **options)
            stack.callback(serving.stop)
            return serving

        yield start


def until(find: Callable[[], Any]) -> Any:
    """Return what is found when something is; look again and again, for a bounded time."""
    last, pause = monotonic() + PATIENCE, threading.Event()
    while not (found := find()):
        assert monotonic() < last, "waited in vain"
        pause.wait(0.02)
    return found
