"""The measurements: the broker and the proxy in turn, pair by pair, under the same load."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from bench.roles import BODY_BYTES
from bench.stage import Process, Stage

RESULT_WAIT = 300.0  # seconds; for a client to have all its replies
SLOTS = 64  # of the worker that is not strict
ASKERS = 5  # of the control socket
WINDOW = 1000  # of the client that is not strict, and the fewest tasks waiting

Figures = dict[str, float | None]  # None: not known here


class Load(NamedTuple):
    """What the peers do."""

    title: str
    tasks: int
    rows: tuple[str, ...]  # the figures to show
    strict: bool = True
    peers: int = 1  # as many clients as workers


@dataclass
class Table:
    """Figures of two systems, one of each for every pair of runs."""

    title: str
    systems: tuple[str, str]
    runs: list[tuple[Figures, Figures]] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, float | None, float | None, float | None]]:
        """Return each figure's name, the medians of both systems, and the median of the pairs' ratios."""
        for name in self.runs[0][0]:
            pairs = [(ours.get(name), theirs.get(name)) for ours, theirs in self.runs]
            ratios = [a / b if a is not None and b else None for a, b in pairs]
            yield name, _median([a for a, _ in pairs]), _median([b for _, b in pairs]), _median(ratios)


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def loads(tasks: int, peers: int) -> dict[str, Load]:
    """Return the loads by name; the strict ones, whose tasks take longer, have fewer of them."""
    throughput = ("tasks/s", "CPU, us/task")
    return {
        "window": Load(f"1 client, window {WINDOW}; 1 worker, {SLOTS} slots", tasks, throughput, strict=False),
        "strict": Load(f"{peers} REQ clients; {peers} REQ workers", max(tasks // 5, peers), throughput, peers=peers),
        "control": Load(
            f"{peers} REQ clients; {peers} REQ workers", max(tasks // 5, peers), ("p99, us", *throughput), peers=peers
        ),
        "latency": Load("1 REQ client; 1 REQ worker", max(tasks // 20, 1), ("p50, us", "p99, us", "CPU, us/task")),
    }


def compare_with_proxy(load: Load, pairs: int) -> Table:
    """Measure the broker and the proxy under a load."""
    table = Table(load.title, ("broker", "zmq.proxy"))
    alternate(table, pairs, lambda: _run_load(load, proxied=False), lambda: _run_load(load, proxied=True))
    return table


def compare_askers(load: Load, pairs: int) -> Table:
    """Measure the broker under a load with askers at its control socket, beside that without."""
    table = Table(load.title, (f"{ASKERS} askers", "none"))
    alternate(table, pairs, lambda: _run_load(load, proxied=False, askers=ASKERS), lambda: _run_load(load, False))
    return table


def measure_waiting(waiting: int, tasks: int, pairs: int) -> Table:
    """Measure the broker's memory for `waiting` tasks, and its rate while so many wait beside that with few."""
    table = Table(f"{BODY_BYTES}-byte tasks waiting", (f"{waiting:,}", f"{WINDOW:,}"))
    alternate(table, pairs, lambda: _run_waiting(waiting, tasks), lambda: _run_waiting(WINDOW, tasks))
    for _, few in table.runs:
        few["resident bytes each"] = None  # so few do not show
    return table


def alternate(table: Table, pairs: int, run_ours: Callable[[], Figures], run_theirs: Callable[[], Figures]) -> None:
    """Run both, the other one first in every second pair."""
    for pair in range(pairs):
        if pair % 2:
            theirs, ours = run_theirs(), run_ours()
        else:
            ours, theirs = run_ours(), run_theirs()
        table.runs.append((ours, theirs))


def _run_load(load: Load, proxied: bool, askers: int = 0) -> Figures:
    prefix = "strict-" if load.strict else ""
    each = load.tasks // load.peers
    with Stage() as stage:
        system = stage.start_proxy() if proxied else stage.start_broker()
        stage.start_peers(load.peers, f"{prefix}worker", *system.workers, f"--slots={SLOTS}")
        clients = stage.start_peers(
            load.peers, f"{prefix}client", system.clients, f"--tasks={each}", f"--window={WINDOW}"
        )
        stage.start_peers(askers, "asker", system.control)
        before = system.process.cpu()
        for client in clients:
            client.go()
        results = [client.facts(RESULT_WAIT) for client in clients]
        after = system.process.cpu()
    seconds = max(result["ended"] for result in results) - min(result["started"] for result in results)
    figures: Figures = {
        "tasks/s": each * load.peers / seconds,
        "p50, us": _median([result.get("p50") for result in results]),
        "p99, us": _median([result.get("p99") for result in results]),
        "CPU, us/task": _per(each * load.peers, before, after, 1e6),
    }
    return {name: figures[name] for name in load.rows}


def _run_waiting(waiting: int, tasks: int) -> Figures:
    with Stage() as stage:
        broker, address, for_workers, _ = stage.start_broker()
        before = broker.resident()
        client = _fill(stage, address, waiting, tasks)
        after = broker.resident()
        client.go()
        stage.start_peers(1, "worker", *for_workers, f"--slots={SLOTS}")
        result = client.facts(RESULT_WAIT)
    rate = (tasks - 1) / (result["ended"] - result["started"])
    return {"resident bytes each": _per(waiting, before, after, 1), "tasks/s meanwhile": rate}


def _fill(stage: Stage, address: str, waiting: int, tasks: int) -> Process:
    """Start a client that will keep `waiting` tasks waiting, and return it when that many are."""
    arguments = [f"--tasks={tasks}", f"--window={waiting}", "--prefill"]
    client = stage.start("-m", "bench.roles", "client", address, *arguments)
    client.facts(RESULT_WAIT)
    return client


def _per(count: int, before: float | None, after: float | None, scale: float) -> float | None:
    return None if before is None or after is None else (after - before) / count * scale
