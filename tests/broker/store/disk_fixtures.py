"""A disk of its own for a test: the fixture, which test modules name as a plugin."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that makes a tiny disk of so many bytes."""
    with ExitStack() as stack:

        def make_disk(size: int) -> Path:
            place = tmp_path / "disk"
            place.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
            if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
                pytest.skip("a disk that is full takes a file system of its own, so root and the right to mount one")
            # A test that has failed may have left it open.
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
            return place

        yield make_disk
