"""The comparison as a table: read, merged with new figures, and written as JSON and as Markdown."""

import json
from pathlib import Path
from typing import Any

Results = dict[str, dict[str, Any]]  # systems, chunks, durable: rows by name; skipped: reasons by name

HEADINGS = [
    "system",
    "tasks/s, 64 B",
    "tasks/s, 64 KiB",
    "round trip p50 / p99, us",
    "server, us of CPU per task",
    "server, bytes per waiting task",
    "worker killed: the task runs again",
]
NONE = "-"
SHORT_HEADINGS = [
    "system",
    "tasks/s, 64 B",
    "tasks/s, 64 KiB",
    "p50 / p99, us",
    "a busy worker is killed: the task runs again",
]
DURABLE_HEADINGS = [
    "system",
    "durable tasks/s, 64 B",
    "round trip p50 / p99, us",
    "server, us of CPU per task",
    "fsync of 4 KiB, us",
    "what is on the disk, and when",
]
SHORT_DURABLE_HEADINGS = ["system", "durable tasks/s", "p50 / p99, us", "what is on the disk, and when"]


def read(directory: Path | None) -> Results:
    """Return the results that are in a directory; none when there is no directory, or nothing there."""
    results: Results = {"systems": {}, "chunks": {}, "durable": {}, "skipped": {}}
    if directory and (path := directory / "peers.json").exists():
        results.update(json.loads(path.read_text()))
    return results


def write(results: Results, names: list[str], directory: Path | None) -> None:
    """Write JSON and Markdown into a directory; nothing when there is none."""
    if directory:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
        (directory / "peers.md").write_text(to_markdown(results, names))


def ordered(rows: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """Return rows by falling rate."""
    known = [rows[name] for name in rows if name.removesuffix("-chunks") in names]
    return sorted(known, key=lambda row: -row["rate"])


def to_markdown(results: Results, names: list[str]) -> str:
    """Return the whole report."""
    systems, chunks, durable = (ordered(results[kind], names) for kind in ("systems", "chunks", "durable"))
    parts = ["# Side by side", _introduction(systems + chunks)]
    if systems:
        parts.append(_table(HEADINGS, [_cells(row) for row in systems]))
    if chunks:
        rows = [[row["title"], _rate(row["rates"], row["rate"])] for row in chunks]
        parts += ["## In chunks", _table(["64-byte tasks", "tasks/s"], rows)]
    if durable:
        parts += ["## On the disk", _durable_introduction(durable)]
        parts.append(_table(DURABLE_HEADINGS, [_durable_cells(row) for row in durable]))
    if results["skipped"]:
        parts += ["## Skipped", "\n".join(f"- {name}: {reason}" for name, reason in results["skipped"].items())]
    if systems or durable:
        parts += ["## What was run", "\n".join(_setup(row) for row in systems + durable)]
    return "\n\n".join(parts) + "\n"


def short_table(results: Results, names: list[str]) -> str:
    """Return the table of docs/comparison.md: the main figures, without their ranges."""
    rows = []
    for row in ordered(results["systems"], names):
        rates = [number(row["rate"]), number(row["large_rate"])]
        rows.append([row["title"], *rates, _trips(row), "; ".join(killed(row))])
    return _table(SHORT_HEADINGS, rows)


def short_durable_table(results: Results, names: list[str]) -> str:
    """Return the other table of docs/comparison.md: of tasks on the disk."""
    rows = ordered(results["durable"], names)
    return _table(
        SHORT_DURABLE_HEADINGS, [[row["title"], number(row["rate"]), _trips(row), row["stored"]] for row in rows]
    )


def update_table(document: Path, table: str) -> None:
    """Replace the table of a document that has the same heading."""
    heading = table.splitlines()[0]
    before, found, after = document.read_text().partition(heading)
    rest = after.splitlines(keepends=True)[1:]
    while rest and rest[0].startswith("|"):
        del rest[0]
    if found:
        document.write_text(f"{before}{table}\n{''.join(rest)}")


def _introduction(rows: list[dict[str, Any]]) -> str:
    lines = [
        "Echo: one Python client process with up to 1,000 tasks outstanding gets every result and checks it; two",
        "worker processes; all on one machine, over loopback. Rates are medians, with the range of the runs. Round",
        "trips are with one task outstanding. A worker is killed with `kill -9` while it has a task; another one is",
        "there. A dash: there is no such thing, or it is unknown.",
    ]
    return "\n".join([*lines, *_making(rows)])


def _durable_introduction(rows: list[dict[str, Any]]) -> str:
    lines = [
        "The same with one worker process and all tasks on the disk: what is accepted is synced first. Runs of all",
        "systems alternate. A round trip is from the submission of a task, with none outstanding, to its result.",
        "How long the disk took to sync a page is measured after each run.",
        "",
        "File system: " + ", ".join(dict.fromkeys(row["disk"] or "unknown" for row in rows)) + ".",
    ]
    return "\n".join([*lines, *_making(rows)])


def _making(rows: list[dict[str, Any]]) -> list[str]:
    """Return lines about what the figures depend on, and how they were made."""
    lines = []
    for machine in _distinct(rows, "machine"):
        facts = json.loads(machine)
        lines += ["", "Machine: " + "; ".join(f"{name} {fact}" for name, fact in facts.items() if fact) + "."]
    return lines + [f"\nMade with: `{command}`" for command in _distinct(rows, "command")]


def _distinct(rows: list[dict[str, Any]], name: str) -> list[str]:
    """Return what rows say about their making, each once; of machines without the date."""
    facts = (row[name] for row in rows)
    return list(dict.fromkeys(json.dumps({**f, "date": ""}) if isinstance(f, dict) else f for f in facts))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["title"],
        _rate(row["rates"], row["rate"]),
        _rate(row["large_rates"], row["large_rate"]),
        _trips(row),
        number(row["server_us"]),
        number(row["waiting_bytes"]),
        "; ".join(killed(row)),
    ]


def _durable_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["title"],
        _rate(row["rates"], row["rate"]),
        _trips(row),
        number(row["server_us"]),
        number(row["sync_us"]),
        row["stored"],
    ]


def _trips(row: dict[str, Any]) -> str:
    return f"{number(row['percentiles'][50])} / {number(row['percentiles'][99])}"


def _rate(rates: list[float], middle: float) -> str:
    return f"{number(middle)} ({number(min(rates))} to {number(max(rates))})"


def number(value: float | None) -> str:
    """Write a figure with three digits or more; a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def killed(row: dict[str, Any]) -> list[str]:
    """Say what happened to the task of a process that was killed, and of a whole worker."""
    if "kill_whole" not in row:
        return [_outcome(row["kill"])]
    return [f"its process: {_outcome(row['kill'])}", f"all of the worker: {_outcome(row['kill_whole'])}"]


def _outcome(kill: dict[str, Any]) -> str:
    if kill["again"] is not None:
        return f"after {kill['again']:.2g} s"
    if kill["outcome"] is not None:
        return f"no; the client gets {kill['outcome'].partition(':')[0]} after {kill['told']:.2g} s"
    return f"not within {kill['wait']:g} s"


def _setup(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return f"- {row['title']}: {row['setup']}. {versions}, {row['machine']['date']}"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
