"""The command lines: `zmqbroker` with its subcommands, and `broker.py`, which is `zmqbroker serve` by another name."""

import argparse
from collections.abc import Callable, Sequence

from zmqbroker.commands.options import Parser, ShowVersion
from zmqbroker.commands.serve import SERVE, SERVE_EXAMPLE, add_serve_options, serve
from zmqbroker.commands.submit import SUBMIT, add_submit_options, submit
from zmqbroker.commands.work import WORK, add_work_options, split_command, work

EXAMPLE = """\
example, each line in a terminal of its own:
  zmqbroker serve -T 60 "tcp://*:4161" "tcp://*:4162" "tcp://*:4163"
  zmqbroker work tcp://localhost:4162 -- factor
  seq 1000 | zmqbroker submit tcp://localhost:4161"""

Command = Callable[[argparse.Namespace, argparse.ArgumentParser], int]  # returns the exit status


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
    serve_parser = commands.add_parser(
        "serve",
        help=SERVE,
        description=SERVE.capitalize() + ".",
        epilog=SERVE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_serve_options(serve_parser)
    serve_parser.set_defaults(command=serve, parser=serve_parser)
    work_parser = commands.add_parser("work", help=WORK)
    add_work_options(work_parser, command_line)
    work_parser.set_defaults(command=work, parser=work_parser)
    submit_parser = commands.add_parser("submit", help=SUBMIT)
    add_submit_options(submit_parser)
    submit_parser.set_defaults(command=submit, parser=submit_parser)
    return parser
