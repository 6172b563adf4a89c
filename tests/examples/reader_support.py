"""Somebody does what examples/README.md says: starts programs, and gives the rest to a shell."""

import re
import shlex
import subprocess
from collections.abc import Callable

from examples_support import on_other_addresses, section
from helpers import PATIENCE, Program, bound_addresses

EXAMPLES = "examples/README.md"
PORTS = ("4161", "4162", "4163")


class Reader:
    """Somebody who does what the README of the examples says."""

    def __init__(self, start_program: Callable[..., Program], script: str) -> None:
        self._start, self._script = start_program, script
        self._addresses = dict.fromkeys(PORTS, "tcp://127.0.0.1:*")

    def start(self, heading: str, number: int = 0) -> Program:
        """Start the broker, or the workers, of the given block of a section; a broker again where it was before."""
        _, *arguments = shlex.split(section(EXAMPLES, heading).blocks["sh"][number])
        at = arguments.index("--") if "--" in arguments else len(arguments)
        program = self._start(self._script, *on_other_addresses(arguments[:at], self._addresses), *arguments[at:])
        if arguments[0] == "serve":
            self._addresses = dict(zip(PORTS, bound_addresses(program), strict=True))
        return program

    def run(self, heading: str, number: int) -> "subprocess.CompletedProcess[str]":
        """Have a shell do what the given block of a section says."""
        (lines,) = on_other_addresses([section(EXAMPLES, heading).blocks["sh"][number]], self._addresses)
        return subprocess.run(["sh", "-c", lines], capture_output=True, text=True, timeout=2 * PATIENCE, check=False)


def shown(heading: str, number: int = 0) -> "re.Pattern[str]":
    """Return what is shown in a section, as a pattern in which `...` is any text in a line."""
    return re.compile(re.escape(section(EXAMPLES, heading).blocks["text"][number]).replace(r"\.\.\.", ".*"))
