"""The command lines: `zmqbroker` with its subcommands, and `broker.py`, which is `zmqbroker serve` by another name."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from zmqbroker.commands import drain, queues, status, stored, tasks, workers
from zmqbroker.commands.fetch import FETCH, add_fetch_options, fetch
from zmqbroker.commands.options import Parser, ShowVersion
from zmqbroker.commands.serve import SERVE, SERVE_EXAMPLE, add_serve_options, serve
from zmqbroker.commands.submit import SUBMIT, add_submit_options, submit
from zmqbroker.commands.work import WORK, add_work_options, split_command, work

EXAMPLE = """\
example, each line in a terminal of its own:
  zmqbroker serve -T 60 "tcp://*:4161" "tcp://*:4162" "tcp://*:4163"
  zmqbroker work tcp://localhost:4162 -- factor
  seq 1000 | zmqbroker submit tcp://localhost:4161
  zmqbroker status --watch"""

Command = Callable[[argparse.Namespace, argparse.ArgumentParser], int]  # returns the exit status


class Entry(NamedTuple):
    """A subcommand."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    command: Command


GROUPS = {  # of subcommands
    "task": (
        tasks.TASK,
        {
            "list": Entry(tasks.LIST, tasks.add_task_list_options, tasks.list_tasks),
            "show": Entry(tasks.SHOW, tasks.add_task_options, tasks.show_task),
            "cancel": Entry(tasks.CANCEL, tasks.add_task_options, tasks.cancel_task),
            "retry": Entry(stored.RETRY, stored.add_change_options, stored.retry_tasks),
            "forget": Entry(stored.FORGET, stored.add_change_options, stored.forget_tasks),
        },
    ),
    "queue": (
        queues.QUEUE,
        {
            "list": Entry(queues.LIST, queues.add_queue_list_options, queues.list_queues),
            "pause": Entry(queues.PAUSE, queues.add_queue_options, queues.pause_queue),
            "resume": Entry(queues.RESUME, queues.add_queue_options, queues.resume_queue),
            "limit": Entry(queues.LIMIT, queues.add_queue_limit_options, queues.limit_queue),
        },
    ),
    "worker": (
        workers.WORKER,
        {"list": Entry(workers.LIST, workers.add_worker_list_options, workers.list_workers)},
    ),
}


def parse(program: str, arguments: Sequence[str]) -> tuple[Command, argparse.Namespace, argparse.ArgumentParser]:
    """Return the command that the arguments ask for, its options, and its parser; exits at bad ones."""
    given, command_line = split_command(arguments)
    parser = _broker_parser() if program == "broker.py" else _zmqbroker_parser(command_line)
    options, rest = parser.parse_known_args(given)
    options.parser.take_rest(options, rest)
    return options.command, options, options.parser


def _broker_parser() -> Parser:
    parser = Parser(prog="broker.py", description=SERVE.capitalize() + ".")
    add_serve_options(parser)
    parser.set_defaults(command=serve, parser=parser)
    return parser


def _zmqbroker_parser(command_line: list[str] | None) -> Parser:
    """Return the parser of `zmqbroker`; `work` is followed by this command, or (None) by a function."""
    parser = Parser(
        prog="zmqbroker",
        description="A task broker over plain ZeroMQ sockets.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve_parser = _add(commands, "serve", Entry(SERVE, add_serve_options, serve))
    serve_parser.epilog, serve_parser.formatter_class = SERVE_EXAMPLE, argparse.RawDescriptionHelpFormatter
    _add(commands, "work", Entry(WORK, partial(add_work_options, command_line=command_line), work))
    _add(commands, "submit", Entry(SUBMIT, add_submit_options, submit))
    _add(commands, "fetch", Entry(FETCH, add_fetch_options, fetch))
    _add(commands, "status", Entry(status.STATUS, status.add_status_options, status.status))
    for name, (help, entries) in GROUPS.items():
        group = commands.add_parser(name, help=help, description=_sentence(help))
        members = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
        for member, entry in entries.items():
            _add(members, member, entry)
    _add(commands, "drain", Entry(drain.DRAIN, drain.add_drain_options, drain.drain))
    return parser


def _add(commands: Any, name: str, entry: Entry) -> Parser:
    parser: Parser = commands.add_parser(name, help=entry.help, description=_sentence(entry.help))
    entry.add_options(parser)
    parser.set_defaults(command=entry.command, parser=parser)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
