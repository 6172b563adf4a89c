"""For the tests of `zmqbroker submit` and `fetch`: the commands, as a user starts them, and workers in this process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import Running
from helpers import PATIENCE, TOP
from library_support import working

Submit = Callable[..., "subprocess.Popen[bytes]"]

SUBMIT, FETCH = ([sys.executable, "-m", "zmqbroker", command] for command in ("submit", "fetch"))


def handle(body: bytes) -> bytes:
    """Shout; or fail, as the body says."""
    if body.startswith(b"bad"):
        raise ValueError("bad input")
    return body.upper()


@pytest.fixture
def shouting(running: Running) -> Iterator[Running]:
    """Have a worker that shouts."""
    with working(running.addresses.ready, handle):
        yield running


@pytest.fixture
def submit() -> Iterator[Submit]:
    """Return a function that starts `zmqbroker submit`; it ends with the test."""
    with starting(SUBMIT) as start:
        yield start


@pytest.fixture
def fetch() -> Iterator[Submit]:
    """Return a function that starts `zmqbroker fetch`; it ends with the test."""
    with starting(FETCH) as start:
        yield start


@contextmanager
def starting(command: list[str]) -> Iterator[Submit]:
    """Give a function that starts this command; what it has started ends with the `with` block."""
    with ExitStack() as stack:

        def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
            environment = os.environ | {"PYTHONPATH": str(TOP)}
            process = subprocess.Popen([*command, *map(str, arguments)], env=environment, **pipes)  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def run(process: "subprocess.Popen[bytes]", text: bytes = b"") -> tuple[bytes, bytes, int]:
    """Give it its stdin, and wait: stdout, stderr and the exit status."""
    out, err = process.communicate(text, timeout=PATIENCE)
    return out, err, process.returncode
