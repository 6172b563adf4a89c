"""What the command lines share: a parser with errors of one line, the types of options, and how loud to be."""

import argparse
import logging
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from zmqbroker import __version__
from zmqbroker.commands import streams
from zmqbroker.transport.limited_log import printable
from zmqbroker.wire import LARGEST_FACTOR, QUEUE_NAME, is_queue, queue_list

USAGE_ERROR = 2  # exit status
LATE = ("files", "keys", "tasks", "control", "controls")  # arguments that may stand at the end, after options
ANY_PORT = re.compile(r"tcp://.*:[*0]|ipc://\*")  # an address that is another one each time


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help is not lost.

    It can be told what it takes when it is used for the first time. Options are not to be abbreviated: one that does
    not exist would be taken for another one.
    """

    fill: Callable[[], None] | None = None  # what tells it; None: it knows

    def __init__(self, **known: Any) -> None:
        super().__init__(**known, allow_abbrev=False)

    def know(self) -> None:
        """Have it told what it takes, unless it knows."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill()

    def parse_known_args(self, *arguments: Any, **more: Any) -> Any:
        """Do so, once it knows what it takes."""
        self.know()
        return super().parse_known_args(*arguments, **more)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and exit with status 2."""
        streams.complain(f"{self.prog}: {printable(message)} (see {self.prog} --help)")
        sys.exit(USAGE_ERROR)

    def print_help(self, file: Any = None) -> None:
        """Print the help on stdout; raises as `streams.write_out` does."""
        streams.print_out(self.format_help())

    def take_rest(self, options: argparse.Namespace, rest: Sequence[str]) -> None:
        """Take what stands after an option that came after an address, as files, say; exit at anything else."""
        for action in self._actions:
            if action.option_strings or action.dest not in LATE:
                continue
            end = rest.index("--") if "--" in rest else len(rest)  # whatever follows is no option
            listed = [*filter(_is_listed, rest[:end]), *rest[end + 1 :]]
            before = getattr(options, action.dest)
            if action.nargs == "*":
                setattr(options, action.dest, [*before, *listed])
            elif before is None and len(listed) == 1:
                setattr(options, action.dest, listed[0])
            else:
                continue
            rest = [argument for argument in rest[:end] if not _is_listed(argument)]
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")


def _is_listed(argument: str) -> bool:
    return argument == streams.STDIN_NAME or not argument.startswith("-")


class ShowVersion(argparse.Action):
    """What --version does."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print it on stdout; raises as `streams.write_out` does."""
        streams.print_out(f"zmqbroker {__version__}\n")
        sys.exit()


def refuse_repeated(parser: argparse.ArgumentParser, *addresses: str) -> None:
    """Exit if an address is given twice: one was forgotten, or a line was pasted wrongly."""
    fixed = [address for address in addresses if not ANY_PORT.fullmatch(address)]
    for address in fixed:
        if fixed.count(address) > 1:
            parser.error(f"{address} is given twice; each socket of the broker has an address of its own")


def number(kind: type[float] | type[int], zero: str) -> Callable[[str], float]:
    """Return a parser of numbers from 0 up; `zero` says what 0 means."""

    def parse(text: str) -> float:
        try:
            value: float = kind(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            whole = "whole " if kind is int else ""
            raise argparse.ArgumentTypeError(f"{text!r} is no {whole}number from 0 up (0: {zero})")
        return value

    return parse


def add_connect_timeout(parser: argparse.ArgumentParser) -> None:
    """Declare how long one waits for a broker."""
    parser.add_argument(
        "--connect-timeout",
        type=number(float, "no limit"),
        default=0,
        metavar="SECONDS",
        help="time without a broker that answers, at the start or later, after which this ends with status 2 "
        "(default: 0, no limit: it says so from time to time)",
    )


def add_identity(parser: argparse.ArgumentParser) -> None:
    """Declare who one is, and whom one expects."""
    parser.add_argument(
        "--identity",
        metavar="FILE",
        help="who one is, for a broker that has an identity too: NAME.secret, as `zmqbroker identity new` makes it "
        "(default: what ZMQBROKER_IDENTITY names, else none)",
    )
    parser.add_argument(
        "--broker-identity",
        metavar="FILE",
        help="whom one expects: NAME.public of the broker (default: what ZMQBROKER_BROKER_IDENTITY names, else none)",
    )


def whole_number(text: str) -> int:
    """Parse a whole number, which may be negative."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def factor(text: str) -> float:
    """Parse by how much the time between attempts grows."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= LARGEST_FACTOR:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {LARGEST_FACTOR}")
    return value


def queue_name(text: str) -> str:
    """Parse the name of a queue."""
    if not is_queue(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not {QUEUE_NAME}")
    return text


def queue_names(text: str) -> list[str]:
    """Parse the names of queues between commas."""
    try:
        return list(queue_list(text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def queue_limit(text: str) -> tuple[str, int]:
    """Parse a queue and its limit."""
    name, _, limit = text.partition("=")
    if not limit.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=N, with a whole number from 0 up (0: no limit)")
    return queue_name(name), int(limit)


def log_level(options: argparse.Namespace) -> int:
    """Return what --verbose or --quiet asks for."""
    return logging.DEBUG if options.verbose else logging.WARNING if options.quiet else logging.INFO
