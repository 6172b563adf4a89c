"""`zmqbroker drain`: has a broker finish what it has accepted, and end."""

import argparse

from zmqbroker.commands.asking import Answer, add_control, ask_one
from zmqbroker.commands.tables import counted
from zmqbroker.transport.control import ControlSocket


def add_drain_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `drain` takes."""
    add_control(parser)


def drain(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Have a broker drain; return the exit status."""
    address = ""

    def ask(control: ControlSocket) -> Answer:
        nonlocal address
        address = control.address
        return control.ask("drain")

    def tell(answer: Answer) -> list[str]:
        return [f"the broker at {address} drains: {counted(answer['unsettled'], 'task', 'tasks')} to finish"]

    return ask_one(options, parser, ask, tell)
