"""One system's figures: it is started anew for each run, for what waits, and for each kill."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from statistics import median
from time import monotonic, sleep
from typing import Any

from bench.machine import sync_time
from bench.processes import descendants, kill_all, processor_time, resident_memory
from bench.stage import Process, Stage, StageError
from bench.systems.link import Settings
from bench.systems.system import Play, System

SMALL, LARGE = 64, 65_536  # bytes of a body
WINDOW = 1000  # tasks outstanding
WORKERS = 2
MOST_ROUND_TRIPS = 5_000
ANSWER_WAIT = 280.0  # seconds; for the client process to do what it was asked for
MEET_WAIT = 60.0  # seconds; for both workers to be there
QUIET_WAIT = 60.0  # seconds; for a server to have taken in what was sent
LOOK = 0.25  # seconds between two looks at a server, less often than its clock ticks
GLANCE = 0.001  # seconds between two looks for a task's second run
AFTERMATH = 2.0  # seconds; for a task to run again although its client has been told of a failure

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    runs: int
    seconds: float  # of each run
    waiting: int  # tasks
    wait: float  # seconds; for the task of a killed worker to run again
    chunk: int


@dataclass
class Running:
    """A system that runs, with its client."""

    client: Process
    servers: list[int]
    versions: dict[str, str]
    play: Play

    def ask(self, request: str, **arguments: Any) -> Figures:
        """Have the client do something; return its answer."""
        self.client.go(json.dumps({"do": request, **arguments}))
        return self.client.facts(ANSWER_WAIT)


@contextmanager
def running(
    system: System, python: str, plan: Plan, workers: tuple[int, ...] = (WORKERS,), disk: Path | None = None
) -> Iterator[Running]:
    """Start a system with these processes of workers, started one after the other, and its client.

    Their files are in a directory that is made for them in `disk`; None: where temporary files are.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True, dir=disk) as directory, Stage() as stage:
        settings: Settings = {
            "name": system.name,
            "directory": directory,
            "packages": [package.partition("[")[0] for package in system.packages],
            "count": sum(workers),
            "wait": plan.wait + ANSWER_WAIT,
        }
        play = Play(stage, python, Path(directory), settings)
        try:
            yield _start(system, play, workers)
        except StageError as error:
            raise StageError(f"{error}; {stage.last_error()}") from error


def _start(system: System, play: Play, workers: tuple[int, ...]) -> Running:
    server = system.start_server(play)
    for count in workers:
        system.start_workers(play, count)
    client = play.start_client(system.connect)
    facts = client.facts(MEET_WAIT)
    run = Running(client, [server.id] if server else facts["servers"], facts["versions"], play)
    wanted = sum(workers)
    if wanted and run.ask("meet", workers=wanted, wait=MEET_WAIT)["met"] < wanted:
        raise StageError("not all workers have come")
    return run


def measure(system: System, python: str, plan: Plan) -> Figures:
    """Return all figures of a system."""
    runs = []
    for _ in range(plan.runs):
        with running(system, python, plan) as run:
            figures = measure_run(run, plan)
            figures["versions"] = run.versions
        runs.append(figures)
    result = {**summarize(runs), **summarize_large(runs)}
    result["waiting_bytes"] = measure_waiting(system, python, plan) if system.shows_memory else None
    result["kill"] = measure_kill(system, python, plan, whole=False)
    if system.has_parents:
        result["kill_whole"] = measure_kill(system, python, plan, whole=True)
    return result


def measure_run(run: Running, plan: Plan) -> Figures:
    """Measure round trips, and the rate with small and with large bodies."""
    figures = measure_small(run, plan)
    large = _rate(run.ask("rate", size=LARGE, window=WINDOW, seconds=plan.seconds))
    return {**figures, "large_rate": large["rate"]}


def measure_small(run: Running, plan: Plan) -> Figures:
    """Measure round trips, and the rate, with small bodies."""
    run.ask("rate", size=SMALL, window=WINDOW, seconds=min(plan.seconds / 4, 0.5))  # warms up
    trips = run.ask("round_trips", size=SMALL, seconds=plan.seconds, most=MOST_ROUND_TRIPS)["times"]
    before = processor_time(run.servers)
    small = _rate(run.ask("rate", size=SMALL, window=WINDOW, seconds=plan.seconds))
    after = processor_time(run.servers)
    used = None if before is None or after is None else (after - before) * 1e6 / small["tasks"]
    trips.sort()
    percentiles = [round(trips[min(len(trips) - 1, len(trips) * n // 100)], 1) for n in range(101)]
    return {"rate": small["rate"], "server_us": used, "percentiles": percentiles}


def measure_durable(system: System, python: str, plan: Plan, disk: Path) -> Figures:
    """Measure one run of a system that keeps its tasks on a disk, with one worker."""
    with running(system, python, plan, (1,), disk) as run:
        return {**measure_small(run, plan), "versions": run.versions, "sync_us": sync_time(disk)}


def measure_chunks(system: System, python: str, plan: Plan) -> Figures:
    """Measure the rate with tasks in chunks."""
    rates = []
    for _ in range(plan.runs):
        with running(system, python, plan) as run:
            run.ask("rate", size=SMALL, window=WINDOW, seconds=min(plan.seconds / 4, 0.5))
            answer = run.ask("rate_in_chunks", size=SMALL, chunk=plan.chunk, seconds=plan.seconds)
        rates.append(_rate(answer)["rate"])
    return {"rates": rates, "rate": median(rates), "chunk": plan.chunk}


def summarize(runs: list[Figures]) -> Figures:
    """Return medians of the runs, and the rates of each."""
    used = [run["server_us"] for run in runs if run["server_us"] is not None]
    return {
        "rates": [run["rate"] for run in runs],
        "rate": median(run["rate"] for run in runs),
        "percentiles": [median(each) for each in zip(*(run["percentiles"] for run in runs), strict=True)],
        "server_us": median(used) if used else None,
        "versions": runs[0]["versions"],
    }


def summarize_large(runs: list[Figures]) -> Figures:
    """Return the same of the rates with large bodies."""
    return {
        "large_rates": [run["large_rate"] for run in runs],
        "large_rate": median(run["large_rate"] for run in runs),
    }


def measure_waiting(system: System, python: str, plan: Plan) -> float | None:
    """Return by how much the server's memory grows for a task that waits; None where that is unknown."""
    with running(system, python, plan, (WORKERS,) if system.waits_behind else ()) as run:
        holds = [str(run.play.directory / f"hold{number}") for number in range(WORKERS if system.waits_behind else 0)]
        _wait_until_quiet(run.servers)
        before = resident_memory(run.servers)
        run.ask("fill", size=SMALL, tasks=plan.waiting, holds=holds)
        _wait_until_quiet(run.servers)
        after = resident_memory(run.servers)
    return None if before is None or after is None else (after - before) / plan.waiting


def measure_kill(system: System, python: str, plan: Plan, whole: bool) -> Figures:
    """Kill a process at work, or its whole worker; return after how long its task ran again, and what the client got.

    `again`: seconds, None when the task did not run again; `outcome`: what the client got; None: nothing.
    """
    with running(system, python, plan, (1, 1) if whole else (WORKERS,)) as run:
        path = run.play.directory / "held"
        run.ask("hold", path=str(path), wait=plan.wait + AFTERMATH)
        if not (notes := _look(path, 1, monotonic() + MEET_WAIT)):
            raise StageError("no worker has begun the task")
        first, _ = notes[0]
        if whole:
            kill_all(_worker_of(first))
        killed = monotonic()
        with suppress(ProcessLookupError):  # it was killed with its worker
            os.kill(first, SIGKILL)
        until = killed + plan.wait
        outcome: Figures = {}
        while monotonic() < until and len(notes := _look(path, 2, min(until, monotonic() + LOOK))) < 2:
            if not outcome and run.client.has_line():
                outcome = run.client.facts()
                until = min(until, monotonic() + AFTERMATH)
        again = notes[1][1] - killed if len(notes) > 1 else None
        if again is not None and not outcome:
            with suppress(StageError):
                outcome = run.client.facts(AFTERMATH)
    told = outcome.get("outcome")
    return {
        "again": again,
        "outcome": None if told == "timeout" else told,
        "told": outcome["at"] - killed if outcome else None,
        "wait": plan.wait,
    }


def _worker_of(process_id: int) -> list[int]:
    """Return the processes of the worker that this one belongs to: all those with the child of ours among them."""
    for child in descendants(os.getpid()):
        family = [child, *descendants(child)]
        if process_id in family:
            return family
    return []


def _look(path: Path, least: int, until: float) -> list[tuple[int, float]]:
    """Return the notes about who had a task and when, as soon as there are enough of them."""
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= least or monotonic() > until:
            return [(int(line.split()[0]), float(line.split()[1])) for line in lines]
        sleep(GLANCE)


def _wait_until_quiet(servers: list[int]) -> None:
    until = monotonic() + QUIET_WAIT
    used = None
    while monotonic() < until and used != (used := processor_time(servers)):
        sleep(LOOK)


def _rate(answer: Figures) -> Figures:
    if answer["right"] != answer["tasks"]:
        raise StageError(f"{answer['tasks'] - answer['right']} of {answer['tasks']} results were wrong")
    return {"rate": answer["tasks"] / answer["seconds"], "tasks": answer["tasks"]}
