"""Somebody does what examples/README.md says: starts programs, and gives the rest to a shell."""

import re
import shlex
import subprocess
from collections.abc import Callable

from examples_support import on_other_addresses, section
from helpers import PATIENCE, Program, bound_addresses, wait_until

from zmqbroker.transport.control import ControlSocket, control_addresses

EXAMPLES = "examples/README.md"
PORTS = ("4161", "4162", "4163")


class Reader:
    """Somebody who does what the README of the examples says."""

    def __init__(self, start_program: Callable[..., Program], script: str) -> None:
        self.broker: Program
        self.workers: Program
        self._start, self._script = start_program, script
        self._addresses = dict.fromkeys(PORTS, "tcp://127.0.0.1:*")

    def start(self, heading: str, number: int = 0) -> Program:
        """Start the broker, or the workers, of the given block of a section; a broker again where it was before."""
        words = shlex.split(section(EXAMPLES, heading).blocks["sh"][number])
        arguments = words[words.index("zmqbroker") + 1 :]  # what the environment is to be makes no difference here
        at = arguments.index("--") if "--" in arguments else len(arguments)
        program = self._start(self._script, *on_other_addresses(arguments[:at], self._addresses), *arguments[at:])
        if arguments[0] == "serve":
            self._addresses = dict(zip(PORTS, bound_addresses(program), strict=True))
        return program

    def wait_until_at_work(self, tasks: int) -> None:
        """Wait until workers have tasks in hand, by asking the broker: to start a program that does takes too long."""
        (address,) = control_addresses()
        with ControlSocket(address, PATIENCE) as control:
            wait_until(lambda: control.ask("status")["running"] == tasks)

    def on_other_addresses(self, text: str) -> str:
        """Return it with the addresses of the broker that was started."""
        return on_other_addresses([text], self._addresses)[0]

    def run(self, heading: str, number: int) -> "subprocess.CompletedProcess[str]":
        """Have a shell do what the given block of a section says."""
        lines = self.on_other_addresses(section(EXAMPLES, heading).blocks["sh"][number])
        return subprocess.run(["sh", "-c", lines], capture_output=True, text=True, timeout=2 * PATIENCE, check=False)


def shown(heading: str, number: int = 0) -> "re.Pattern[str]":
    """Return what is shown in a section, as a pattern in which `...` is any text in a line."""
    return re.compile(re.escape(section(EXAMPLES, heading).blocks["text"][number]).replace(r"\.\.\.", ".*"))
