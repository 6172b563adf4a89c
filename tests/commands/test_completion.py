"""`zmqbroker completion` in the shells: a key is pressed on a terminal, and what is then run is looked at."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from control_commands_support import ENVIRONMENT, Ran
from helpers import TOP, wait_until

pytestmark = pytest.mark.once

# Stands in for the command: it prints which arguments it got, but completions are the real ones.
SCRIPT = f"""\
#!/bin/sh
if [ "$1" = completion ]; then exec {sys.executable} -m zmqbroker "$@"; fi
printf '<%s>' "$@"
echo ' were the arguments'
"""
SHELLS = ["bash", "zsh", "fish"]
BEFORE = {"bash": "", "zsh": "autoload -U compinit; compinit -u\n", "fish": ""}  # what its user has in `.bashrc` or so
TYPED = {  # and what the command gets, once the shell has completed it
    "que\t": ["queue"],
    "queue pau\t": ["queue", "pause"],
    "identity sh\ttas\t": ["identity", "show", "tasks-of-may.txt"],
    "submit --connect-t\t3 --dur\t": ["submit", "--connect-timeout", "3", "--durable"],
    "submit tcp://127.0.0.1:1 tas\t": ["submit", "tcp://127.0.0.1:1", "tasks-of-may.txt"],
    "serve --store tas\t": ["serve", "--store", "tasks-of-may.txt"],
    "task list --sta\twait\t": ["task", "list", "--state", "waiting"],
}


class Shell:
    """A shell that somebody types into, in a terminal of 200 columns."""

    def __init__(self, shell: str, home: Path) -> None:
        self._output = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        places = {"HOME": home, "XDG_CONFIG_HOME": home / ".config", "XDG_DATA_HOME": home, "ZDOTDIR": home}
        path = f"{home / 'bin'}:{os.environ['PATH']}"
        # `setsid` has it control the terminal: fish wants that.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", shell, "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=home,
            env=os.environ | ENVIRONMENT | {name: str(place) for name, place in places.items()} | {"PATH": path},
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str) -> None:
        try:
            wait_until(lambda: text in self._read())
        except AssertionError:
            raise AssertionError(f"{text!r} is not in:\n{self._output}") from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> str:
        """Return all that was printed so far."""
        with suppress(OSError):  # nothing more yet, or the shell has ended
            self._output += os.read(self._ours, 1 << 16).decode(errors="replace")
        return self._output


def install_line(shell: str) -> str:
    """Return the line of the guide for a shell."""
    lines = re.findall(
        r"^.*zmqbroker completion (?:bash|zsh|fish).*$", (TOP / "docs/guide.md").read_text(), re.MULTILINE
    )
    (line,) = (line for line in lines if f"completion {shell}" in line)
    return line


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """Start a shell of a user who has done what the guide says."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    pytest.importorskip("shtab")
    command = tmp_path / "bin" / "zmqbroker"
    command.parent.mkdir()
    command.write_text(SCRIPT)
    command.chmod(0o755)
    (tmp_path / "tasks-of-may.txt").touch()
    (tmp_path / f".{name}rc").write_text(f"PS1='$ '\n{BEFORE[name]}")
    environment = os.environ | ENVIRONMENT | {"HOME": str(tmp_path), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", install_line(name)], env=environment, check=True)
    shell = Shell(name, tmp_path)
    yield shell
    shell.close()


def test_a_shell_completes_commands_options_and_files(shell: Shell):
    shell.type("printf '%s it is\\n' ready\r")
    shell.wait_for("ready it is")
    for typed, arguments in TYPED.items():
        shell.type(f"zmqbroker {typed}\r")
        shell.wait_for("".join(f"<{argument}>" for argument in arguments) + " were the arguments")


@pytest.mark.parametrize("shell_name", SHELLS)
def test_without_shtab_one_line_says_what_to_install(shell_name: str, tmp_path: Path):
    (tmp_path / "shtab.py").write_text("raise ImportError\n")
    ran = Ran("completion", shell_name, PYTHONPATH=f"{tmp_path}:{TOP}")
    assert (ran.status, ran.out) == (2, "")
    assert (
        ran.err == "zmqbroker completion: shtab 1.9.3 or newer is not installed: pip install 'zmqbroker[completion]'\n"
    )


def test_an_unknown_shell_is_one_line_that_names_those_that_are_known():
    ran = Ran("completion", "tcsh")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert all(shell in ran.err for shell in SHELLS)
