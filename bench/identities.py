"""What identities cost: the same load through a broker that has them, and through one that has none.

The client is this process; two Workers return what they get.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.client_library import BODY, MANY_SLOTS, WORKERS, round_trips
from bench.measure import Figures, Table, alternate
from bench.stage import ROOT, Stage
from zmqbroker import Client
from zmqbroker.transport.identity import BROKER, OWN

SYSTEMS = ("with", "without")
LARGE = 1 << 20  # bytes
LARGE_WINDOW = 8  # tasks of that size at a time
MEGABYTE = 1e6


def compare_small(tasks: int, pairs: int) -> Table:
    """Measure `map` with bodies of a few bytes."""
    table = Table(f"identities: map, {len(BODY)} bytes; {WORKERS} Workers", SYSTEMS)
    alternate(table, pairs, lambda: _map_small(tasks, True), lambda: _map_small(tasks, False))
    return table


def compare_large(tasks: int, pairs: int, io_threads: int) -> Table:
    """Measure `map` with large bodies that come back."""
    threads = f"{io_threads} I/O thread{'s' if io_threads > 1 else ''}"
    table = Table(f"identities: map, 1 MiB there and back; {threads}", SYSTEMS)
    alternate(table, pairs, lambda: _map_large(tasks, io_threads, True), lambda: _map_large(tasks, io_threads, False))
    return table


def compare_call(tasks: int, pairs: int) -> Table:
    """Measure the round trip of `call`."""
    table = Table("identities: 1 call at a time; 1 Worker", SYSTEMS)
    alternate(table, pairs, lambda: _call(tasks, True), lambda: _call(tasks, False))
    return table


def _map_small(tasks: int, has_identities: bool) -> Figures:
    with _client(has_identities) as client:
        return {"tasks/s": tasks / _seconds(client, BODY, tasks, window=1024)}


def _map_large(tasks: int, io_threads: int, has_identities: bool) -> Figures:
    with _client(has_identities, "--io-threads", str(io_threads)) as client:
        seconds = _seconds(client, b"x" * LARGE, tasks, window=LARGE_WINDOW)
        return {"MB/s, each way": tasks * LARGE / seconds / MEGABYTE}


def _call(tasks: int, has_identities: bool) -> Figures:
    with _client(has_identities, workers=1, slots=1) as client:
        return round_trips(tasks, lambda: client.call(BODY))


def _seconds(client: Client, body: bytes, tasks: int, window: int) -> float:
    client.call(body)  # all are connected
    started = perf_counter()
    right = sum(reply == body for reply in client.map((body for _ in range(tasks)), window=window))
    if right != tasks:
        raise SystemExit(f"bench: {tasks - right} wrong replies")
    return perf_counter() - started


@contextmanager
def _client(has_identities: bool, *options: str, workers: int = WORKERS, slots: int = MANY_SLOTS) -> Iterator[Client]:
    """Have a broker and Workers run, and a client connect, all with identities or none with one."""
    with Stage() as stage, TemporaryDirectory() as directory:
        files = Path(directory)
        with _identities(files) if has_identities else nullcontext():
            more = ["--identity", f"{files}/broker.secret", "--authorized", f"{files}/authorized"]
            system = stage.start_broker(*options, *(more if has_identities else []))
            stage.start_peers(workers, "library-worker", system.workers[0], f"--slots={slots}")
            with Client(system.clients) as client:
                yield client


@contextmanager
def _identities(files: Path) -> Iterator[None]:
    """Make identities of a broker and of all others, which the environment names meanwhile."""
    for name in ("broker", "peer"):
        _run("new", str(files / name))
    (files / "authorized").write_text(_run("show", "--roles", "client,worker", str(files / "peer.public")))
    named = {OWN: f"{files}/peer.secret", BROKER: f"{files}/broker.public"}
    os.environ.update(named)
    try:
        yield
    finally:
        for name in named:
            del os.environ[name]


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "zmqbroker", "identity", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
