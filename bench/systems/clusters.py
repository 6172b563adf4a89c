"""Dask distributed, Parsl's HighThroughputExecutor and ipyparallel, on this machine alone."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.processes import command_of, descendants
from bench.stage import Process
from bench.systems.link import Link, Settings
from bench.systems.system import LOOPBACK, Play, System
from bench.systems.task import work

THIS = "bench.systems.clusters"
NO_DASHBOARD = ["--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"]  # what is left of it listens all the same
BATCHES = 10  # in one of Dask's maps


def future_result(future: Any, wait: float) -> bytes:
    """Return the result of a future."""
    body: bytes = future.result(wait)
    return body


def servers(*names: str) -> tuple[int, ...]:
    """Return the ids of the processes started by this one whose command has one of these names in it."""
    processes = descendants(os.getpid())
    return tuple(each for each in processes if any(name in command_of(each) for name in names))


# Dask


def start_scheduler(play: Play) -> Process:
    """Start Dask's scheduler."""
    port = play.choose_port()
    options = ["--host", LOOPBACK, "--port", port, *NO_DASHBOARD]
    return play.start_server(play.python, "-m", "distributed.cli.dask_scheduler", *options)


def start_dask_workers(play: Play, count: int) -> None:
    """Start Dask's worker program with so many processes of one thread."""
    options = {"nworkers": count, "nthreads": 1, "host": LOOPBACK, "local-directory": play.directory}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    if count:
        scheduler = f"tcp://{LOOPBACK}:{play.settings['port']}"
        play.start_python("-m", "distributed.cli.dask_worker", scheduler, *NO_DASHBOARD, *arguments)


def connect_dask(settings: Settings) -> Link:
    """Connect a Dask client."""
    from distributed import Client, as_completed

    client = Client(f"tcp://{LOOPBACK}:{settings['port']}")

    def submit(body: bytes) -> Any:
        return client.submit(work, body, pure=False)

    def count_right(bodies: Iterable[bytes], window: int) -> int:
        """Take results as they come, in batches."""
        bodies, sent, right = iter(bodies), {}, 0
        ahead = as_completed(with_results=True)

        def add(most: int) -> None:
            for body in islice(bodies, most):
                future = submit(body)
                sent[future.key] = body
                ahead.add(future)

        add(window)
        for batch in ahead.batches():
            right += sum(sent.pop(future.key) == result for future, result in batch)
            add(len(batch))
        return right

    def chunked(bodies: Iterable[bytes], chunk: int) -> Iterator[bytes]:
        """Have one map under way while the next one is prepared."""
        bodies = iter(bodies)
        before: list[Any] = []
        while True:
            futures = client.map(work, list(islice(bodies, BATCHES * chunk)), batch_size=chunk, pure=False)
            yield from client.gather(before)
            if not futures:
                return
            before = futures

    return Link(submit, future_result, count_right=count_right, chunked=chunked)


# Parsl


def connect_parsl(settings: Settings) -> Link:
    """Start Parsl with its workers."""
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    count = settings["count"]
    provider = LocalProvider(init_blocks=1 if count else 0, min_blocks=0, max_blocks=1)
    executor = HighThroughputExecutor(address=LOOPBACK, max_workers_per_node=max(count, 1), provider=provider)
    parsl.load(Config(executors=[executor], run_dir=settings["directory"], initialize_logging=False, strategy="none"))
    echo = parsl.python_app(work)
    return Link(echo, future_result, servers=servers("interchange"))


# ipyparallel


def connect_ipyparallel(settings: Settings) -> Link:
    """Start a controller and engines."""
    import ipyparallel

    Path(settings["directory"]).mkdir(exist_ok=True)
    cluster = ipyparallel.Cluster(n=settings["count"], profile_dir=settings["directory"])
    view = cluster.start_and_connect_sync().load_balanced_view()
    controllers = servers("ipyparallel.controller", "ipcontroller")
    processes = [each for one in controllers for each in (one, *descendants(one))]
    return Link(lambda body: view.apply_async(work, body), future_result, servers=tuple(dict.fromkeys(processes)))


SYSTEMS = [
    System(
        "dask",
        "Dask distributed",
        "dask scheduler; dask worker with 2 processes of 1 thread; submit(pure=False)",
        f"{THIS}:connect_dask",
        start_dask_workers,
        start_scheduler,
        ("distributed",),
        chunked="Dask: Client.map(batch_size={chunk})",
    ),
    System(
        "parsl",
        "Parsl HighThroughputExecutor",
        "LocalProvider, 2 workers; retries as by default: none",
        f"{THIS}:connect_parsl",
        packages=("parsl",),
    ),
    System(
        "ipyparallel",
        "ipyparallel",
        "2 engines; load_balanced_view, apply_async",
        f"{THIS}:connect_ipyparallel",
        packages=("ipyparallel",),
        waits_behind=True,
    ),
]
