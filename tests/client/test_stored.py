"""Tasks that are left with a broker that stores them, and what becomes of them when it, or a connection, ends."""

from collections.abc import Callable, Iterator
from concurrent.futures import InvalidStateError
from functools import partial
from pathlib import Path

import pytest
from conftest import Running
from helpers import PATIENCE
from library_support import Gate, Proxy, echo, wait_until_idle, working

from zmqbroker import Client, TaskFailed

Start = Callable[..., Running]


@pytest.fixture
def begin(start: Start, tmp_path: Path) -> Start:
    """Return a function that starts a broker with the same store each time."""
    return lambda **options: start(store=tmp_path / "tasks", **options)


@pytest.fixture
def storing(begin: Start) -> Running:
    """Return a broker with a store."""
    return begin()


@pytest.fixture
def client(storing: Running) -> Iterator[Client]:
    with Client(storing.addresses.requests) as client:
        yield client


def failure(call: Callable[[], object]) -> TaskFailed:
    with pytest.raises(TaskFailed) as caught:
        call()
    return caught.value


def test_a_task_that_was_left_is_done_and_fetched_when_its_client_and_its_broker_are_gone(begin: Start):
    first = begin()
    with Client(first.addresses.requests) as client:
        key = client.send([b"two", b"frames"])
        assert client.submit(b"one", key="mine", detach=True).result(PATIENCE) == "mine"
    first.finish()
    second = begin()
    with working(second.addresses.ready, echo), Client(second.addresses.requests) as client:
        assert client.fetch(key, PATIENCE) == [b"two", b"frames"]
        assert client.fetch("mine", PATIENCE) == b"one"
    second.finish()
    with Client(begin().addresses.requests) as client:
        assert client.fetch("mine") == b"one"
        assert client.outcome(key).result(PATIENCE) == [b"two", b"frames"]


def test_a_task_is_fetched_when_it_is_done_and_not_before(storing: Running, client: Client):
    client.send(b"task", key="mine")
    with pytest.raises(TimeoutError, match="waiting"):
        client.fetch("mine")
    gate = Gate(b"task")
    with working(storing.addresses.ready, gate):
        gate.wait_for(b"task")
        with pytest.raises(TimeoutError, match="running"):
            client.fetch("mine", 0.01)
        outcome = client.outcome("mine", PATIENCE)
        gate.open(b"task")
        assert outcome.result(PATIENCE) == b"TASK"
        assert client.fetch("mine") == b"TASK"


def test_a_key_is_one_task_until_it_is_forgotten(storing: Running, client: Client):
    gate = Gate()
    with working(storing.addresses.ready, gate):
        for body in (b"one", b"another"):
            assert client.send(body, key="mine") == "mine"
            assert client.fetch("mine", PATIENCE) == b"ONE"
        assert client.call(b"another", PATIENCE, key="mine") == b"ONE"
        assert client.call(b"another", PATIENCE, key="mine", durable=True) == b"ONE"
        assert gate.counts.total() == 1
        client.forget("mine", "never known")
        with pytest.raises(KeyError, match="mine"):
            client.fetch("mine")
        assert client.call(b"another", PATIENCE, key="mine") == b"ANOTHER"


def test_what_is_left_is_cancelled_by_its_key(client: Client):
    client.send(b"task", key="mine")
    with pytest.raises(InvalidStateError, match="mine is waiting"):
        client.forget("mine")
    client.cancel("mine")
    assert failure(lambda: client.fetch("mine")).status == "cancelled"
    for key in ("mine", "never known"):
        with pytest.raises(KeyError, match=key):
            client.cancel(key)
    client.forget("mine")
    with pytest.raises(KeyError, match="mine"):
        client.fetch("mine")


def test_one_client_waits_for_a_task_and_asks_for_its_outcome(storing: Running, client: Client):
    futures = [client.submit(b"task", key="mine"), client.submit(b"task", key="mine"), client.outcome("mine", None)]
    with working(storing.addresses.ready, echo):
        assert [future.result(PATIENCE) for future in futures] == [b"task"] * 3
    wait_until_idle(client._link)


@pytest.mark.parametrize("by_key", [True, False])
def test_one_client_waits_for_a_task_and_cancels_it(storing: Running, client: Client, by_key: bool):
    futures = [client.submit(b"task", key="mine"), client.outcome("mine", None)]
    storing.wait_for("joined", 1)
    if by_key:
        client.cancel("mine")
    else:
        futures[0].withdraw()
    assert [failure(partial(future.result, PATIENCE)).status for future in futures] == ["cancelled"] * 2
    wait_until_idle(client._link)


def test_what_has_failed_is_fetched_with_the_reason(storing: Running, client: Client):
    def handle(body: bytes) -> bytes:
        raise ValueError("bad input")

    key = client.send(b"task", tries=2)
    with working(storing.addresses.ready, handle):
        error = failure(lambda: client.fetch(key, PATIENCE))
    assert (error.status, error.attempts, error.reason, error.key) == ("failed", 2, "ValueError: bad input", key)
    assert (error.number, client.outcome(key).exception(PATIENCE).args) == (1, error.args)


def test_without_a_store_nothing_is_left_and_what_is_done_is_had_for_a_minute(running: Running):
    with Client(running.addresses.requests) as client:
        for leave in (lambda: client.send(b"task"), lambda: client.call(b"task", PATIENCE, durable=True)):
            error = failure(leave)
            assert error.status == "invalid"
            assert "--store" in error.reason
        with working(running.addresses.ready, echo):
            assert client.call(b"task", PATIENCE, key="mine") == b"task"
        assert client.fetch("mine") == b"task"
        client.forget("mine")
        with pytest.raises(KeyError, match="mine"):
            client.fetch("mine")


def test_tasks_that_are_left_over_a_connection_that_is_cut_again_and_again_are_each_left_once(storing: Running):
    numbers = [b"%d" % number for number in range(300)]
    with Proxy(storing.addresses.requests, lives=lambda number: 2000 * number) as proxy:
        with Client(proxy.address) as client:
            futures = [client.submit(number, detach=True) for number in numbers]
            keys = [future.result(PATIENCE) for future in futures]
            with working(storing.addresses.ready, echo):
                outcomes = [client.outcome(key, None) for key in keys]
                assert [outcome.result(PATIENCE) for outcome in outcomes] == numbers
            client.forget(*keys)
        assert proxy.connections > 3
    assert storing.count("accepted") == len(numbers)


def test_durable_tasks_that_are_waited_for_are_not_done_again_when_the_broker_was_restarted(begin: Start):
    first = begin()
    addresses = first.addresses
    gate = Gate(b"second")
    with Client(addresses.requests) as client, working(addresses.ready, gate):
        results = client.map([b"first", b"second"], durable=True)
        assert next(results) == b"FIRST"
        gate.wait_for(b"second")
        first.finish()
        begin(requests=addresses.requests, ready=addresses.ready, results=addresses.results)
        gate.open(b"second")
        assert list(results) == [b"SECOND"]
    assert gate.counts == {b"first": 1, b"second": 1}
