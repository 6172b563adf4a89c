"""A broker in a thread, and plain sockets to talk to it: every wait is bounded. And how failures are reported."""

import atexit
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import zmq
from helpers import Program

from zmqbroker import Broker
from zmqbroker.commands.web import TOKEN
from zmqbroker.transport.identity import BROKER, OWN

# Where these are ignored, as in the background and under nohup, our programs would ignore them too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Control sockets of brokers that are started by the tests are in a place of their own.
os.environ["ZMQBROKER_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="zmqbroker-test-")
atexit.register(shutil.rmtree, os.environ["ZMQBROKER_RUNTIME_DIR"], ignore_errors=True)

# Whoever runs them may have an identity, or a token, which is for other brokers.
for variable in (OWN, BROKER, TOKEN):
    os.environ.pop(variable, None)

PATIENCE_MS = 20_000  # how long a test waits for what must come, on a machine however loaded
LOOPBACK = "tcp://127.0.0.1:*"
HAS_FAILED = pytest.StashKey[bool]()


class Peers:
    """Plain sockets, closed at the end of the test."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def open(self, kind: int, address: str, **options: Any) -> zmq.Socket[bytes]:
        """Connect a socket that neither waits for ever nor keeps the process from ending."""
        opened: zmq.Socket[bytes] = self.context.socket(kind)
        self._sockets.append(opened)
        opened.linger = 0
        opened.rcvtimeo = opened.sndtimeo = PATIENCE_MS
        opened.ipv6 = "[" in address
        for name, value in options.items():
            setattr(opened, name, value)
        opened.connect(address)
        return opened

    def close(self) -> None:
        """Close all sockets; when this returns their connections are gone."""
        for opened in self._sockets:
            opened.close()
        self.context.term()

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Running(Peers):
    """A broker that runs in a thread, and its peers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        addresses = [options.pop(name, LOOPBACK) for name in ("requests", "ready", "results")]
        self.broker = Broker(*addresses, context=self.context, **options)
        self.addresses = self.broker.addresses
        self.thread = threading.Thread(target=self.broker.run, daemon=True)
        self.thread.start()

    def client(self, kind: int = zmq.REQ, **options: Any) -> zmq.Socket[bytes]:
        return self.open(kind, self.addresses.requests, **options)

    def worker(self, kind: int = zmq.REQ, **options: Any) -> "PlainWorker":
        return PlainWorker(
            self.open(kind, self.addresses.ready, **options), self.open(zmq.PUSH, self.addresses.results, linger=1000)
        )

    def elsewhere(self) -> Peers:
        """Return peers whose connections are closed, as by a crash, when the `with` block ends."""
        return Peers()

    def let_the_broker_notice(self) -> None:
        """Return when the broker has seen every connection that was closed before: two round trips later."""
        client = self.client(zmq.DEALER)
        for _ in range(2):
            client.send(b"malformed, so answered at once")
            assert client.recv_multipart() == [b"", b""]

    def count(self, name: str) -> int:
        return self.broker.counters()[name]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that no socket tells: look again every few milliseconds, for a bounded time."""
        pause = threading.Event()
        for _ in range(PATIENCE_MS // 5):
            if condition():
                return
            pause.wait(0.005)
        raise AssertionError(f"waited in vain; the counters are {self.broker.counters()}")

    def wait_for(self, name: str, number: int) -> None:
        """Wait until a counter has reached a number."""
        self.wait_until(lambda: self.count(name) >= number)

    def stop(self) -> None:
        """Stop at once, and see the thread end."""
        self.broker.stop()
        self.broker.stop()
        self.thread.join(PATIENCE_MS / 1000)
        assert not self.thread.is_alive()

    def finish(self) -> None:
        if self.thread.is_alive():
            self.stop()
        self.broker.close()
        self.close()


class PlainWorker:
    """A REQ (or DEALER) and a PUSH: all that a worker is."""

    def __init__(self, ask: zmq.Socket[bytes], answer: zmq.Socket[bytes]) -> None:
        self.ask = ask
        self.answer = answer
        self._prefix = [b""] if ask.type == zmq.DEALER else []

    def ready(self) -> None:
        self.ask.send_multipart([*self._prefix, b"ready"])

    def receive(self) -> tuple[bytes, list[bytes]]:
        """Wait for a task: its attempt id and its body."""
        message = self.ask.recv_multipart()
        attempt_id, *body = message[len(self._prefix) :]
        return attempt_id, body

    def take(self) -> tuple[bytes, list[bytes]]:
        self.ready()
        return self.receive()

    def reply(self, attempt_id: bytes, *body: bytes) -> None:
        self.answer.send_multipart([attempt_id, *body])

    def say(self, verb: bytes, attempt_id: bytes, *argument: bytes) -> None:
        self.answer.send_multipart([b"", verb, attempt_id, *argument])

    def echo(self) -> list[bytes]:
        """Do one task: its result is its body."""
        attempt_id, body = self.take()
        self.reply(attempt_id, *body)
        return body

    def has_task(self, within_ms: int = PATIENCE_MS) -> bool:
        return bool(self.ask.poll(within_ms))

    def vanish(self) -> None:
        self.ask.close()
        self.answer.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Return a function that starts a broker with the given options."""
    with ExitStack() as stack:

        def start(**options: Any) -> Running:
            running = Running(**options)
            stack.callback(running.finish)
            return running

        yield start


@pytest.fixture
def running(start: Callable[..., Running]) -> Running:
    """Return a broker with the default options."""
    return start()


@pytest.fixture
def start_program() -> Iterator[Callable[..., Program]]:
    """Return a function that starts a program of ours, which ends with the test."""
    with ExitStack() as stack:

        def start_program(script: str, *arguments: object) -> Program:
            program = Program(script, *arguments)
            stack.callback(program.clean_up)
            return program

        yield start_program


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have what a fixture finds at its end, often but a consequence, stand below what the test found first."""
    report = yield
    if report.when == "call":
        item.stash[HAS_FAILED] = report.failed
    elif report.when == "teardown" and report.failed and item.stash.get(HAS_FAILED, False):
        # Not an error of its own, which would be printed first; sections named so are printed with the failure.
        report.sections.append(("Found at teardown, after the failure", report.longreprtext))
        report.outcome, report.longrepr = "passed", None
    return report
