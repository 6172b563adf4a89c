"""What a supervisor says to the broker in the place of a process."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
import zmq
from conftest import PATIENCE_MS
from helpers import PATIENCE

from zmqbroker.transport.destination import Destination
from zmqbroker.worker.last_words import say_last_words


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[Any] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.rcvtimeo = PATIENCE_MS
    yield router
    router.close()
    context.term()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_each_attempt_that_failed_is_named_with_its_reason_by_one_connection(router: zmq.Socket[bytes], host: str):
    port = router.bind_to_random_port("tcp://127.0.0.1")
    failures = [(b"one \0\xff", "killed by SIGSEGV"), (b"two", "killed after 3 s")]
    say_last_words(Destination(f"tcp://{host}:{port}"), failures, PATIENCE)
    messages = [router.recv_multipart() for _ in failures]
    assert [message[1:] for message in messages] == [
        [b"", b"ZB1 fail 0 one \0\xff", b"killed by SIGSEGV"],
        [b"", b"ZB1 fail 0 two", b"killed after 3 s"],
    ]
    assert messages[0][0] == messages[1][0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_broker_that_is_not_there_is_not_waited_for(router: zmq.Socket[bytes], host: str):
    port = router.bind_to_random_port("tcp://127.0.0.1")
    router.unbind(router.last_endpoint)
    began = monotonic()
    say_last_words(Destination(f"tcp://{host}:{port}"), [(b"one", "exit status 3")], patience=0.2)
    assert monotonic() - began < PATIENCE / 3
