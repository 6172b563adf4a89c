"""What the commands share that ask a broker by its control socket: the address, and what to say where none answers."""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from zmqbroker.commands import streams
from zmqbroker.commands.options import USAGE_ERROR, add_identity
from zmqbroker.commands.tables import Column, Page, Row
from zmqbroker.transport.control import PATIENCE, ControlSocket, NoAnswerError, control_addresses
from zmqbroker.transport.limited_log import printable
from zmqbroker.wire.control import ControlError

DONE, REFUSED, NO_ANSWER = 0, 1, USAGE_ERROR  # exit statuses
STATUSES = (
    "Exit status: 0 if it was done; 1 if the broker refused it; 2 for bad options, or unless just one broker answers."
)
NOBODY = "no broker of this user answers on this machine; give the address that it printed as `control`"
CONTROL_HELP = (
    "address of the broker's control socket, which it prints at its start (default: that of the only broker "
    "of this user on this machine)"
)

MOST_IN_PAGE = 50  # things that may be asked for at once

Answer = dict[str, Any]
Ask = Callable[[ControlSocket], Answer]
Tell = Callable[[Answer], list[str]]  # returns lines for people


def add_control(parser: argparse.ArgumentParser, epilog: str = STATUSES) -> None:
    """Declare which broker is asked, as who, and that its answer may be printed as it comes."""
    parser.epilog = epilog
    add_asking(parser)
    parser.add_argument("control", nargs="?", metavar="CONTROL", help=CONTROL_HELP)


def add_asking(parser: argparse.ArgumentParser) -> None:
    """Declare as who a broker is asked, and that its answer may be printed as it comes."""
    parser.add_argument("--json", action="store_true", help="print the broker's answer as JSON")
    add_identity(parser)


def control_socket(options: argparse.Namespace, address: str, patience: float = PATIENCE) -> ControlSocket:
    """Connect to a control socket as who the options say; raises as ControlSocket does."""
    return ControlSocket(address, patience, identity=options.identity, broker_identity=options.broker_identity)


def add_owner(parser: argparse.ArgumentParser) -> None:
    """Declare whose tasks are meant."""
    parser.add_argument("--owner", metavar="NAME", help="whose tasks are meant, where several have the same keys")


def task_named(task: str, is_key: bool, owner: str | None) -> dict[str, Any]:
    """Return the fields of a question that say which task is meant: its number, unless it is a key, and whose it is."""
    if task.isascii() and task.isdecimal() and not is_key:
        return {"number": int(task)}
    return {"key": task} if owner is None else {"key": task, "owner": owner}


def ask_one(options: argparse.Namespace, parser: argparse.ArgumentParser, ask: Ask, tell: Tell) -> int:
    """Have `ask` ask the broker that is meant, and print its answer as JSON or as `tell` says; return the exit status.

    If there is something wrong, that is one line.
    """
    addresses = [options.control] if options.control else control_addresses()
    if not addresses:
        return complain(parser, NOBODY)
    if len(addresses) > 1:
        return complain(parser, f"several brokers answer, say which one is meant: {' or '.join(addresses)}")
    try:
        with control_socket(options, addresses[0]) as control:
            answer = ask(control)
    except ControlError as refusal:
        complain(parser, str(refusal))
        return REFUSED
    except (ValueError, NoAnswerError) as error:
        return complain(parser, str(error))
    print_lines([json.dumps(answer)] if options.json else tell(answer))
    return DONE


def complain(parser: argparse.ArgumentParser, text: str) -> int:
    """Say in one line what is wrong; return the exit status."""
    streams.complain(f"{parser.prog}: {printable(text)}")
    return NO_ANSWER


def list_all(control: ControlSocket, what: str, most: int, **fields: Any) -> Answer:
    """Ask for one page after the other until there are so many things (0: all); return them as one answer."""
    answer: Answer = {"cursor": 0}
    found: list[Any] = []
    while answer["cursor"] is not None and (not most or len(found) < most):
        page = min(most - len(found), MOST_IN_PAGE) if most else MOST_IN_PAGE
        answer = control.ask(what, after=answer["cursor"], most=page, **fields)
        found += answer[what]
    return answer | {what: found}


def list_things(
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
    what: str,
    columns: Sequence[Column],
    row: Callable[[Answer], Row],
) -> int:
    """List all queues, or whatever there is, one in each row; return the exit status."""

    def tell(answer: Answer) -> list[str]:
        return Page().listing(columns, list(map(row, answer[what])))

    return ask_one(options, parser, partial(list_all, what=what, most=0), tell)


def print_lines(lines: list[str]) -> None:
    """Print lines."""
    streams.print_out("".join(f"{line}\n" for line in lines))
