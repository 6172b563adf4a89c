"""The command line: `python -m bench [--only NAME] [--tasks N] [--pairs N] [--waiting N] [--json FILE]`."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bench import identities, web
from bench.client_library import MANY_SLOTS, compare_call, compare_futures, compare_map
from bench.machine import describe_machine
from bench.measure import WINDOW, Table, compare_askers, compare_with_proxy, loads, measure_waiting
from bench.roles import BODY_BYTES
from bench.stage import StageError
from zmqbroker import __version__

DEFAULT_TASKS = 40_000
DEFAULT_PAIRS = 3
DEFAULT_WAITING = 100_000
MOST_WAITING = 1_000_000
DEFAULT_PEERS = 8
NAMES = (
    *("window", "strict", "latency", "control", "web", "memory", "map", "map-slots", "futures", "call"),
    *("identities", "identities-large", "identities-large-2", "identities-call"),
)
LAYOUT = "{:42} {:>12} {:>12} {:>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table per measurement; None means the arguments of the command line."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    facts = describe_machine()
    print(f"zmqbroker {__version__}, {facts['date']}: medians of {options.pairs} pairs of runs; every peer is a")
    print(f"Python process, all on this machine, over tcp; bodies of {BODY_BYTES} bytes, every reply is checked")
    print("; ".join(f"{name} {fact}" for name, fact in facts.items() if name != "date"), flush=True)
    tables = {}
    try:
        for name in NAMES:
            if options.only and name not in options.only:
                continue
            if name == "web" and (lack := web.missing()):
                print(f"\nnot measured: web, as {lack}", flush=True)
                continue
            tables[name] = measure(name, options)
            show(tables[name])
    except StageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "tables": to_json(tables)}, indent=1) + "\n")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the broker, and zmq.proxy beside it.")
    add = parser.add_argument
    add("--only", action="append", choices=NAMES, help="measure this alone; may be repeated (default: all)")
    add(
        "--tasks",
        type=at_least(2),
        default=DEFAULT_TASKS,
        metavar="N",
        help="tasks of a run; a fifth of them with strict peers, a twentieth for latencies, four times as many with a "
        "page, a part of them where tasks wait and with the library (default: %(default)s)",
    )
    add("--pairs", type=at_least(1), default=DEFAULT_PAIRS, metavar="N", help="runs of each (default: %(default)s)")
    add(
        "--peers",
        type=at_least(1),
        default=DEFAULT_PEERS,
        metavar="N",
        help="strict clients, and as many strict workers (default: %(default)s)",
    )
    add(
        "--waiting",
        type=at_least(WINDOW, MOST_WAITING),
        default=DEFAULT_WAITING,
        metavar="N",
        help=f"tasks that wait while memory is measured, up to {MOST_WAITING} (default: %(default)s)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures of every run there")
    return parser.parse_args(arguments)


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers within bounds; None: no upper one."""

    def parse_number(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            bounds = f"from {least} up" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number {bounds}")
        return int(text)

    return parse_number


def leave(number: int, _: object) -> NoReturn:
    """End by a signal in an orderly way: the processes of the measurement are ended first."""
    sys.exit(128 + number)


def measure(name: str, options: argparse.Namespace) -> Table:
    """Take one measurement."""
    if name == "memory":
        return measure_waiting(options.waiting, max(options.tasks // 2, 2), options.pairs)
    if name == "map":
        return compare_map(options.tasks // 5, options.pairs, slots=1)
    if name == "map-slots":
        return compare_map(options.tasks, options.pairs, slots=MANY_SLOTS)
    if name == "futures":
        return compare_futures(options.tasks // 2, options.pairs, slots=MANY_SLOTS)
    if name == "call":
        return compare_call(max(options.tasks // 40, 1), options.pairs)
    if name == "identities":
        return identities.compare_small(options.tasks, options.pairs)
    if name in ("identities-large", "identities-large-2"):
        return identities.compare_large(max(options.tasks // 80, 1), options.pairs, 2 if name.endswith("-2") else 1)
    if name == "identities-call":
        return identities.compare_call(max(options.tasks // 40, 1), options.pairs)
    if name == "web":
        return web.compare_onlookers(options.tasks * 4, options.pairs)
    if name == "control":
        return compare_askers(loads(options.tasks, options.peers)[name], options.pairs)
    return compare_with_proxy(loads(options.tasks, options.peers)[name], options.pairs)


def show(table: Table) -> None:
    """Print a table."""
    print("\n" + LAYOUT.format(table.title, *table.systems, "ratio"))
    for name, ours, theirs, ratio in table.rows():
        print(LAYOUT.format(f"  {name}", *(number(value) for value in (ours, theirs)), number(ratio)), flush=True)


def number(value: float | None) -> str:
    """Write a figure with three digits or more; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def to_json(tables: dict[str, Table]) -> dict[str, object]:
    """Return the figures of every run, and their medians."""
    return {
        name: {
            "title": table.title,
            "systems": table.systems,
            "medians": {
                row: dict(zip((*table.systems, "ratio"), values, strict=True)) for row, *values in table.rows()
            },
            "runs": [dict(zip(table.systems, run, strict=True)) for run in table.runs],
        }
        for name, table in tables.items()
    }


if __name__ == "__main__":
    sys.exit(main())
