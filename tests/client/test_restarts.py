"""A client meets a broker that is shut down on purpose, and the next one on the same addresses."""

import json
from collections.abc import Callable, Iterator
from time import monotonic

import pytest
import zmq
from conftest import PATIENCE_MS, Running
from helpers import PATIENCE, bound_addresses
from library_support import Gate, Proxy, echo, start_broker, working

from zmqbroker import Client
from zmqbroker.client.session import FIRST_PAUSE

Start = Callable[..., Running]
TASKS = [b"%d" % number for number in range(300)]


@pytest.mark.parametrize("drain", [0, 5])
def test_a_planned_restart_in_the_middle_of_a_map_costs_no_task(drain: int):
    broker = start_broker(drain=drain)
    requests, ready, _ = addresses = bound_addresses(broker)
    with working(ready, echo, count=2), Client(requests) as client:
        replies = client.map(TASKS, window=50, tries=0)
        found = [next(replies) for _ in range(100)]
        assert broker.end() == 0
        again = start_broker(*addresses)
        assert found + list(replies) == TASKS
        assert again.end() == 0


@pytest.fixture
def draining(start: Start) -> Iterator[tuple[Running, Client, Gate]]:
    """Yield a broker that drains while a worker is at a task, the task's client, and the worker's gate."""
    running = start(drain=PATIENCE)
    requests, ready, _ = running.addresses
    gate = Gate(b"long")
    with working(ready, gate), Client(requests) as client:
        client.submit(b"long")
        gate.wait_for(b"long")
        running.broker.stop()
        yield running, client, gate
        gate.open(b"long")


def test_a_broker_that_drains_refuses_a_task_once_and_not_in_a_loop(draining: tuple[Running, Client, Gate]):
    running, client, _ = draining
    started = monotonic()
    futures = [client.submit(body) for body in TASKS]
    running.wait_until(lambda: running.count("refused") > len(TASKS))
    assert monotonic() - started >= FIRST_PAUSE
    assert not any(future.done() for future in futures)


def test_a_task_may_be_joined_and_cancelled_while_the_broker_drains(draining: tuple[Running, Client, Gate]):
    running, client, _ = draining
    (key,) = client._link._shared.session._unanswered
    with Client(running.addresses.requests) as other:
        other._requests._next_key = iter([key]).__next__
        future = other.submit(b"long")
        running.wait_for("joined", 1)
        future.cancel()
        running.wait_for("cancelled", 1)


def test_what_is_sent_again_to_the_next_broker_has_what_is_left_of_its_delay():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as broker:
        broker.linger = 0
        broker.bind("tcp://127.0.0.1:*")
        with Proxy(broker.get_string(zmq.LAST_ENDPOINT)) as proxy, Client(proxy.address) as client:
            client.submit(b"task", delay=60)
            first = delay_of(receive(broker))
            proxy.cut()
            assert 60 >= first > delay_of(receive(broker)) > 60 - PATIENCE


def receive(broker: "zmq.Socket[bytes]") -> list[bytes]:
    assert broker.poll(PATIENCE_MS)
    return broker.recv_multipart()


def delay_of(message: list[bytes]) -> float:
    delay: float = json.loads(message[1].removeprefix(b"ZB1 "))["delay"]
    return delay
