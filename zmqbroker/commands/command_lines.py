"""The command lines: `zmqbroker` with its subcommands, and `broker.py`, which is `zmqbroker serve` by another name."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from zmqbroker.commands.options import Parser, ShowVersion

EXAMPLE = """\
example, each line in a terminal of its own:
  zmqbroker serve -T 60 "tcp://*:4161" "tcp://*:4162" "tcp://*:4163"
  zmqbroker work tcp://localhost:4162 -- factor
  seq 1000 | zmqbroker submit tcp://localhost:4161
  zmqbroker status --watch"""

Command = Callable[[argparse.Namespace, argparse.ArgumentParser], int]  # returns the exit status


class Entry(NamedTuple):
    """A subcommand, by the names of what is imported when it is asked for: all of them together take a while."""

    help: str
    module: str
    add_options: str
    command: str


SERVE = Entry("hand out the tasks of clients to the workers that ask for them", "serve", "add_serve_options", "serve")
COMMANDS = {
    "serve": SERVE,
    "work": Entry("run a function of yours, or a command, on tasks", "work", "add_work_options", "work"),
    "submit": Entry(
        "submit each line of files or of stdin as a task, and print the replies",
        "submit",
        "add_submit_options",
        "submit",
    ),
    "fetch": Entry("fetch the results of tasks that were left with the broker", "fetch", "add_fetch_options", "fetch"),
    "status": Entry(
        "show what a broker does: queues, workers, the slowest tasks, the last failures",
        "status",
        "add_status_options",
        "status",
    ),
    "web": Entry("show what brokers do on a page for browsers, and tell Prometheus", "web", "add_web_options", "web"),
    "drain": Entry(
        "have a broker finish what it has accepted, and end, as a first SIGTERM does",
        "drain",
        "add_drain_options",
        "drain",
    ),
    "completion": Entry(
        "print what has a shell complete these commands",
        "completion",
        "add_completion_options",
        "completion",
    ),
}
GROUPS = {  # of subcommands
    "task": (
        "list tasks, show or cancel one, retry or forget some that failed",
        {
            "list": Entry(
                "list the tasks that wait or run, the oldest first, or those in the store that have failed",
                "tasks",
                "add_task_list_options",
                "list_tasks",
            ),
            "show": Entry(
                "show a task that waits or runs, one that is settled and in the store, or one of the last that failed",
                "tasks",
                "add_task_options",
                "show_task",
            ),
            "cancel": Entry("cancel a task, whether it waits or runs", "tasks", "add_task_options", "cancel_task"),
            "retry": Entry(
                "have tasks in the store wait again that have failed or expired",
                "stored",
                "add_change_options",
                "retry_tasks",
            ),
            "forget": Entry(
                "drop what the store keeps of tasks that are settled", "stored", "add_change_options", "forget_tasks"
            ),
        },
    ),
    "queue": (
        "list queues, pause or resume one, or limit it",
        {
            "list": Entry(
                "list the queues that have tasks, workers or settings",
                "queues",
                "add_queue_list_options",
                "list_queues",
            ),
            "pause": Entry(
                "hand out no tasks of a queue until it is resumed; what runs goes on",
                "queues",
                "add_queue_options",
                "pause_queue",
            ),
            "resume": Entry("hand out the tasks of a queue again", "queues", "add_queue_options", "resume_queue"),
            "limit": Entry(
                "limit how many tasks of a queue may run at once, or wait",
                "queues",
                "add_queue_limit_options",
                "limit_queue",
            ),
        },
    ),
    "worker": (
        "list workers",
        {"list": Entry("list the workers, and what they are at", "workers", "add_worker_list_options", "list_workers")},
    ),
    "identity": (
        "make a pair of keys, or show what has a broker know it",
        {
            "new": Entry(
                "make a pair of keys, and write the public one to one file, both to another",
                "identity",
                "add_new_options",
                "new_identity",
            ),
            "show": Entry(
                "print the line that a broker's file of the authorized needs for an identity",
                "identity",
                "add_show_options",
                "show_identity",
            ),
        },
    ),
}


def parse(program: str, arguments: Sequence[str]) -> tuple[Command, argparse.Namespace, argparse.ArgumentParser]:
    """Return the command that the arguments ask for, its options, and its parser; exits at bad ones."""
    given, after = _split(arguments)
    parser = _broker_parser() if program == "broker.py" else _zmqbroker_parser(after)
    options, rest = parser.parse_known_args(given)
    options.parser.take_rest(options, rest)
    return options.command, options, options.parser


def every_parser() -> list[Parser]:
    """Return the parser of `zmqbroker`, and after it those of its subcommands: each knows what it takes."""
    parsers = [_zmqbroker_parser(None)]
    for parser in parsers:  # which grows meanwhile
        parser.know()
        for action in parser._actions:
            if isinstance(action.choices, dict):  # the subcommands
                parsers += action.choices.values()
    return parsers


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return the arguments of `zmqbroker`, and the command that follows `--` in those of `zmqbroker work`, if any.

    argparse drops the `--`, and could not tell a command from a function.
    """
    given = list(arguments)
    if given[:1] != ["work"] or "--" not in given:
        return given, None
    end = given.index("--")
    return given[:end], given[end + 1 :]


def _broker_parser() -> Parser:
    parser = Parser(prog="broker.py", description=_sentence(SERVE.help))
    parser.fill = partial(_fill, parser, SERVE)
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
    for name, entry in COMMANDS.items():
        _add(commands, name, entry, **({"command_line": command_line} if name == "work" else {}))
    for name, (help, entries) in GROUPS.items():
        group = commands.add_parser(name, help=help, description=_sentence(help))
        members = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
        for member, entry in entries.items():
            _add(members, member, entry)
    return parser


def _add(commands: Any, name: str, entry: Entry, **known: Any) -> None:
    parser: Parser = commands.add_parser(name, help=entry.help, description=_sentence(entry.help))
    parser.fill = partial(_fill, parser, entry, **known)


def _fill(parser: Parser, entry: Entry, **known: Any) -> None:
    """Have a subcommand's parser know what it takes, as far as that depends on what is `known`."""
    module = import_module(f"zmqbroker.commands.{entry.module}")
    getattr(module, entry.add_options)(parser, **known)
    parser.set_defaults(command=getattr(module, entry.command), parser=parser)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
