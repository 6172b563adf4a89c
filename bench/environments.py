"""Where the systems under measurement are installed: each one's packages in a virtual environment of its own."""

import subprocess
import sys
import venv
from pathlib import Path

from bench.stage import ROOT
from bench.systems.system import Server, System, find_program

ENVIRONMENTS = ROOT / ".venv-peers"
INSTALL_WAIT = 600.0  # seconds; for one command
FAILURES = (OSError, subprocess.SubprocessError)


class AbsentError(Exception):
    """A system is not there; says why."""


def prepare(system: System, install: bool, directory: Path) -> str:
    """Return the interpreter for a system's processes; raises AbsentError when it, or its server, is not there.

    `directory` is where the environments of all systems are.
    """
    if reason := system.server and not find_program(system.server.program) and _add_server(system.server, install):
        raise AbsentError(reason)
    if not system.packages:
        return sys.executable
    python = directory.absolute() / "-".join(system.packages).replace("[", "-").replace("]", "") / "bin" / "python"
    marker = python.parent.parent / "complete"
    if not marker.exists():
        if not install:
            raise AbsentError(f"{', '.join(system.packages)} not installed; --install does that")
        _make_environment(python, system.packages)
        marker.touch()
    return str(python)


def server_version(server: Server) -> str:
    """Return what a server says about its version."""
    ran = subprocess.run(
        [find_program(server.program) or server.program, server.version_option],
        capture_output=True,
        text=True,
        timeout=INSTALL_WAIT,
    )
    words = (ran.stdout + ran.stderr).replace("v=", "").split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "unknown")


def _add_server(server: Server, install: bool) -> str:
    """Install a server with apt-get when asked to; return why it is not there, empty when it is."""
    if not install:
        return f"{server.program} not installed; --install does that"
    try:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", server.package]
        subprocess.run(command, check=True, timeout=INSTALL_WAIT, stdout=subprocess.DEVNULL)
    except FAILURES as error:
        return f"{server.program} not installed: {error}"
    return "" if find_program(server.program) else f"{server.package} has no {server.program}"


def _make_environment(python: Path, packages: tuple[str, ...]) -> None:
    try:
        venv.create(python.parent.parent, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *packages]
        subprocess.run(command, check=True, timeout=INSTALL_WAIT)
    except FAILURES as error:
        raise AbsentError(f"{', '.join(packages)} not installed: {error}") from error
