"""What the main process knows about a system, and a system that has been started."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from bench.stage import ROOT, START_WAIT, Process, Stage, StageError
from bench.systems.link import Settings

LOOPBACK = "127.0.0.1"
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # servers may be there, out of a user's own path
PAUSE = 0.02  # seconds between two looks at a server that is starting


def find_program(name: str) -> str | None:
    """Return the path of a program, also of one for administrators."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


@dataclass
class Play:
    """A system that is being started, or runs: the processes, and what they must know of each other."""

    stage: Stage
    python: str  # the interpreter of the system's environment
    directory: Path  # for whatever the processes write
    settings: Settings

    def start_python(self, *arguments: str, talks: bool = False, name: str | None = None) -> Process:
        """Start the system's interpreter, which finds this package, and the settings in its environment."""
        path = f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}"  # for programs that packages bring along
        variables = {"BENCH_SETTINGS": json.dumps(self.settings), "PYTHONPATH": str(ROOT), "PATH": path}
        return self.stage.start_program(self.python, *arguments, talks=talks, environment=variables, name=name)

    def start_client(self, target: str) -> Process:
        """Start the client process."""
        arguments = ["-m", "bench.systems.driver", target, json.dumps(self.settings)]
        return self.start_python(*arguments, talks=True, name="the client")

    def start_server(self, *command: str) -> Process:
        """Start a server that listens on the port of the settings, and return it when it does."""
        program = find_program(command[0]) or command[0]
        server = self.stage.start_program(program, *command[1:], talks=False)
        until = monotonic() + START_WAIT
        while monotonic() < until and not server.has_ended():
            with suppress(OSError), socket.create_connection((LOOPBACK, self.settings["port"]), START_WAIT):
                return server
            sleep(PAUSE)
        raise StageError(f"{command[0]}: does not listen")

    def choose_port(self) -> str:
        """Choose a port of the loopback interface that is free now, put it into the settings and return it."""
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            self.settings["port"] = probe.getsockname()[1]
        return str(self.settings["port"])


def start_nothing(play: Play) -> None:
    """Stand for a server that there is not, or that the client starts."""


def start_no_workers(play: Play, count: int) -> None:
    """Stand for workers that the client starts; how many is in its settings."""


@dataclass(frozen=True)
class Server:
    """A program that the system's package manager installs."""

    program: str
    package: str
    version_option: str = "--version"


@dataclass(frozen=True)
class System:
    """A system: how to install, start, and reach it."""

    name: str
    title: str
    setup: str  # what was set, in the words of the system's documentation
    connect: str  # module:function, which returns a Link
    start_workers: Callable[[Play, int], object] = start_no_workers  # so many processes, ready or not
    start_server: Callable[[Play], Process | None] = start_nothing
    packages: tuple[str, ...] = ()  # for pip
    server: Server | None = None
    shows_memory: bool = True  # there is a server whose memory can be measured
    waits_behind: bool = False  # there must be workers for tasks to wait, and those must be busy
    has_parents: bool = False  # a worker is a parent process whose children do the tasks; either may be killed
    chunked: str = ""  # how tasks are sent in chunks of {chunk}
    why_no_chunks: Callable[[], str] = str  # empty: they can be
    stored: str = ""  # what is on the disk, and when; empty: nothing is said to be
