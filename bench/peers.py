"""The same echo work through the broker and through what else one might take: `python -m bench.peers`.

Every system is started as its own documentation says, with one Python client process that has up to 1,000 tasks
outstanding and two worker processes. Those that keep their tasks on the disk have a table of their own, with one
worker. What is not installed is skipped, or installed when asked for.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import plots, report
from bench.__main__ import at_least, leave
from bench.compare import Plan, measure, measure_chunks, measure_durable, summarize
from bench.environments import ENVIRONMENTS, AbsentError, prepare, server_version
from bench.machine import describe_machine, file_system
from bench.processes import adopt_orphans
from bench.stage import StageError
from bench.systems import clusters, durable, ours, pools, redis_queues, servers
from bench.systems.system import System
from zmqbroker import __version__

SYSTEMS = [*ours.SYSTEMS, *pools.SYSTEMS, *servers.SYSTEMS, *redis_queues.SYSTEMS, *clusters.SYSTEMS]
DURABLE = durable.SYSTEMS
NAMES = [system.name for system in (*SYSTEMS, *DURABLE)]
DEFAULT_RUNS = 3
DEFAULT_SECONDS = 2.0
DEFAULT_WAITING = 20_000
DEFAULT_WAIT = 60.0
DEFAULT_CHUNK = 100

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write it; None means the arguments of the command line."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    adopt_orphans()
    results = report.read(options.results)
    try:
        if options.measure:
            for system in chosen(SYSTEMS, options):
                attempt(system, options, results)
                report.write(results, NAMES, options.results)
            attempt_durable(chosen(DURABLE, options), options, results)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    show(results, options)
    return 0


def chosen(systems: Sequence[System], options: argparse.Namespace) -> list[System]:
    """Return those that are to be measured."""
    return [
        system
        for system in systems
        if not options.only or any(fnmatch(system.name, pattern) for pattern in options.only)
    ]


def show(results: report.Results, options: argparse.Namespace) -> None:
    """Print the report, draw the plots, and bring the table of a document up to date."""
    print(report.to_markdown(results, NAMES))
    report.write(results, NAMES, options.results)
    if options.results and (reason := plots.draw(results, NAMES, options.results)):
        print(f"bench.peers: no plots: {reason}", file=sys.stderr)
    if options.document:
        for table in report.short_table(results, NAMES), report.short_durable_table(results, NAMES):
            report.update_table(options.document, table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="bench.peers", description="Compare the broker with what else there is.")
    add = parser.add_argument
    add(
        "--only",
        action="append",
        metavar="NAME",
        type=a_system,
        help=f"measure this system alone; may be repeated, and be a pattern: {', '.join(NAMES)}",
    )
    add(
        "--install",
        action="store_true",
        help="install what is missing: packages with pip, in virtual environments; servers with apt-get, which may "
        "start them as services too",
    )
    add(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        metavar="DIRECTORY",
        help="where the virtual environments are (default: .venv-peers)",
    )
    add("--runs", type=at_least(1), default=DEFAULT_RUNS, metavar="N", help="runs of each (default: %(default)s)")
    add("--seconds", type=a_span, default=DEFAULT_SECONDS, help="time for each measurement (default: %(default)g)")
    add(
        "--waiting",
        type=at_least(1),
        default=DEFAULT_WAITING,
        metavar="N",
        help="tasks that wait while memory is measured (default: %(default)s)",
    )
    add(
        "--wait",
        type=a_span,
        default=DEFAULT_WAIT,
        metavar="SECONDS",
        help="time for the task of a worker that was killed to run again (default: %(default)g)",
    )
    add(
        "--disk",
        type=Path,
        metavar="DIRECTORY",
        help="where systems that keep tasks on a disk have their files (default: where temporary files are)",
    )
    add("--chunk", type=at_least(1), default=DEFAULT_CHUNK, metavar="N", help="tasks in a chunk (default: %(default)s)")
    add(
        "--results",
        type=Path,
        metavar="DIRECTORY",
        help="write peers.json, peers.md and the plots there; rows that are there and are not measured now stay",
    )
    add("--no-measure", dest="measure", action="store_false", help="show what is in --results, and measure nothing")
    add("--document", type=Path, metavar="FILE", help="bring the table of main figures in this document up to date")
    return parser.parse_args(arguments)


def command(plan: Plan) -> str:
    """Return the command that measures all systems as these figures were."""
    numbers = {
        "runs": plan.runs,
        "seconds": plan.seconds,
        "waiting": plan.waiting,
        "wait": plan.wait,
        "chunk": plan.chunk,
    }
    return "python -m bench.peers --install " + " ".join(f"--{name} {value}" for name, value in numbers.items())


def a_system(pattern: str) -> str:
    """Check that a pattern has something to match."""
    if not any(fnmatch(name, pattern) for name in NAMES):
        raise argparse.ArgumentTypeError(f"there is no system {pattern!r}")
    return pattern


def a_span(text: str) -> float:
    """Read seconds above zero."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def attempt(system: System, options: argparse.Namespace, results: report.Results) -> None:
    """Measure a system, alone and in chunks, or note why that cannot be done; earlier figures then stay."""
    plan = Plan(options.runs, options.seconds, options.waiting, options.wait, options.chunk)
    _note(results["systems"], results["skipped"], system.name, lambda: _row(system, options, plan, measure))
    if system.chunked:
        name = f"{system.name}-chunks"
        _note(results["chunks"], results["skipped"], name, lambda: _row(system, options, plan, measure_chunks))


def attempt_durable(systems: Sequence[System], options: argparse.Namespace, results: report.Results) -> None:
    """Measure systems that keep their tasks on the disk, one run of each in turn; earlier figures stay until then."""
    plan = Plan(options.runs, options.seconds, options.waiting, options.wait, options.chunk)
    disk = options.disk or Path(tempfile.gettempdir())
    runs: dict[str, list[Row]] = {system.name: [] for system in systems}

    def measure_next(system: System, python: str, plan: Plan) -> Row:
        done = runs[system.name]
        done.append(measure_durable(system, python, plan, disk))
        sync_us = median(run["sync_us"] for run in done)
        return {**summarize(done), "sync_us": sync_us, "stored": system.stored, "disk": file_system(disk)}

    for _ in range(options.runs):
        for system in systems:
            take = partial(_row, system, options, plan, measure_next)
            _note(results["durable"], results["skipped"], system.name, take)
            report.write(results, NAMES, options.results)


def _note(rows: dict[str, Row], skipped: dict[str, str], name: str, take: Callable[[], Row]) -> None:
    print(f"bench.peers: {name}", file=sys.stderr, flush=True)
    try:
        rows[name] = take()
        skipped.pop(name, None)
    except (AbsentError, StageError) as error:
        print(f"bench.peers: {name}: skipped: {error}", file=sys.stderr, flush=True)
        if name not in rows:
            skipped[name] = str(error)


def _row(
    system: System, options: argparse.Namespace, plan: Plan, take: Callable[[System, str, Plan], dict[str, Any]]
) -> Row:
    """Return the figures with what they depend on."""
    in_chunks = take is measure_chunks
    if in_chunks and (reason := system.why_no_chunks()):
        raise AbsentError(reason)
    python = prepare(system, options.install, options.environments)
    figures = take(system, python, plan)
    versions = figures.pop("versions", {})
    if system.server:
        versions[system.server.program] = server_version(system.server)
    if not system.packages:
        is_ours = system.title.startswith("zmqbroker")
        versions["zmqbroker" if is_ours else "Python"] = __version__ if is_ours else sys.version.split()[0]
    title = system.chunked.format(chunk=plan.chunk) if in_chunks else system.title
    facts = {"title": title, "setup": system.setup, "versions": versions}
    return {**facts, **figures, "machine": describe_machine(), "command": command(plan)}


if __name__ == "__main__":
    sys.exit(main())
