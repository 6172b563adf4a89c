"""For the tests of commands that ask by the control socket: one that was run, and where control sockets are."""

import json
import os
import subprocess
import sys

import pytest
from helpers import PATIENCE, TOP

from zmqbroker.transport.places import ONLY_PLACE

COMMAND = [sys.executable, "-m", "zmqbroker"]
ENVIRONMENT = {"PYTHONPATH": str(TOP), "PYTHONIOENCODING": "utf-8"}


class Ran:
    """A command that was run to its end: stdout, stderr and the exit status."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        command = [*COMMAND, *map(str, arguments)]
        environment = os.environ | ENVIRONMENT | environment
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        self.out, self.err, self.status = ran.stdout, ran.stderr, ran.returncode

    @property
    def json(self) -> dict:
        assert (self.err, self.out.count("\n")) == ("", 1)
        return json.loads(self.out)


@pytest.fixture
def place(tmp_path_factory, monkeypatch) -> str:
    """Have control sockets in a new directory."""
    place = str(tmp_path_factory.mktemp("c"))
    monkeypatch.setenv(ONLY_PLACE, place)
    os.chmod(place, 0o700)
    return place
