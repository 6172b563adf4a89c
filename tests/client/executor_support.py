"""A broker and workers for calls, for the tests of `Executor`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from helpers import PATIENCE, TOP, Program

HERE = Path(__file__).parent
SCRIPT = """\
import sys
from zmqbroker.commands.main import main
sys.exit(main())
"""


@contextmanager
def calling(ready: str, directory: Path, *options: object) -> Iterator[Program]:
    """Run `zmqbroker work --python` until the `with` block ends; it can import what the tests of this room can."""
    script = directory / "zmqbroker-work"
    script.write_text(f"import sys\nsys.path[:0] = {[str(TOP), str(HERE), str(TOP / 'tests')]!r}\n{SCRIPT}")
    program = Program(str(script), "work", ready, "--python", *options)
    try:
        program.wait_for(r" process(es)? for calls$")
        yield program
    finally:
        program.clean_up()


def waits_for(path: str) -> str:
    """Say that it has begun, and wait until a file is there: what a call does that is to be seen running."""
    Path(f"{path}.begun").touch()
    until = monotonic() + PATIENCE
    while not Path(path).exists() and monotonic() < until:
        sleep(0.005)  # in a worker, which can be told in no other way
    return f"done by {os.getpid()}"


def python() -> str:
    return f"CPython {sys.version_info[0]}.{sys.version_info[1]}"
