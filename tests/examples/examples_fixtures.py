"""Somebody who does what examples/README.md says, in a copy of the examples."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TOP, Program
from reader_support import Reader

from zmqbroker.transport.places import ONLY_PLACE


@pytest.fixture
def reader(
    start_program: Callable[..., Program],
    zmqbroker_script: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Reader:
    """Return a reader, in a directory that has a copy of the examples."""
    shutil.copytree(TOP / "examples", tmp_path / "examples")
    place = tmp_path_factory.mktemp("c")  # the paths of sockets are short
    os.chmod(place, 0o700)
    monkeypatch.setenv(ONLY_PLACE, str(place))
    return Reader(start_program, zmqbroker_script)
