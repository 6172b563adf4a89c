"""What the command lines share: a parser with errors of one line, the types of options, and how loud to be."""

import argparse
import logging
import math
from collections.abc import Callable
from typing import NoReturn

USAGE_ERROR = 2  # exit status


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and exit with status 2."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


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


def whole_number(text: str) -> int:
    """Parse a whole number, which may be negative."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def log_level(options: argparse.Namespace) -> int:
    """Return what --verbose or --quiet asks for."""
    return logging.DEBUG if options.verbose else logging.WARNING if options.quiet else logging.INFO
