"""`zmqbroker work` in a directory of its own: the fixtures, which test modules name as a plugin."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Running
from helpers import TOP
from work_support import Fifo, Work

from zmqbroker import Client

SCRIPT = f"""\
import sys
sys.path.append({str(TOP)!r})
from zmqbroker.commands.main import main
sys.exit(main())
"""

TASKS = """\
import os, signal, time
from pathlib import Path

import zmqbroker

number = 4161

def echo(body):
    return body

def bad(body):
    raise ValueError("bad input")

def reject(body):
    raise zmqbroker.Reject("not now, not ever")

def leave(body):
    raise SystemExit(0)

def fork(body):
    child = os.fork()
    if child == 0:
        raise SystemExit(0)
    return b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def crash(body):
    os.kill(os.getpid(), signal.SIGKILL)

def crash_once(body):
    try:
        Path("crashed").touch(exist_ok=False)
    except FileExistsError:
        return b"at the second attempt"
    os._exit(3)

def process_id(body):
    return str(os.getpid()).encode()

def gated(body):
    os.write(1, b"got a task\\n")  # in one piece, beside what the supervisor logs
    with open("gate", "rb", 0) as gate:
        gate.read(1)
    return b"done"

calls = 0

def queue(body):
    global calls
    calls += 1
    return f"{calls} {zmqbroker.current_task().queue}".encode()

def slow(body):
    time.sleep(1)
    return b"done"

class Things:
    def __init__(self, prefix):
        self.prefix = prefix

    def add(self, body):
        return self.prefix + body
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a directory with tasks.py; the program itself lies elsewhere."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "zmqbroker").write_text(SCRIPT)
    work = tmp_path / "work"
    (work / "package").mkdir(parents=True)
    (work / "tasks.py").write_text(TASKS)
    (work / "package" / "deep.py").write_text("import tasks\nthings = tasks.Things(b'more ')\n")
    (work / "broken.py").write_text("\nundefined\n")
    (work / "leaves.py").write_text("raise SystemExit(0)\n")
    (work / "greens.py").write_text("import _thread\n_thread.start_new_thread = lambda *_: 0\nfrom tasks import echo\n")
    (work / "greedy.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))\nfrom tasks import echo\n"
    )
    (work / "queue.py").write_text("raise RuntimeError('not the one of Python')\n")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(directory: Path, start_program: Work) -> Work:
    """Return a function that starts `zmqbroker work`; it ends with the test."""
    return partial(start_program, str(directory.parent / "bin" / "zmqbroker"), "work")


@pytest.fixture
def work(running: Running, run: Work) -> Work:
    """Return a function that starts it for a broker with the default options."""
    return lambda *arguments: run(running.addresses.ready, *arguments)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """Return a client of that broker."""
    with Client(running.addresses.requests) as client:
        yield client


@pytest.fixture
def gate(run: Work, directory: Path) -> Iterator[Fifo]:
    """Return what `gated` waits for; it opens when the test ends."""
    fifo = Fifo(directory / "gate", os.O_RDWR)
    yield fifo
    fifo.close()


@pytest.fixture
def news(run: Work, directory: Path) -> Iterator[Fifo]:
    """Return what commands write to."""
    fifo = Fifo(directory / "news", os.O_RDONLY)
    yield fifo
    fifo.close()
