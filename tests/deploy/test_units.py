"""The services of systemd: it takes them, they are shut off from the rest of the machine, and what they start works."""

import http.client
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, TOP, Program
from notify_support import Manager

from zmqbroker.broker.broker import DEFAULT_DRAIN

pytest_plugins = ["notify_fixtures"]

UNITS = sorted((TOP / "deploy").glob("*.service"))
BROKER, WORKER, PAGE = "zmqbroker.service", "zmqbroker-worker@.service", "zmqbroker-web.service"
MAIN, LOOPBACK, TOKEN = "zmqbroker/__main__.py", "tcp://127.0.0.1:*", "correct-horse-battery-staple"
INSTALLED = "/opt/zmqbroker/bin/zmqbroker"
MOST_EXPOSED = 15  # tenths, of which 100 are the worst
ROOT_LOOKS = """\
import os, subprocess, sys

sys.path[:0] = {paths!r}
from zmqbroker.commands.command_lines import parse
from zmqbroker.commands.main import main
from zmqbroker.transport.control import ControlSocket, control_addresses

parse("zmqbroker", ["serve", "tcp://1", "tcp://2", "tcp://3"])  # imports what it needs while root may still do so
if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"]).returncode:
    sys.exit({cannot})
os.mkdir("/run/zmqbroker", 0o700)
os.chown("/run/zmqbroker", 4161, 4161)
reading, writing = os.pipe()
if os.fork() == 0:
    os.dup2(writing, 1)
    os.setgroups([])
    os.setgid(4161)
    os.setuid(4161)
    control = ["--control", "ipc:///run/zmqbroker/control"]
    sys.exit(main(["serve", *control, *["tcp://127.0.0.1:*"] * 3]))
os.close(writing)
for line in open(reading):
    if line.startswith("control"):
        (address,) = control_addresses()
        with ControlSocket(address, {patience}) as control:
            print(address, os.getuid(), control.ask("status")["state"])
        break
"""
CANNOT = 99  # exit status
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 4 * PATIENCE}
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


def analyze(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *map(str, arguments)], **CAPTURED)


def settings(unit: str) -> dict[str, list[str]]:
    """Return what a unit sets, in whatever section."""
    found: dict[str, list[str]] = {}
    for line in (TOP / "deploy" / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def variables(unit: str) -> dict[str, str]:
    """Return what a unit sets in the environment."""
    text = " ".join(settings(unit)["Environment"])
    return dict(re.findall(r'"(\w+)=([^"]*)"', text)) or dict(re.findall(r"(\w+)=(\S*)", text))


def started(unit: str, **replaced: str) -> list[str]:
    """Return the arguments of what a unit starts, with words and variables replaced."""
    (line,) = settings(unit)["ExecStart"]
    known = variables(unit) | replaced
    program, *words = line.split()
    assert program == INSTALLED
    each = (known[word[1:]].split() if word[1:] in known else [replaced.get(word, word)] for word in words)
    return [word for several in each for word in several]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_without_a_word(unit: Path, tmp_path: Path):
    program = tmp_path / "bin" / "zmqbroker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    installed = tmp_path / unit.name
    installed.write_text(unit.read_text().replace(INSTALLED, str(program)))
    verified = analyze("verify", "--man=no", installed)
    assert (verified.stdout, verified.stderr, verified.returncode) == ("", "", 0)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_is_shut_off_from_the_rest_of_the_machine(unit: Path):
    checked = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_broker_is_waited_for_until_it_has_drained():
    (seconds,) = settings(BROKER)["TimeoutStopSec"]
    assert int(seconds) > DEFAULT_DRAIN + 10


@pytest.mark.parametrize("unit", [BROKER, WORKER])
def test_what_the_units_want_to_hear_is_said(unit: str):
    assert settings(unit)["Type"] == ["notify"]
    assert settings(unit)["WatchdogSec"] == ["30"]


def test_what_the_units_start_works_together(manager: Manager, start_program, tmp_path: Path, monkeypatch):
    control = f"ipc://{tmp_path}/control"
    addresses = " ".join([LOOPBACK] * 3)
    broker = start_program(
        MAIN,
        *started(BROKER, ADDRESSES=addresses, **{"ipc:///run/zmqbroker/control": control}),
    )
    manager.wait_for("READY")
    assert broker.wait_for("^control +(.*)$")[1] == control
    broker.wait_for("^limits +3 tries a task, 60 s an attempt")
    ready = broker.wait_for("^ready +(.*)$")[1]
    worker = start_program(
        MAIN,
        *started(WORKER, READY=ready, WORK="-- cat", OPTIONS="--processes 2", **{"%i": "shrink"}),
    )
    manager.wait_for("READY")
    worker.wait_for("2 processes for cat$")
    assert (worker.end(), broker.end()) == (0, 0)


def test_the_page_of_the_unit_asks_the_broker_of_its_unit_as_the_same_user_and_wants_a_token(
    start_program: Callable[..., Program], tmp_path: Path
):
    for name in ("User", "DynamicUser"):
        assert settings(PAGE)[name] == settings(BROKER)[name]
    there = variables(PAGE)["CONTROLS"]
    assert there in started(BROKER)
    control, token = f"ipc://{tmp_path}/control", tmp_path / "web.token"
    token.write_text(TOKEN)
    token.chmod(0o400)
    start_program(MAIN, *started(BROKER, ADDRESSES=" ".join([LOOPBACK] * 3), **{there: control})).wait_for("^control")
    given = {"OPTIONS": "--listen 127.0.0.1:0", "${CREDENTIALS_DIRECTORY}/web.token": str(token)}
    page = start_program(MAIN, *started(PAGE, CONTROLS=control, **given))
    port = page.wait_for(r"the page is at http://127\.0\.0\.1:(\d+)/$")[1]
    metrics = [got(int(port), "/metrics", headers) for headers in ({"authorization": f"Bearer {TOKEN}"}, {})]
    assert [status for status, _ in metrics] == [200, 401]
    assert "zmqbroker_up 1.0" in metrics[0][1].splitlines()
    assert page.end() == 0


def got(port: int, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Return the status and the text of what a page answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="only root can be each user")
def test_root_finds_the_broker_of_another_user_without_being_told_where(monkeypatch: pytest.MonkeyPatch):
    for name in ("ZMQBROKER_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    script = ROOT_LOOKS.format(paths=[str(TOP)], cannot=CANNOT, patience=PATIENCE)
    namespace = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
    ]  # a /run of its own; what it starts ends with it
    ran = subprocess.run([*namespace, sys.executable, "-c", script], **CAPTURED)
    if ran.returncode == CANNOT or "unshare" in ran.stderr:
        pytest.skip(f"there can be no /run of its own: {ran.stderr.strip()}")
    assert (ran.stdout, ran.returncode) == ("ipc:///run/zmqbroker/control 0 serving\n", 0), ran.stderr
