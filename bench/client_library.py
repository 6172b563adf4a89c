"""What Client and Worker make of the broker, beside the process pools of the standard library.

The client is this process; on either side two processes return what they get.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter

import zmq

from bench.measure import WINDOW, Figures, Table, alternate
from bench.roles import BODY_BYTES, open_socket
from bench.stage import Stage
from zmqbroker import Client

WORKERS = 2
MANY_SLOTS = 64
BODY = b"x" * BODY_BYTES


def echo(body: bytes) -> bytes:
    """Return what comes, the least that a worker can do."""
    return body


def compare_map(tasks: int, pairs: int, slots: int) -> Table:
    """Measure `map` beside `multiprocessing.Pool.imap`."""
    title = f"map, window {WINDOW}; {WORKERS} Workers, {slots} slot{'s' if slots > 1 else ''}"
    table = Table(title, ("Client", "Pool.imap"))

    def run_pool() -> Figures:
        with get_context("spawn").Pool(WORKERS) as pool:
            pool.map(echo, [BODY] * WORKERS)  # the processes have started
            return _rate(tasks, lambda: sum(reply == BODY for reply in pool.imap(echo, (BODY for _ in range(tasks)))))

    def run_client() -> Figures:
        with Stage() as stage, _client(stage, slots) as client:
            return _rate(tasks, lambda: sum(reply == BODY for reply in client.map(BODY for _ in range(tasks))))

    alternate(table, pairs, run_client, run_pool)
    return table


def compare_futures(tasks: int, pairs: int, slots: int) -> Table:
    """Measure `submit` beside `ProcessPoolExecutor.submit`, all futures outstanding at once."""
    title = f"submit, all at once; {WORKERS} Workers, {slots} slots"
    table = Table(title, ("Client", "ProcessPool"))

    def run_pool() -> Figures:
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
            list(pool.map(echo, [BODY] * WORKERS))
            return _rate(tasks, lambda: _count([pool.submit(echo, BODY) for _ in range(tasks)]))

    def run_client() -> Figures:
        with Stage() as stage, _client(stage, slots) as client:
            return _rate(tasks, lambda: _count([client.submit(BODY) for _ in range(tasks)]))

    alternate(table, pairs, run_client, run_pool)
    return table


def compare_call(tasks: int, pairs: int) -> Table:
    """Measure the round trip of `call` beside that of a bare REQ client, through the same broker and Worker."""
    table = Table("1 call at a time; 1 Worker", ("Client.call", "bare REQ"))

    def run_call() -> Figures:
        with Stage() as stage, _client(stage, 1, workers=1) as client:
            return round_trips(tasks, lambda: client.call(BODY))

    def run_bare() -> Figures:
        with Stage() as stage:
            requests: zmq.Socket[bytes] = open_socket(zmq.REQ, _start(stage, 1, workers=1))

            def call() -> bytes:
                requests.send(BODY)
                return requests.recv()

            figures = round_trips(tasks, call)
            requests.close()
            return figures

    alternate(table, pairs, run_call, run_bare)
    return table


def _client(stage: Stage, slots: int, workers: int = WORKERS) -> Client:
    return Client(_start(stage, slots, workers))


def _start(stage: Stage, slots: int, workers: int) -> str:
    """Start a broker and Workers, and return the address for requests."""
    system = stage.start_broker()
    stage.start_peers(workers, "library-worker", system.workers[0], f"--slots={slots}")
    return system.clients


def _rate(tasks: int, run: Callable[[], int]) -> Figures:
    started = perf_counter()
    right = run()
    seconds = perf_counter() - started
    if right != tasks:
        raise SystemExit(f"bench: {tasks - right} wrong replies")
    return {"tasks/s": tasks / seconds}


def _count(futures: "list[object]") -> int:
    return sum(future.result() == BODY for future in futures)  # type: ignore[attr-defined]


def round_trips(tasks: int, call: Callable[[], bytes]) -> Figures:
    """Measure how long so many calls take, one at a time."""
    times = []
    for _ in range(tasks + 1):
        started = perf_counter()
        if call() != BODY:
            raise SystemExit("bench: a wrong reply")
        times.append((perf_counter() - started) * 1e6)
    times = sorted(times[1:])  # the first one, which connects, does not count
    return {"p50, us": times[tasks // 2], "p99, us": times[tasks * 99 // 100]}
