"""Clients and workers at an address that is not theirs: each says which one belongs there, and nobody is harmed."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq
from conftest import Running
from helpers import PATIENCE, wait_until
from library_support import NOBODY, Proxy, echo, working

from zmqbroker import Client, TaskFailed, Worker
from zmqbroker.transport.connection import CONNECTED
from zmqbroker.transport.patience import Patience

CLIENTS = "a client belongs to the one for clients (REQUESTS)"
FOR_CLIENTS = r"a client belongs to the one for clients \(REQUESTS\)"
FOR_WORKERS = r"a worker belongs to the one for workers \(READY\)"


def harms_nobody(running: Running, counted: int) -> None:
    """See that a task is done, the only one, and that at least so many messages, or none, were counted as malformed."""
    with working(running.addresses.ready, bytes.upper), Client(running.addresses.requests) as client:
        assert client.call(b"task", wait=PATIENCE) == b"TASK"
    assert (running.count("accepted"), running.count("attempts")) == (1, 1)
    malformed = running.count("malformed")
    assert malformed >= counted > 0 or malformed == counted == 0


def test_a_worker_at_requests_is_told_where_it_belongs(running: Running):
    address = running.addresses.requests
    with pytest.raises(
        ConnectionError, match=rf"{address} takes no workers: .* for clients \(REQUESTS\): {FOR_WORKERS}"
    ):
        Worker(address, echo).run()
    harms_nobody(running, 1)


def test_a_worker_at_results_is_told_where_it_belongs(running: Running):
    address = running.addresses.results
    with pytest.raises(ConnectionError, match=rf"{address} is the wrong address: .*\(RESULTS\); {FOR_WORKERS}"):
        Worker(address, echo).run()
    harms_nobody(running, 0)


def test_the_tasks_of_a_client_at_ready_fail_and_it_is_told_where_it_belongs(
    running: Running, caplog: pytest.LogCaptureFixture
):
    address = running.addresses.ready
    with Client(address) as client:
        with pytest.raises(
            ConnectionError, match=rf"{address} is the wrong address: .*\(READY\): {FOR_CLIENTS}"
        ) as told:
            client.call(b"task", wait=PATIENCE)
        assert isinstance(told.value, TaskFailed)
        with pytest.raises(ConnectionError):
            list(client.map([b"a", b"b"]))
        future = client.submit(b"c")
        assert isinstance(future.exception(PATIENCE), ConnectionError)
    harms_nobody(running, running.count("malformed"))  # 3 or more: the second of the `map` may not have been sent
    said = {record.getMessage().partition(" (")[0] for record in caplog.records if record.name == "zmqbroker"}
    assert said == {"ignored what is no message of the protocol: this is the address for workers"}


def test_the_tasks_of_a_client_at_results_fail_and_it_is_told_where_it_belongs(running: Running):
    address = running.addresses.results
    with Client(address) as client:
        for _ in range(2):
            with pytest.raises(ConnectionError, match=rf"{address} is the wrong address: .*\(RESULTS\); {FOR_CLIENTS}"):
                client.call(b"task", wait=PATIENCE)
        assert isinstance(client.submit(b"c").exception(PATIENCE), ConnectionError)
    harms_nobody(running, 0)


def test_a_client_by_a_name_is_told_too(running: Running):
    port = running.addresses.results.rpartition(":")[2]
    with Client(f"tcp://localhost:{port}") as client, pytest.raises(ConnectionError, match="is the wrong address"):
        client.call(b"task", wait=PATIENCE)


def test_a_socket_of_another_system_is_named(running: Running):
    publisher = running.context.socket(zmq.PUB)
    try:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(ConnectionError, match=f"a PUB socket, no broker, is there; {FOR_WORKERS}"):
            Worker(f"tcp://127.0.0.1:{port}", echo).run()
    finally:
        publisher.close(linger=0)


def test_a_request_with_a_header_at_ready_is_refused_by_its_name_whatever_its_envelope(running: Running):
    client = running.open(zmq.DEALER, running.addresses.ready)
    client.send_multipart([b"mine", b'ZB1 {"key": "k", "id": "i"}', b"", b"body"])
    envelope, header, *rest = client.recv_multipart()
    fields = json.loads(header[4:])
    reason = fields.pop("reason")
    assert (envelope, rest) == (b"mine", [b"", b""])
    assert fields == {"status": "invalid", "attempts": 0, "key": "k", "id": "i", "at": "READY"}
    assert CLIENTS in reason


@pytest.mark.parametrize("queues", [["default"], ["a queue with a long name" + "x" * 100] * 50])
def test_an_announce_at_requests_is_refused_however_large(running: Running, queues: list[str]):
    worker = running.open(zmq.DEALER, running.addresses.requests)
    fields = {"role": "worker", "protocol": 1, "queues": queues}
    worker.send_multipart([b"ZB1 " + json.dumps(fields).encode(), b""])
    header, *rest = worker.recv_multipart()
    said: dict[str, Any] = json.loads(header[4:])
    assert said["status"] == "invalid"
    assert "a worker belongs to the one for workers (READY)" in said["reason"]
    assert rest == [b"", b""]


@contextmanager
def hanging_up() -> Iterator[tuple[str, Callable[[], int]]]:
    """Take every connection and end it at once, as a proxy without a broker behind it does."""
    count = 0

    def hang_up(listener: socket.socket) -> None:
        nonlocal count
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            count += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", lambda: count
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


def test_who_hangs_up_without_saying_what_it_is_is_no_wrong_address(running: Running):
    with hanging_up() as (address, count), Client(address) as client:
        future = client.submit(b"task")
        wait_until(lambda: count() >= 6)  # three tries, and three looks who that is
        assert not future.done()


def test_a_client_that_had_a_broker_waits_though_something_else_is_there_now(running: Running):
    with Proxy(running.addresses.requests) as proxy, Client(proxy.address) as client:
        wait_until(lambda: client._link._shared.connection.state == CONNECTED)
        right = proxy._to
        proxy._to = ("127.0.0.1", int(running.addresses.results.rpartition(":")[2]))
        proxy.cut()
        future = client.submit(b"task")
        proxy.wait_for(7)  # the first, and three tries with a look each
        assert not future.done()
        proxy._to = right
        with working(running.addresses.ready, bytes.upper):
            assert future.result(PATIENCE) == b"TASK"


def test_two_looks_that_find_the_same_wrong_socket_are_the_end():
    patience = Patience(NOBODY, None, 0.0, "it belongs elsewhere")
    patience.found("PULL", "", now=0.0)
    patience.found("", "", now=0.0)
    patience.found("PULL", "", now=0.0)
    assert patience.verdict(1.0, "") is None
    patience.found("PULL", "", now=0.0)
    text = f"{NOBODY} is the wrong address: it is one for results (RESULTS); it belongs elsewhere"
    assert patience.verdict(1.0, "") == patience.complaint(5.0, "") == text
    patience.answered()
    assert patience.verdict(1.0, "") is None


def test_what_goes_with_a_client_is_no_wrong_socket():
    patience = Patience(NOBODY, None, 0.0)
    for _ in range(3):
        patience.found("ROUTER", "", now=0.0)
    assert patience.verdict(1.0, "") is None


def test_who_hangs_up_is_called_again_at_growing_intervals_but_in_time_for_the_timeout():
    patience = Patience(NOBODY, 55.0, 0.0)
    assert [round(patience.next_try(50.0) - 50.0, 1) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]
    patience.answered()
    assert patience.next_try(50.0) == 50.2
