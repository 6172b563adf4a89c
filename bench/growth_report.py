"""What `bench.growth` has found, as JSON and as Markdown."""

import json
from pathlib import Path
from statistics import median
from typing import Any

Figures = dict[str, float]
Results = dict[str, dict[str, Any]]  # the series by name, as growth.json has them

MEGABYTE = 1e6

LEGEND = """\
Medians of the runs, and of the rate the lowest and the highest. *CPU* is the broker's processor time for a task in
microseconds, all its threads together; *loop* is its own thread, *I/O* is libzmq's, each in user mode and in the
kernel. *Rules alone* is what `dispatch.py` takes for a task with as many waiting or running, without any socket.
A virtual machine is not always as fast, so a *yardstick* (milliseconds of processor time for a fixed piece of work in
Python) is taken just before and after each run, and *times the first* compares CPU / yardstick with that of the first
row in the same round, the median of all rounds.
Peers are connections; the clients are one process, the workers another, and both share the machine with the broker.
"""
BODIES_LEGEND = """\
What is counted are the bytes of bodies that have gone their whole way. *Pair*: from a bare PUSH to a PULL. *Task*: from
the client through the broker to the worker, whose result is one byte; in and out of the broker count as one. *Echo*:
the same, and the body comes back as the result, from the worker through the broker to the client; these are two bodies,
each of which counts once. The ratios are those to the pair, in the same round.
"""


def write(results: Results, directory: Path) -> None:
    """Write growth.json and growth.md into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "growth.json").write_text(json.dumps(results, indent=1) + "\n")
    parts = [_section(name, series) for name, series in results.items()]
    (directory / "growth.md").write_text("\n".join(["# Growth\n", LEGEND, *parts]))


def middle(point: dict[str, Any], name: str) -> float:
    """Return the median of a figure over the runs of a point."""
    value: float = median(run[name] for run in point["runs"])
    return value


def ratio(point: dict[str, Any], name: str, to: str) -> float:
    """Return the median over the runs of the ratio of two figures of the same run."""
    value: float = median(run[name] / run[to] for run in point["runs"])
    return value


def times(point: dict[str, Any], first: dict[str, Any]) -> float:
    """Return how many times the processor time of the first point a task takes, by the yardsticks of both."""
    pairs = zip(point["runs"], first["runs"], strict=True)
    value: float = median(
        run["processor"] / run["yardstick"] / (other["processor"] / other["yardstick"] or 1) for run, other in pairs
    )
    return value


def size_in_words(size: int) -> str:
    """Write a number of bytes that is a power of two as people do."""
    for unit, bytes_of_one in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_of_one:
            return f"{size / bytes_of_one:.0f} {unit}"
    return f"{size} B"


def _section(name: str, series: dict[str, Any]) -> str:
    facts = dict(series["facts"])
    command = facts.pop("command")
    made_by = f"`{command}`; " + ", ".join(f"{fact} {value}" for fact, value in facts.items())
    rows = _body_rows(series) if name == "bodies" else _rows(series)
    legend = f"{BODIES_LEGEND}\n" if name == "bodies" else ""
    table = [rows[0], ["---:"] * len(rows[0]), *rows[1:]]
    return f"## {series['title']}\n\n{legend}" + "".join(f"| {' | '.join(row)} |\n" for row in table) + f"\n{made_by}\n"


def _rows(series: dict[str, Any]) -> list[list[str]]:
    first = series["points"][0]
    parts = ["loop, user", "loop, kernel", "I/O, user", "I/O, kernel"]
    if "rules alone" in first["runs"][0]:
        parts.append("rules alone")
    rows = [
        [series["unit"], "tasks/s", "lowest", "highest", "CPU", "times the first", *parts, "yardstick", "resident MB"]
    ]
    for point in series["points"]:
        rates = [run["tasks/s"] for run in point["runs"]]
        cost = middle(point, "processor")
        rows.append(
            [
                f"{point['number']:,}",
                f"{median(rates):,.0f}",
                f"{min(rates):,.0f}",
                f"{max(rates):,.0f}",
                f"{cost:.1f}",
                f"{times(point, first):.2f}",
                *(f"{middle(point, part):.1f}" for part in parts),
                f"{middle(point, 'yardstick'):.0f}",
                f"{middle(point, 'resident') / MEGABYTE:,.0f}",
            ]
        )
    return rows


def _body_rows(series: dict[str, Any]) -> list[list[str]]:
    rows = [["body", "pair MB/s", "task MB/s", "ratio", "echo MB/s", "ratio", "CPU of a task", "CPU of an echo"]]
    for point in series["points"]:
        row = [size_in_words(point["number"]), f"{middle(point, 'pair') / MEGABYTE:,.1f}"]
        for shape in ("task", "echo"):
            row += [f"{middle(point, shape) / MEGABYTE:,.1f}", f"{ratio(point, shape, 'pair'):.2f}"]
        rows.append([*row, *(f"{middle(point, f'{shape} processor'):,.1f}" for shape in ("task", "echo"))])
    return rows
