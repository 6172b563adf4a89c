"""`zmqbroker task list`, `show` and `cancel`: which tasks there are, one of them, and an end to one."""

import argparse
from functools import partial
from typing import Any

from zmqbroker.commands.asking import Answer, add_control, add_owner, ask_one, list_all, task_named
from zmqbroker.commands.options import number, queue_name
from zmqbroker.commands.stored import REASON, list_failed
from zmqbroker.commands.tables import NONE, Column, Page, Row, span, squeeze
from zmqbroker.commands.tables import number as with_commas

STATES = ("waiting", "delayed", "running")
DEFAULT_MOST = 100  # tasks listed
COLUMNS = (
    Column("TASK", is_number=True),
    Column("STATE"),
    Column("QUEUE", cut_by=squeeze),
    Column("AGE", is_number=True),
    Column("SINCE", is_number=True),
    Column("ATTEMPTS", is_number=True),
    Column("WORKER", cut_by=squeeze),
    Column("OWNER", cut_by=squeeze, is_optional=True),
    Column("KEY", cut_by=squeeze),
)


def add_task_list_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `task list` takes."""
    add = parser.add_argument
    add("--state", choices=STATES, metavar="STATE", help=f"only tasks in this state: {', '.join(STATES)}")
    add("--queue", type=queue_name, metavar="NAME", help="only tasks of this queue")
    add("--worker", metavar="TEXT", help="only tasks at workers with this in their names")
    add("--owner", metavar="NAME", help="only tasks of this owner")
    add("--slowest", action="store_true", help="only tasks that workers have in hand, the longest first")
    add("--failed", action="store_true", help="instead, tasks in the broker's store that have failed or expired")
    add("--reason", metavar="PATTERN", help=f"with --failed: {REASON}")
    add("--newest", action="store_true", help="with --failed: those first that were accepted last")
    add(
        "--most",
        type=number(int, "all"),
        default=DEFAULT_MOST,
        metavar="N",
        help="tasks listed, at most (default: %(default)s; 0: all)",
    )
    add_control(parser)


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `task show` and `task cancel` take."""
    parser.add_argument("--key", action="store_true", help="TASK is a key, though it looks like a number")
    add_owner(parser)
    parser.add_argument("task", metavar="TASK", help="the number of a task in the broker's log, or its key")
    add_control(parser)


def list_tasks(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """List tasks; return the exit status."""
    if options.failed:
        if options.state or options.worker or options.slowest:
            parser.error("--state, --worker and --slowest are for tasks that wait or run, and not for --failed")
        return list_failed(options, parser)
    if options.reason is not None or options.newest:
        parser.error("--reason and --newest are for --failed only")
    wishes = {"state": options.state, "queue": options.queue, "worker": options.worker, "owner": options.owner}
    fields: dict[str, Any] = {name: wish for name, wish in wishes.items() if wish is not None}
    if options.slowest:
        fields["order"] = "slowest"

    def tell(answer: Answer) -> list[str]:
        rows = [Row(_cells(task)) for task in answer["tasks"]]
        lines = Page().listing(COLUMNS, rows)
        if len(rows) == options.most:
            lines.append(f"there may be more: {with_commas(answer['total'])} tasks wait or run in all")
        return lines

    return ask_one(options, parser, partial(list_all, what="tasks", most=options.most, **fields), tell)


def show_task(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Show a task; return the exit status."""

    def tell(answer: Answer) -> list[str]:
        about = answer.get("task") or answer.get("stored") or answer["failure"]
        page = Page()
        return [f"{name:9} {page.escape(_text(name, value))}" for name, value in about.items()]

    return ask_one(options, parser, lambda control: control.ask("task", **_which(options)), tell)


def cancel_task(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Cancel a task; return the exit status."""

    def tell(answer: Answer) -> list[str]:
        task = answer["task"]
        where = f" at {task['worker']}" if task["worker"] else ""
        return [Page().escape(f"task {task['number']} is cancelled; it was {task['state']}{where}")]

    return ask_one(options, parser, lambda control: control.ask("cancel", **_which(options)), tell)


def _which(options: argparse.Namespace) -> dict[str, Any]:
    return task_named(options.task, options.key, options.owner)


def _cells(task: dict[str, Any]) -> list[str]:
    return [
        str(task["number"]),
        task["state"],
        task["queue"],
        span(task["age"]),
        span(task["since"]),
        str(task["attempts"]),
        task["worker"] or NONE,
        task["owner"] or NONE,
        task["key"] or NONE,
    ]


def _text(name: str, value: Any) -> str:
    """Return what is to be said of one thing that is known of a task."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return span(value) if name in ("age", "since", "due", "kept") else str(value)
