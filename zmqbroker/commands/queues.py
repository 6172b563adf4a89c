"""`zmqbroker queue`: which queues there are, and how they are held up."""

import argparse
from typing import Any

from zmqbroker.commands.asking import Answer, add_control, ask_one, list_things
from zmqbroker.commands.options import number, queue_name
from zmqbroker.commands.tables import RED, YELLOW, Column, Row, counted, cut, short, span, squeeze
from zmqbroker.transport.control import ControlSocket

COLUMNS = (
    Column("QUEUE", cut_by=squeeze),
    Column("WAITING", is_number=True),
    Column("DELAYED", is_number=True),
    Column("RUNNING", is_number=True),
    Column("WORKERS", is_number=True),
    Column("OLDEST", is_number=True),
    Column("DONE", is_number=True),
    Column("FAILED", is_number=True),
    Column("", cut_by=cut),
)


def add_queue_list_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `queue list` takes."""
    add_control(parser)


def add_queue_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `queue pause` and `queue resume` take."""
    parser.add_argument("queue", type=queue_name, metavar="QUEUE", help="the name of the queue")
    add_control(parser)


def add_queue_limit_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `queue limit` takes."""
    count, add = number(int, "any number"), parser.add_argument
    add("--running", type=count, metavar="N", help="tasks that may run at once (default: as it is; 0: any number)")
    add("--waiting", type=count, metavar="N", help="tasks that may wait (default: as it is; 0: any number)")
    add_queue_options(parser)


def list_queues(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """List all queues; return the exit status."""
    return list_things(options, parser, "queues", COLUMNS, queue_row)


def pause_queue(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Pause a queue; return the exit status."""
    return _change(options, parser, "pause", "is paused")


def resume_queue(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Resume a queue; return the exit status."""
    return _change(options, parser, "resume", "is not paused")


def limit_queue(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Limit a queue; return the exit status."""
    wishes = {"running": options.running, "waiting": options.waiting}
    fields = {name: wish for name, wish in wishes.items() if wish is not None}
    if not fields:
        parser.error("say --running N, --waiting N, or both")
    words = [f"{wish or 'any number of'} {name}" for name, wish in fields.items()]
    return _change(options, parser, "limit", f"may have {' and '.join(words)}", **fields)


def _change(options: argparse.Namespace, parser: argparse.ArgumentParser, ask: str, what: str, **fields: Any) -> int:
    def change(control: ControlSocket) -> Answer:
        return control.ask(ask, queue=options.queue, **fields)

    def tell(answer: Answer) -> list[str]:
        queue = answer["queue"] or {"waiting": 0, "running": 0}  # it is forgotten
        tasks = f"{counted(queue['waiting'], 'task waits', 'tasks wait')} there, {queue['running']:,} running"
        return [f"the queue {options.queue} {what} ({tasks})"]

    return ask_one(options, parser, change, tell)


def is_unserved(queue: dict[str, Any]) -> bool:
    """Tell whether tasks wait in vain, as no worker asks."""
    return bool(queue["waiting"] and not queue["workers"])


def queue_row(queue: dict[str, Any]) -> Row:
    """Return what a table says of a queue."""
    notes = [
        *(["no workers"] if is_unserved(queue) else []),
        *(["paused"] if queue["paused"] else []),
        *([f"limit {queue['limit']:,}"] if queue["limit"] is not None else []),
        *([f"{queue['limit_waiting']:,} may wait"] if queue["limit_waiting"] is not None else []),
    ]
    counts = [short(queue[name]) for name in ("waiting", "delayed", "running", "workers")]
    outcomes = [short(queue[name]) for name in ("done", "failed")]
    style = RED if is_unserved(queue) else YELLOW if queue["paused"] else ""
    return Row([queue["name"], *counts, span(queue["oldest"]), *outcomes, ", ".join(notes)], style)
