"""`zmqbroker completion`: prints what has a shell complete the commands, their options, and the names of files.

What is printed is made by shtab from the parsers, whole: to complete a word starts no Python.
"""

import argparse
from contextlib import suppress

from zmqbroker.commands import streams
from zmqbroker.commands.options import USAGE_ERROR

SHELLS = ("bash", "zsh", "fish")
NOTHING = {"zsh": "( )"}  # where nothing is said, zsh completes no option before this argument, but hints at what it is


def add_completion_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `completion` takes."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"which shell: {', '.join(SHELLS)}")


def completion(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print what a shell is to read; return the exit status."""
    known = []
    with suppress(ImportError):
        import shtab

        known = shtab.SUPPORTED_SHELLS
    if options.shell not in known:
        streams.complain(f"{parser.prog}: shtab 1.9.3 or newer is not installed: pip install 'zmqbroker[completion]'")
        return USAGE_ERROR
    from zmqbroker.commands.command_lines import every_parser

    whole, *others = every_parser()
    named = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}  # by what an argument or an option takes
    for action in (action for each in (whole, *others) for action in each._actions):
        if isinstance(action.metavar, str) and action.metavar in named:
            vars(action)["complete"] = named[action.metavar]
        elif not action.option_strings and action.choices is None:
            vars(action)["complete"] = NOTHING
    streams.print_out(shtab.complete(whole, shell=options.shell) + "\n")
    return 0
