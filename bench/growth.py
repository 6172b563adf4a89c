"""How the broker grows: `python -m bench.growth [--only NAME] [--runs N] [--tasks N] [--most N] [--directory PATH]`.

Rate and processor time of the broker for each task, with more and more workers, clients, waiting tasks, running tasks,
queues, groups and lists of queues, and ever larger bodies. All else stays the same in a series: there are always as
many tasks on their way, whether they are those of one client or of two thousand. The figures go to growth.json and
growth.md, plots beside them. A series that is not measured again stays as it was.

The processor time is the main figure: on a machine with few cores the peers leave the broker less of them the more
they have to do themselves, which lowers the rate, but hardly the broker's time for a task.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple, NoReturn

from bench.growth_plots import draw
from bench.growth_report import Figures, Results, write
from bench.machine import describe_machine
from bench.stage import LOOPBACK, Process, Stage, StageError
from zmqbroker import __version__

WAIT = 600.0  # seconds; for a process to say something
DEFAULT_TASKS = 40_000
DEFAULT_RUNS = 3
DIRECTORY = Path(__file__).resolve().parent / "results"
ROLES = "bench.growth_roles"
WINDOW = 1000  # tasks on their way where nothing else is said
MOST_CLIENTS = 2000
MOST_WORKERS = 10_000
BODY_BYTES = 64
ASKING = 160  # workers that announce themselves: enough to ask from 10,000 queues, 64 each
ASKED = 64  # tasks by each of them
BYTES_OF_A_RUN = 1 << 30
BYTES_ON_THEIR_WAY = 16 << 20
YARDSTICK_TURNS = 2000
BODIES_FOR_A_TASK = 20  # through the pair, which is so much faster with small ones
FEWEST_BODIES = 8
FEWEST_ON_THEIR_WAY = 4


class Load(NamedTuple):
    """What the peers do."""

    clients: int = 1
    window: int = WINDOW  # tasks of all clients together that have no reply
    workers: int = 1
    slots: int = WINDOW  # ready messages of all workers together that are unused or whose task is running
    hold: int = 0  # tasks that the workers keep running
    size: int = BODY_BYTES
    short: bool = False  # the result is one byte, else as large as the task
    kinds: str = ""  # of what tasks and workers have several, and how many: see `growth_kinds`; empty: they are plain


class Series(NamedTuple):
    """One kind of growth."""

    title: str
    unit: str
    numbers: tuple[int, ...]
    run: Callable[[int, int], Figures]  # of a number of that unit, and of tasks


def workers(number: int, tasks: int) -> Figures:
    """Have so many workers, all but a tenth of whose ready messages are unused."""
    return run_load(Load(workers=number, slots=MOST_WORKERS), tasks)


def clients(number: int, tasks: int) -> Figures:
    """Have so many clients."""
    return run_load(Load(clients=number, window=MOST_CLIENTS, slots=MOST_CLIENTS), tasks)


def waiting(number: int, tasks: int) -> Figures:
    """Have so many tasks wait, besides those that are on their way."""
    return run_load(Load(window=number + WINDOW), tasks) | control(number, WINDOW, tasks)


def running(number: int, tasks: int) -> Figures:
    """Have so many tasks run, besides those that are on their way."""
    return run_load(Load(window=number + WINDOW, slots=number + WINDOW, hold=number), tasks) | control(0, number, tasks)


def queues(number: int, tasks: int) -> Figures:
    """Have tasks of so many queues, and workers that ask from 64 of them, or from all."""
    return run_load(Load(workers=ASKING, slots=ASKING * ASKED, kinds=f"--queues={number}"), tasks)


def groups(number: int, tasks: int) -> Figures:
    """Have tasks of so many groups of one queue."""
    return run_load(Load(workers=ASKING, slots=ASKING * ASKED, kinds=f"--groups={number}"), tasks)


def lists(number: int, tasks: int) -> Figures:
    """Have workers with so many different lists of queues, all of which contain the queue where the tasks are."""
    return run_load(Load(workers=ASKING, slots=ASKING * ASKED, kinds=f"--lists={number}"), tasks)


def bodies(size: int, tasks: int) -> Figures:
    """Send bodies of so many bytes: through a bare pair, as tasks with a short result, as tasks and as results."""
    count = max(min(BYTES_OF_A_RUN // size, tasks), FEWEST_BODIES)
    window = max(min(BYTES_ON_THEIR_WAY // size, WINDOW), FEWEST_ON_THEIR_WAY)
    pair = run_pair(size, max(min(BYTES_OF_A_RUN // size, BODIES_FOR_A_TASK * tasks), FEWEST_BODIES), window)
    load = Load(window=window, slots=window, size=size)
    one_way = run_load(load._replace(short=True), count)
    echoed = run_load(load, max(count // 2, FEWEST_BODIES))
    return {
        "pair": pair,
        "task": one_way["tasks/s"] * size,
        "echo": echoed["tasks/s"] * size * 2,
        "task processor": one_way["processor"],
        "echo processor": echoed["processor"],
    }


EACH_DECADE = (1_000, 10_000, 100_000, 1_000_000)
SERIES = {
    "workers": Series("Workers", "workers", (1, 10, 100, 1_000, MOST_WORKERS), workers),
    "clients": Series("Clients", "clients", (1, 10, 100, 1_000, MOST_CLIENTS), clients),
    "waiting": Series("Waiting tasks", "tasks waiting", (0, *EACH_DECADE), waiting),
    "running": Series("Running tasks", "tasks running", EACH_DECADE, running),
    "queues": Series("Queues", "queues", (1, 10, 100, 1_000, 10_000), queues),
    "groups": Series("Groups", "groups", (1, 10, 100, 1_000, 10_000), groups),
    "lists": Series("Lists of queues", "lists", (1, 3, 10, 30, 100), lists),
    "bodies": Series("Bodies", "bytes of a body", tuple(16 << 2 * step for step in range(12)), bodies),
}


def run_load(load: Load, tasks: int) -> Figures:
    """Return the rate, and the broker's microseconds of processor time for a task, all of it and each thread's part."""
    with Stage() as stage:
        broker = stage.start("broker.py", "-t", "3", "-T", "3600", LOOPBACK, LOOPBACK, LOOPBACK)
        requests, ready, results = (broker.line().split()[1] for _ in range(3))
        common = [f"--size={load.size}", *(["--short"] if load.short else []), *([load.kinds] if load.kinds else [])]
        arguments = [f"--peers={load.clients}", f"--window={load.window}", f"--tasks={tasks}", f"--broker={broker.id}"]
        client = _start(stage, "clients", requests, *arguments, *common)
        client.facts(WAIT)  # the broker has read the whole window
        arguments = [f"--peers={load.workers}", f"--slots={load.slots}", f"--hold={load.hold}"]
        role = "announced" if load.kinds else "workers"
        _start(stage, role, ready, results, *arguments, *common).facts(WAIT)  # each of them has answered
        before = yardstick()
        client.go()
        measured = client.facts(WAIT)
        after = yardstick()
        resident = broker.resident() or 0
    parts = [seconds / tasks * 1e6 for seconds in measured["processor"]]
    names = ("loop, user", "loop, kernel", "I/O, user", "I/O, kernel")
    return {
        "tasks/s": tasks / measured["seconds"],
        "processor": sum(parts),
        **dict(zip(names, parts, strict=True)),
        "yardstick": (before + after) / 2,
        "resident": resident,
    }


def yardstick() -> float:
    """Return the milliseconds of processor time that a fixed piece of work takes at the moment, peers at work beside.

    A virtual machine is not always as fast: neighbours that nobody sees share its caches and its cores.
    """
    started = process_time()
    for _ in range(YARDSTICK_TURNS):
        lines: dict[bytes, list[bytes]] = {}
        for number in range(100):
            lines.setdefault(number.to_bytes(8, "big"), []).append(b"x" * number)
    return (process_time() - started) * 1e3


def control(waiting: int, running: int, tasks: int) -> Figures:
    """Return the microseconds of processor time that the rules alone take for a task, without any socket."""
    with Stage() as stage:
        arguments = [f"--waiting={waiting}", f"--running={running}", f"--tasks={tasks}", f"--size={BODY_BYTES}"]
        return {"rules alone": _start(stage, "dispatcher", *arguments).facts(WAIT)["seconds"] / tasks * 1e6}


def run_pair(size: int, count: int, window: int) -> float:
    """Return the bytes of bodies that a PUSH sends to a PULL in a second."""
    with Stage() as stage:
        common = [f"--size={size}", f"--window={window}"]
        pull = _start(stage, "pull", f"--tasks={count}", *common)
        _start(stage, "push", pull.facts()["address"], *common)
        seconds: float = pull.facts(WAIT)["seconds"]
        return size * count / seconds


def _start(stage: Stage, role: str, *arguments: str) -> Process:
    return stage.start("-m", ROLES, role, *arguments)


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write what was found; None means the arguments of the command line."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    file = options.directory / "growth.json"
    results: Results = json.loads(file.read_text()) if file.exists() else {}
    try:
        for name in options.only or SERIES:
            results[name] = measure(name, options)
            results = {name: results[name] for name in SERIES if name in results}
            write(results, options.directory)
    except StageError as error:
        print(f"growth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if why_not := draw(results, options.directory):
        print(f"no plots: {why_not}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="bench.growth", description="Measure the broker with more and more to do.")
    add = parser.add_argument
    add("--only", action="append", choices=SERIES, help="measure this alone; may be repeated (default: all)")
    add("--runs", type=int, default=DEFAULT_RUNS, metavar="N", help="runs of each number (default: %(default)s)")
    add("--tasks", type=int, default=DEFAULT_TASKS, metavar="N", help="tasks of a run (default: %(default)s)")
    add("--most", type=int, metavar="N", help="leave out larger numbers than this, save the first (default: none)")
    add("--directory", type=Path, default=DIRECTORY, metavar="PATH", help="where the files go (default: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.runs, options.tasks) < 1:
        parser.error("there is nothing to do without a run and a task")
    return options


def leave(number: int, _: object) -> NoReturn:
    """End by a signal in an orderly way: the processes of the measurement are ended first."""
    sys.exit(128 + number)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Take one series, up and down in turn so that a drift of the machine does not look like growth."""
    series = SERIES[name]
    first, *others = series.numbers
    numbers = [first, *(number for number in others if options.most is None or number <= options.most)]
    runs: dict[int, list[Figures]] = {number: [] for number in numbers}
    for turn in range(options.runs):
        for number in reversed(numbers) if turn % 2 else numbers:
            runs[number].append(series.run(number, options.tasks))
            shown = ", ".join(f"{figure} {value:,.4g}" for figure, value in runs[number][-1].items())
            print(f"{number:,} {series.unit}: {shown}", flush=True)
    command = f"python -m bench.growth --only {name} --runs {options.runs} --tasks {options.tasks}"
    return {
        "title": series.title,
        "unit": series.unit,
        "facts": {"command": command, "zmqbroker": __version__} | describe_machine(),
        "points": [{"number": number, "runs": runs[number]} for number in numbers],
    }


if __name__ == "__main__":
    sys.exit(main())
