"""The wheel: built of a copy of the tracked files, it does tasks in an environment that has nothing else of ours.

`make test` installs the package in place, so only here is it seen whether all the rooms get into the wheel.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers import PATIENCE, TOP, Program, bound_addresses

pytestmark = pytest.mark.slow

ANY_PORTS = ("tcp://127.0.0.1:*",) * 3
BUILDS = "setuptools>=70.1"  # which needs no second package to make a wheel
LONGEST = 300.0  # seconds for pip to get two packages, or to give up
Start = Callable[..., Program]


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=LONGEST, check=False)


def run_well(*command: object) -> str:
    """Run a command that must succeed, and return what it prints."""
    ran = run(*command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def tracked() -> list[str]:
    """Return the paths of the files that git knows and that are there, below the top of the tree."""
    listed = run("git", "-C", TOP, "ls-files", "-z")
    if listed.returncode:
        pytest.skip(f"which files are tracked is not known: {listed.stderr.strip()}")
    return [path for path in listed.stdout.split("\0") if (TOP / path).is_file()]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment, which has pyzmq and what builds a wheel."""
    environment = tmp_path_factory.mktemp("environment")
    run_well(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    try:
        got = run(python, "-m", "pip", "install", "--quiet", "pyzmq", BUILDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip cannot get pyzmq and setuptools here within {LONGEST:g} seconds")
    if got.returncode:
        pytest.skip(f"pip cannot get pyzmq and setuptools here: {got.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Path:
    """Build the wheel, away from the tree, and return its path."""
    copy, built = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("built")
    for path in tracked():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / path, copy / path)
    run_well(python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, copy)
    (wheel,) = built.iterdir()
    return wheel


@pytest.fixture(scope="module")
def installed(python: Path, wheel: Path) -> Path:
    """Install the wheel, whose requirements are there already, and return the directory of its commands."""
    run_well(python, "-m", "pip", "install", "--no-index", wheel)
    return python.parent


@pytest.fixture
def start(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a subcommand of what was installed; it ends with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with ExitStack() as stack:

        def start(*arguments: object) -> Program:
            program = Program(str(installed / "zmqbroker"), *arguments, python=installed / "python")
            stack.callback(program.clean_up)
            return program

        yield start


def test_the_wheel_has_every_file_of_the_package(wheel):
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files == {path for path in tracked() if path.startswith("zmqbroker" + os.sep)}


def test_the_installed_command_shows_its_help(installed):
    printed = run_well(installed / "zmqbroker", "--help")
    assert all(subcommand in printed for subcommand in ("serve", "work", "submit"))


def test_the_installed_command_does_a_task(installed, start, tmp_path):
    (tmp_path / "words.py").write_text("def count(body):\n    return b'%d' % len(body.split())\n")
    requests, ready, _ = bound_addresses(start("serve", "--drain", 0, *ANY_PORTS))
    start("work", ready, "words:count")
    ran = subprocess.run(
        [installed / "zmqbroker", "submit", requests],
        input="three words here\n\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("3\n0\n", "", 0)
