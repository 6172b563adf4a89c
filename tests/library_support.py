"""For the tests of the libraries: workers in threads, programs that use them, and a proxy that cuts connections."""

import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any

from helpers import PATIENCE, TOP, Program, wait_until

from zmqbroker import Worker
from zmqbroker.client.link import Link
from zmqbroker.transport.connection import CONNECTED

NOBODY = "tcp://127.0.0.1:1"  # nobody listens there


@contextmanager
def working(ready: str, handler: Callable[[Any], Any], count: int = 1, **options: Any) -> Iterator[list[Worker]]:
    """Run workers in threads until the `with` block ends, and see them end."""
    workers = [Worker(ready, handler, **options) for _ in range(count)]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)  # not reached when the block has failed: it found more


def run_in_threads(count: int, use: Callable[[int], None]) -> None:
    """Call `use` with a number in each of so many threads, and see them end."""
    threads = [threading.Thread(target=use, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_until_idle(used: Link) -> None:
    """Wait until the background thread has left the socket to the next call, which then sends by itself."""
    shared = used._shared
    wait_until(lambda: shared.asleep and not shared.session and shared.connection.state == CONNECTED)


def echo(body: Any) -> Any:
    return body


class Gate:
    """A handler that stops at certain tasks until the test lets it go on, and counts all it is given."""

    def __init__(self, *stops: bytes) -> None:
        self._stops = {stop: (threading.Event(), threading.Event()) for stop in stops}
        self.counts: Counter[bytes] = Counter()

    def __call__(self, body: bytes) -> bytes:
        self.counts[body] += 1
        reached, may_go_on = self._stops.get(body, (None, None))
        if reached and may_go_on:
            reached.set()
            assert may_go_on.wait(PATIENCE)
        return body.upper()

    def wait_for(self, stop: bytes) -> None:
        assert self._stops[stop][0].wait(PATIENCE)

    def open(self, stop: bytes) -> None:
        self._stops[stop][1].set()

    def shut(self, stop: bytes) -> None:
        """Stop at this task again."""
        for event in self._stops[stop]:
            event.clear()


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program given as text; one that hangs is killed and fails the test."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=TOP,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def start_broker(*addresses: str, drain: float = 0) -> Program:
    """Start `broker.py` on these addresses, or on free ones; `drain` is in seconds."""
    return Program("broker.py", "--drain", drain, *(addresses or ("tcp://127.0.0.1:*",) * 3))


class Proxy:
    """Forwards TCP connections to an address, until they are cut."""

    def __init__(self, address: str, lives: Callable[[int], float] = lambda _: inf) -> None:
        """Forward to an address; `lives` says how many bytes each connection, from 1, passes on until it is cut."""
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._to = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lives = lives
        self._ends: list[socket.socket] = []
        self._changed = threading.Condition()
        self.connections = 0  # so far
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listener)
        self.cut()

    def cut(self) -> None:
        """End all connections there are; new ones are accepted."""
        with self._changed:
            ends, self._ends = self._ends, []
        for end in ends:
            _shut(end)

    def wait_for(self, connections: int) -> None:
        """Wait until there have been so many connections."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= connections, PATIENCE)

    def _accept(self) -> None:
        with suppress(OSError), self._listener:
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                with self._changed:  # before anything is forwarded: who has got that may cut
                    self._ends += [near, far]
                    self.connections += 1
                    self._changed.notify_all()
                    left = [self._lives(self.connections)]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_forward, args=(*ends, left), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, left: list[float]) -> None:
    """Pass on bytes one way, as long as any are left for both ways together."""
    with suppress(OSError):
        while left[0] > 0 and (chunk := source.recv(int(min(65536, left[0])))):
            left[0] -= len(chunk)
            sink.sendall(chunk)
    _shut(source)
    _shut(sink)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
