"""Whoever is authorized keeps working while strangers flood a broker that has an identity."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
import zmq
from conftest import Peers, PlainWorker
from guarded_support import Gate, gate
from helpers import Program, bound_addresses, wait_until

__all__ = ["gate"]  # a fixture

LOOPBACK = "tcp://127.0.0.1:*"
MUTE = 2000  # connections
FLOOD = "tests/endurance/flood.py"
SPAN = 5.0  # seconds of each measurement
LONGEST = 5.0  # seconds of a round trip; it takes some milliseconds, and somebody that is starved waits for ever
SPARE = 10  # descriptors more than before, at most, when the strangers have left


def round_trips(client: "zmq.Socket[bytes]", worker: PlainWorker) -> list[float]:
    """Return how long round trips took, of one task after the other."""
    took = []
    until = monotonic() + SPAN
    while monotonic() < until:
        began = monotonic()
        client.send(b"task")
        worker.echo()
        assert client.recv() == b"task"
        took.append(monotonic() - began)
    return sorted(took)


def open_files(program: Program) -> int:
    return len(os.listdir(f"/proc/{program.process.pid}/fd"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it counts descriptors as Linux shows them")
def test_who_is_authorized_keeps_working_while_strangers_flood_the_broker(
    gate: Gate, start_program: Callable[..., Program]
):
    own = gate.let_in("alice", "client,worker")
    files = "--identity", gate.identity, "--authorized", gate.authorized
    broker = start_program("broker.py", *files, "--control", "none", *(LOOPBACK,) * 3)
    requests, ready, results = bound_addresses(broker)
    key = gate.public.decode()
    with closing(Peers()) as peers:
        client = peers.open(zmq.REQ, requests, **gate.keys(own))
        worker = PlainWorker(
            peers.open(zmq.REQ, ready, **gate.keys(own)), peers.open(zmq.PUSH, results, **gate.keys(own))
        )
        alone = round_trips(client, worker)
        before = open_files(broker)
        flood = [start_program(FLOOD, "hold", requests, MUTE), start_program(FLOOD, "knock", requests, key)]
        for program in flood:
            program.wait_for("flooding")
        among_strangers = round_trips(client, worker)
        for what, took in (("alone", alone), ("among strangers", among_strangers)):
            median, late = took[len(took) // 2], took[len(took) * 99 // 100]
            print(f"{what}: {len(took)} round trips, p50 {1000 * median:.1f} ms, p99 {1000 * late:.1f} ms")
        assert among_strangers[-1] < LONGEST
        for program in flood:
            program.process.kill()
            program.wait()
        wait_until(lambda: open_files(broker) <= before + SPARE)
        client.send(b"last")
        assert worker.echo() == [b"last"]
    assert "refused at REQUESTS: 127.0.0.1" in broker.output
