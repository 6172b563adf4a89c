"""`zmqbroker drain`: has a broker finish what it has accepted, and end."""

import argparse

from zmqbroker.commands.asking import DONE, add_control, ask_one, print_json, print_lines
from zmqbroker.commands.tables import counted
from zmqbroker.transport.control import ControlSocket

DRAIN = "have a broker finish what it has accepted, and end, as a first SIGTERM does"


def add_drain_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `drain` takes."""
    add_control(parser)


def drain(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Have a broker drain; return the exit status."""

    def use(control: ControlSocket) -> int:
        answer = control.ask("drain")
        if options.json:
            print_json(answer)
        else:
            left = counted(answer["unsettled"], "task", "tasks")
            print_lines([f"the broker at {control.address} drains: {left} to finish"])
        return DONE

    return ask_one(options, parser, use)
