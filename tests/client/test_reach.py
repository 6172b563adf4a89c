"""Brokers, clients and workers that cannot reach each other, or have no descriptors: each says so, and none hangs."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LOOPBACK, Running
from helpers import PATIENCE, wait_until
from library_support import NOBODY, Gate, echo, run_script, working

from zmqbroker import Broker, Client, Worker
from zmqbroker.client import last_wait, lull
from zmqbroker.transport.connection import CONNECTED


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client("inproc://tasks"),
        lambda: Worker("inproc://ready", echo),
        lambda: Broker(LOOPBACK, LOOPBACK, "inproc://results"),
    ],
)
def test_inproc_without_a_context_of_the_users_is_refused(make: Callable[[], object]):
    with pytest.raises(ValueError, match=r"give both sides the same one \(context=...\), or use tcp:// or ipc://"):
        make()


@pytest.mark.parametrize("address", [b"tcp://127.0.0.1:1", None, 4161])
def test_an_address_that_is_no_text_is_refused(address: Any):
    for make in (
        lambda: Client(address),
        lambda: Worker(address, echo),
        lambda: Broker(address, NOBODY, NOBODY),
    ):
        with pytest.raises(ValueError, match=f"an address is text, not {type(address).__name__}; one looks like"):
            make()


def test_a_silent_name_server_holds_up_nobody(monkeypatch: pytest.MonkeyPatch):
    may_answer, asked = threading.Event(), threading.Event()

    def be_silent(_: object) -> list[str]:
        asked.set()
        may_answer.wait(PATIENCE)
        return []

    monkeypatch.setattr("zmqbroker.transport.name.addresses_of", be_silent)
    client = Client("tcp://name:4161", connect_timeout=0.5)
    try:
        with pytest.raises(ConnectionError, match="its name server is silent"):
            client.call(b"task", wait=PATIENCE)
        assert asked.is_set()
    finally:
        client.close()
        assert not client._link._thread.is_alive()  # so its context was terminated
        may_answer.set()


def test_a_client_whose_broker_is_not_there_fails_its_tasks_and_does_the_next_when_it_comes(
    start: Callable[..., Running], tmp_path: Path
):
    address = f"ipc://{tmp_path}/requests"
    with Client(address, connect_timeout=0.3) as client:
        for _ in range(2):
            with pytest.raises(ConnectionError, match=f"nobody has answered at {address} for 0.3 s"):
                client.call(b"never done", wait=PATIENCE)
        assert isinstance(client.submit(b"never done").exception(PATIENCE), ConnectionError)
        with pytest.raises(ConnectionError):
            list(client.map([b"never done"], chunk=2))
        running = start(requests=address)
        wait_until(lambda: client._link._shared.connection.state == CONNECTED)
        with working(running.addresses.ready, echo):
            assert client.call(b"task", wait=PATIENCE) == b"task"
        assert running.count("accepted") == 1


def test_a_worker_whose_broker_is_not_there_ends_after_its_connect_timeout():
    with pytest.raises(ConnectionError, match=f"nobody has answered at {NOBODY} for 0.3 s"):
        Worker(NOBODY, echo, connect_timeout=0.3).run()


def test_names_lead_clients_and_workers_to_a_broker_on_ipv6_only(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zmqbroker.transport.name.addresses_of", lambda _: ["127.0.0.2", "::1"])
    on_six = "tcp://[::1]:*"
    running = start(requests=on_six, ready=on_six, results=on_six)
    requests, ready, _ = (address.replace("[::1]", "name") for address in running.addresses)
    with working(ready, bytes.upper), Client(requests) as client:
        assert client.call(b"task", wait=PATIENCE) == b"TASK"
        assert list(client.map([b"a", b"b"])) == [b"A", b"B"]


SHORT_OF_DESCRIPTORS = """
import os, resource, sys
from zmqbroker import Broker, Client, Worker
from zmqbroker.transport import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
here, any_port = "tcp://127.0.0.1:1", "tcp://127.0.0.1:*"
make = {
    "client": lambda: Client(here),
    "worker": lambda: Worker(here, bytes),
    "broker": lambda: Broker(any_port, any_port, any_port),
}[sys.argv[1]]
held = []
while True:
    try:
        held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
for left in range(40):
    try:
        made = make()
    except OSError as error:
        assert "no file descriptors are left for a" in str(error), error
    else:
        print("made with", left)
        sys.stdout.flush()
        os._exit(0)
    os.close(held.pop())
"""


@pytest.mark.parametrize("what", ["client", "worker", "broker"])
def test_whoever_is_short_of_descriptors_gets_an_error_and_lives(what: str):
    ran = run_script(SHORT_OF_DESCRIPTORS, what)
    assert ran.returncode == 0, ran.stderr
    assert "made with" in ran.stdout


def test_a_client_whose_tasks_wait_for_nobody_says_so(
    running: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lull, "FIRST_LULL", 0.1)
    monkeypatch.setattr(last_wait, "LOOK", 0.1)
    with Client(running.addresses.requests) as client:
        future = client.submit(b"task", queue="typo")
        told = f"no replies come from {running.addresses.requests}: no worker asks from the queue typo"
        wait_until(lambda: told in caplog.messages)
        assert future.cancel()


def test_a_client_whose_task_runs_says_nothing(
    running: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lull, "FIRST_LULL", 0.05)
    monkeypatch.setattr(last_wait, "LOOK", 0.05)
    gate = Gate(b"task")
    with working(running.addresses.ready, gate), Client(running.addresses.requests) as client:
        future = client.submit(b"task")
        gate.wait_for(b"task")
        running.wait_for("joined", 2)  # it was asked twice
        gate.open(b"task")
        assert future.result(PATIENCE) == b"TASK"
    assert "no replies come" not in caplog.text
