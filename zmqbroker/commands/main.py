"""The `zmqbroker` command: options in, exit status out. `broker.py` is `zmqbroker serve` under another name."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from zmqbroker import __version__
from zmqbroker.commands.options import Parser
from zmqbroker.commands.serve import SERVE, SERVE_EXAMPLE, add_serve_options, serve
from zmqbroker.commands.submit import SUBMIT, add_submit_options, submit
from zmqbroker.commands.work import WORK, add_work_options, split_command, work

EXAMPLE = """\
example, each line in a terminal of its own:
  zmqbroker serve -T 60 "tcp://*:4161" "tcp://*:4162" "tcp://*:4163"
  zmqbroker work tcp://localhost:4162 tcp://localhost:4163 -- factor
  seq 1000 | zmqbroker submit tcp://localhost:4161"""


def broker_main(arguments: Sequence[str] | None = None) -> int:
    """Run `broker.py`; None means the arguments of the command line."""
    parser = Parser(prog="broker.py", description=SERVE.capitalize() + ".")
    add_serve_options(parser)
    return _run(serve, parser.parse_args(arguments), parser)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `zmqbroker`; None means the arguments of the command line."""
    parser = Parser(
        prog="zmqbroker",
        description="A task broker over plain ZeroMQ sockets.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"zmqbroker {__version__}")
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
    given, command_line = split_command(sys.argv[1:] if arguments is None else arguments)
    work_parser = commands.add_parser("work", help=WORK)
    add_work_options(work_parser, command_line)
    work_parser.set_defaults(command=work, parser=work_parser)
    submit_parser = commands.add_parser("submit", help=SUBMIT)
    add_submit_options(submit_parser)
    submit_parser.set_defaults(command=submit, parser=submit_parser)
    options = parser.parse_args(given)
    return _run(options.command, options, options.parser)


def _run(
    command: Callable[[argparse.Namespace, argparse.ArgumentParser], int],
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
) -> int:
    try:
        return command(options, parser)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
