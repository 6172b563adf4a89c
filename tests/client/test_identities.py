"""Clients and workers that have an identity: who lets them in, and what they are told by who does not."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from helpers import PATIENCE, wait_until
from identity_support import Identities, listening
from library_support import echo, working

from zmqbroker import Client, Worker
from zmqbroker.transport.destination import destination
from zmqbroker.transport.identity import BROKER, OWN
from zmqbroker.worker.last_words import say_last_words

SHORT = 2.0  # seconds of connect_timeout


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities.make(tmp_path_factory.mktemp("identities"))


def files(identities: Identities, broker: str = "broker") -> dict[str, Path]:
    return {"identity": identities.mine.secret, "broker_identity": getattr(identities, broker).public}


def test_a_client_waits_until_it_is_known_and_then_its_tasks_are_there(identities: Identities):
    with listening(identities.broker) as (address, router, door), Client(address, **files(identities)) as client:
        assert door is not None
        future = client.submit(b"task")
        wait_until(lambda: door.turned_away >= 2)
        assert not future.done()
        door.known.add(identities.mine.key)
        assert router.recv_multipart()[-1] == b"task"


def test_a_worker_waits_until_it_is_known_and_then_announces_itself(identities: Identities):
    with listening(identities.broker) as (address, router, door), working(address, echo, **files(identities)):
        assert door is not None
        wait_until(lambda: door.turned_away >= 2)
        door.known.add(identities.mine.key)
        assert b'"role"' in router.recv_multipart()[1]


def test_the_environment_says_who_one_is(identities: Identities, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(OWN, str(identities.mine.secret))
    monkeypatch.setenv(BROKER, str(identities.broker.public))
    with listening(identities.broker) as (address, router, door), Client(address) as client:
        assert door is not None
        door.known.add(identities.mine.key)
        client.submit(b"task")
        assert router.recv_multipart()[-1] == b"task"


def test_the_environment_is_ignored_within_a_process(identities: Identities, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(OWN, str(identities.mine.secret))
    monkeypatch.setenv(BROKER, str(identities.broker.public))
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind("inproc://tasks")
        with Client("inproc://tasks", context) as client:
            client.submit(b"task")
            assert router.poll(1000 * PATIENCE)


@pytest.mark.parametrize("make", [Client, lambda address, **options: Worker(address, echo, **options)])
def test_an_identity_within_a_process_is_refused_and_so_is_half_of_one_or_none(
    identities: Identities, make: Callable[..., Any]
):
    with zmq.Context() as context, pytest.raises(ValueError, match="takes no identity"):
        make("inproc://tasks", context=context, **files(identities))
    with pytest.raises(ValueError, match="only one of two identities is given"):
        make("tcp://127.0.0.1:1", identity=identities.mine.secret)
    with pytest.raises(ValueError, match="no such file"):
        make("tcp://127.0.0.1:1", identity="/none", broker_identity="/none")


@pytest.mark.parametrize(
    ("broker", "is_secured", "told"),
    [
        ("broker", True, "does not know this identity"),
        ("", True, "wants identities"),
        ("broker", False, "has no identity"),
        ("other", True, "is not the one of --broker-identity"),
    ],
)
def test_in_the_end_the_reason_is_the_error(identities: Identities, broker: str, is_secured: bool, told: str):
    options: dict[str, Any] = files(identities, broker) if broker else {}
    with listening(identities.broker if is_secured else None) as (address, _, _):
        expected = f"^the broker at {address} {told}"
        with Client(address, connect_timeout=SHORT, **options) as client:
            with pytest.raises(ConnectionError, match=expected):
                client.call(b"task", PATIENCE)
            assert client.submit(b"another").exception(PATIENCE)
        with pytest.raises(ConnectionError, match=expected):
            Worker(address, echo, connect_timeout=SHORT, **options).run()


def test_who_was_known_and_is_not_after_a_restart_is_told(identities: Identities, caplog: pytest.LogCaptureFixture):
    with listening(identities.broker) as (address, router, door):
        assert door is not None
        door.known.add(identities.mine.key)
        client = Client(address, **files(identities))
        client.submit(b"task")
        assert router.recv_multipart()[-1] == b"task"
    with client, listening(identities.broker, address) as (_, router, door):
        assert door is not None
        wait_until(lambda: any("does not know this identity" in record.getMessage() for record in caplog.records))
        door.known.add(identities.mine.key)
        assert router.recv_multipart()[-1] == b"task"


def test_last_words_are_said_as_who_the_supervisor_is(identities: Identities):
    with listening(identities.broker) as (address, router, door):
        assert door is not None
        broker = destination(address, **files(identities))
        refused = threading.Thread(target=say_last_words, args=(broker, [(b"one", "killed")], 0.2))
        refused.start()
        refused.join(PATIENCE)
        assert not refused.is_alive()
        door.known.add(identities.mine.key)
        say_last_words(broker, [(b"one", "killed by SIGSEGV")], PATIENCE)
        assert router.recv_multipart()[1:] == [b"", b"ZB1 fail 0 one", b"killed by SIGSEGV"]
