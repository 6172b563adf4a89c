"""`zmqbroker task list --failed`, `task retry` and `task forget`: the tasks in a broker's store that have failed."""

import argparse
from functools import partial
from typing import Any, NamedTuple

from zmqbroker.commands.asking import (
    CONTROL_HELP,
    DONE,
    REFUSED,
    STATUSES,
    Answer,
    add_asking,
    add_owner,
    ask_one,
    complain,
    list_all,
    task_named,
)
from zmqbroker.commands.options import queue_name
from zmqbroker.commands.tables import NONE, Column, Page, Row, counted, cut, span, squeeze
from zmqbroker.commands.tables import number as with_commas
from zmqbroker.transport.control import ControlSocket
from zmqbroker.wire.control import ControlError

REASON = "only tasks that failed for a reason like this: 'timed out*'"
COLUMNS = (
    Column("TASK", is_number=True),
    Column("QUEUE", cut_by=squeeze),
    Column("ATTEMPTS", is_number=True),
    Column("KEPT", is_number=True),
    Column("OWNER", cut_by=squeeze, is_optional=True),
    Column("KEY", cut_by=squeeze),
    Column("REASON", cut_by=cut),
)


class Change(NamedTuple):
    """What is done to tasks, and how that is said."""

    ask: str
    total: str  # the field of an answer that says how many
    one: str
    several: str


RETRIED = Change("retry", "retried", "waits again", "wait again")
FORGOTTEN = Change("forget", "forgotten", "is forgotten", "are forgotten")


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `task retry` and `task forget` take."""
    add = parser.add_argument
    add("tasks", nargs="*", metavar="TASK", help="the number of a task in the broker's log, or its key")
    add("--key", action="store_true", help="each TASK is a key, though it looks like a number")
    add_owner(parser)
    add("--all", action="store_true", help="all tasks in the store that have failed or expired")
    add("--queue", type=queue_name, metavar="NAME", help="of these, only tasks of this queue")
    add("--reason", metavar="PATTERN", help=f"of these, {REASON}")
    parser.epilog = STATUSES
    add_asking(parser)
    add("--control", metavar="CONTROL", help=CONTROL_HELP)


def retry_tasks(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Have tasks tried again; return the exit status."""
    return _change(options, parser, RETRIED)


def forget_tasks(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Have what is kept of tasks dropped; return the exit status."""
    return _change(options, parser, FORGOTTEN)


def list_failed(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """List the tasks in the store that have failed or expired; return the exit status."""
    fields = kind_of(options) | ({"order": "newest"} if options.newest else {})

    def tell(answer: Answer) -> list[str]:
        rows = [Row(_cells(task)) for task in answer["failed"]]
        lines = Page().listing(COLUMNS, rows)
        if len(rows) == options.most:
            lines.append(f"there may be more: {with_commas(answer['total'])} failed tasks are in the store in all")
        return lines

    return ask_one(options, parser, partial(list_all, what="failed", most=options.most, **fields), tell)


def kind_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a question that say which failed tasks are meant."""
    wishes = {"queue": options.queue, "reason": options.reason, "owner": options.owner}
    return {name: wish for name, wish in wishes.items() if wish is not None}


def _cells(task: dict[str, Any]) -> list[str]:
    reason = task["reason"] if task["status"] == "failed" else f"{task['status']}: {task['reason']}"
    where = f"{reason} ({task['worker']})" if task["worker"] else reason
    kept = span(task["kept"])
    owner, key = task["owner"] or NONE, task["key"] or NONE
    return [str(task["number"]), task["queue"], str(task["attempts"]), kept, owner, key, where]


def _change(options: argparse.Namespace, parser: argparse.ArgumentParser, change: Change) -> int:
    if options.tasks and options.all:
        parser.error("say which tasks, or --all; the address of a control socket goes to --control")
    if not options.tasks and not options.all:
        parser.error("say which tasks, or --all")
    if (options.queue is not None or options.reason is not None) and not options.all:
        parser.error("--queue and --reason say which of --all are meant")
    if options.all:
        return _change_all(options, parser, change)
    refused = []

    def ask(control: ControlSocket) -> Answer:
        answer: Answer = {change.total: 0}
        for task in options.tasks:
            try:
                last = control.ask(change.ask, **task_named(task, options.key, options.owner))
                answer = last | {change.total: answer[change.total] + 1}
            except ControlError as refusal:
                complain(parser, str(refusal))
                refused.append(task)
        return answer

    def tell(answer: Answer) -> list[str]:
        return [Page().escape(f"task {task} {change.one}") for task in options.tasks if task not in refused]

    status = ask_one(options, parser, ask, tell)
    return REFUSED if refused and status == DONE else status


def _change_all(options: argparse.Namespace, parser: argparse.ArgumentParser, change: Change) -> int:
    """Change all that are meant, a piece at a time."""

    def ask(control: ControlSocket) -> Answer:
        cursor, changed, left = 0, 0, 0
        while cursor is not None:
            answer = control.ask(change.ask, all=True, after=cursor, **kind_of(options))
            cursor = answer["cursor"]
            changed += answer[change.total]
            left += answer.get("left", 0)
        if not changed and not left:
            raise ControlError("there are no such failed tasks in the store")
        return answer | {change.total: changed} | ({"left": left} if "left" in answer else {})

    def tell(answer: Answer) -> list[str]:
        several = f"failed tasks {change.several}"
        lines = [counted(answer[change.total], f"failed task {change.one}", several)]
        if answer.get("left"):
            lines.append(f"{with_commas(answer['left'])} did not, as they are damaged, or were forgotten meanwhile")
        return lines

    return ask_one(options, parser, ask, tell)
