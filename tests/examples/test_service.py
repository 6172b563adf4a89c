"""The example with a web service: a limit and a browser that has left cancel the task, and free its worker."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from examples_support import section
from helpers import PATIENCE, wait_until
from reader_support import EXAMPLES, Reader, shown

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

pytest_plugins = ["command_fixtures", "examples_fixtures"]
pytestmark = pytest.mark.slow

SERVICE = "A web service"
WORKERS, UVICORN, ASK = range(3)  # the blocks


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def port(reader: Reader) -> Iterator[int]:
    """Have broker, workers and service started, and return the port of the service."""
    reader.start("Examples")
    reader.workers = reader.start(SERVICE, WORKERS)
    port = free_port()
    variable, _, *arguments = section(EXAMPLES, SERVICE).blocks["sh"][UVICORN].replace("8000", str(port)).split()
    name, _, address = variable.partition("=")
    environment = os.environ | {name: reader.on_other_addresses(address)}
    service = subprocess.Popen([sys.executable, "-m", "uvicorn", *arguments], env=environment)
    wait_until(lambda: answers(port))
    yield port
    service.send_signal(signal.SIGINT)
    service.wait(PATIENCE)


def ask(lines: str, port: int) -> str:
    lines = lines.replace("8000", str(port))
    return subprocess.run(["sh", "-c", lines], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout


def test_a_request_is_answered_within_its_limit_and_what_nobody_waits_for_is_cancelled(reader: Reader, port: int):
    asked = section(EXAMPLES, SERVICE).blocks["sh"][ASK]
    assert shown(SERVICE).fullmatch(ask(asked, port))
    reader.workers.wait_for("nobody wants the result")
    (first, second, _) = asked.splitlines()
    left = subprocess.Popen(["sh", "-c", f"exec {second.replace('8000', str(port)).removesuffix('; echo')}"])
    reader.wait_until_at_work(1)
    left.kill()
    left.wait(PATIENCE)
    reader.workers.wait_for("nobody wants the result", times=2)
    assert re.search(r"\[7,13\]", ask(first, port))
