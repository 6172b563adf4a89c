"""Commands that were given a wrong address, or two of them in the wrong order: one line, and status 2."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import Running
from helpers import PATIENCE, TOP, Program

FOR_CLIENTS = "a client belongs to the one for clients (REQUESTS)"
FOR_WORKERS = "a worker belongs to the one for workers (READY)"


def ran(*command: str, text: bytes = b"") -> tuple[bytes, list[str], int]:
    """Run a program of ours to its end; return what it has printed, its complaints and its status."""
    done = subprocess.run(
        [sys.executable, *command], cwd=TOP, input=text, capture_output=True, timeout=PATIENCE, check=False
    )
    return done.stdout, done.stderr.decode().splitlines(), done.returncode


def is_unharmed(running: Running) -> bool:
    """Tell whether a task is done by plain peers, and is the only one there was."""
    client, worker = running.client(), running.worker()
    client.send(b"task")
    worker.echo()
    return client.recv() == b"task" and running.count("accepted") == running.count("attempts") == 1


@pytest.mark.parametrize(("where", "belongs"), [("requests", "for clients (REQUESTS)"), ("results", "(RESULTS)")])
def test_work_at_a_wrong_address(running: Running, where: str, belongs: str):
    address = getattr(running.addresses, where)
    _, complaints, status = ran("-m", "zmqbroker", "work", "-q", address, "builtins:bytes")
    assert status == 2
    (line,) = complaints
    assert address in line
    assert belongs in line
    assert FOR_WORKERS in line
    assert is_unharmed(running)


@pytest.mark.parametrize(("where", "belongs"), [("ready", "for workers (READY)"), ("results", "(RESULTS)")])
def test_submit_at_a_wrong_address(running: Running, where: str, belongs: str):
    address = getattr(running.addresses, where)
    output, complaints, status = ran("-m", "zmqbroker", "submit", address, text=b"1\n2\n3\n")
    assert (output, status) == (b"", 2)
    (line,) = complaints
    assert f"{address} is the wrong address" in line
    assert belongs in line
    assert FOR_CLIENTS in line
    assert is_unharmed(running)


def test_testclient_at_results(running: Running):
    address = running.addresses.results
    output, complaints, status = ran("testclient.py", "-n", "3", address)
    assert (output, status) == (b"", 2)
    (line,) = complaints
    assert f"{address} is the wrong address: it is one for results (RESULTS); {FOR_CLIENTS}" in line
    assert is_unharmed(running)


@pytest.mark.parametrize(
    ("ready", "results", "wrong", "belongs"),
    [
        ("results", "ready", "ready", "it is not the one for results (RESULTS)"),
        ("ready", "requests", "requests", "it is not the one for results (RESULTS)"),
        ("requests", "ready", "ready", "it is not the one for results (RESULTS)"),
    ],
)
def test_testworker_with_its_addresses_mixed_up(running: Running, ready: str, results: str, wrong: str, belongs: str):
    at = running.addresses._asdict()
    output, complaints, status = ran("testworker.py", at[ready], at[results], "0")
    assert (output, status) == (b"Asking for tasks\n", 2)
    (line,) = complaints
    assert f"{at[wrong]} is the wrong address: {belongs}" in line
    assert is_unharmed(running)


def test_testworker_at_the_results_of_another_broker(start: Callable[..., Running]):
    running, other = start(), start()
    address = other.addresses.results
    _, (line,), status = ran("testworker.py", address, running.addresses.results, "0")
    assert status == 2
    assert f"{address} is the wrong address: it is the one for results (RESULTS), READY is the one for workers" in line


def test_testworker_asks_for_nothing_before_its_results_have_where_to_go(
    running: Running, start_program: Callable[..., Program]
):
    nowhere = "tcp://127.0.0.1:1"
    worker = start_program("testworker.py", running.addresses.ready, nowhere, 0)
    worker.wait_for(f"^no answer yet from {nowhere}: is the broker running.$")
    assert is_unharmed(running)
    assert worker.end() == 0
