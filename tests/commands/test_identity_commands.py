"""`zmqbroker identity`, and the commands that connect as who they are told to be."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from control_commands_support import COMMAND, ENVIRONMENT, Ran
from helpers import PATIENCE, Program
from identity_support import Identities, listening

from zmqbroker.transport.identity import BROKER, OWN

pytestmark = pytest.mark.once


TASK = "builtins:bytes"


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities.make(tmp_path_factory.mktemp("identities"))


def options(identities: Identities) -> list[object]:
    return ["--identity", identities.mine.secret, "--broker-identity", identities.broker.public]


def test_new_makes_two_files_and_prints_their_names_and_show_prints_a_line(tmp_path: Path):
    name = tmp_path / "laptop"
    made = Ran("identity", "new", name)
    assert (made.status, made.err, made.out) == (0, "", f"{name}.public\n{name}.secret\n")
    assert stat.S_IMODE(os.stat(f"{name}.secret").st_mode) == 0o600
    shown = Ran("identity", "show", f"{name}.public")
    roles, key, called = shown.out.split()
    assert (shown.status, shown.err, roles, len(key), called) == (0, "", "client,worker", 40, "laptop")
    assert f'"{key}"' in (tmp_path / "laptop.secret").read_text()
    assert Ran("identity", "show", f"{name}.secret").out == shown.out
    assert Ran("identity", "show", "--roles", "observer,admin", f"{name}.public").out.split() == [
        "observer,admin",
        key,
        "laptop",
    ]


def test_new_overwrites_nothing_and_says_so_in_one_line(tmp_path: Path):
    name = tmp_path / "laptop"
    assert Ran("identity", "new", name).status == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = Ran("identity", "new", name)
    assert (again.status, again.out, again.err.count("\n")) == (2, "", 1)
    assert again.err.startswith(f"zmqbroker identity new: cannot write {name}.secret: file exists")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("roles", ["", "root", "client,", "client,client", "client worker"])
def test_what_is_no_role_is_refused(identities: Identities, roles: str):
    ran = Ran("identity", "show", "--roles", roles, identities.mine.public)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "is none of client, worker, observer, admin" in ran.err


def test_show_refuses_a_secret_file_that_others_may_read(tmp_path: Path):
    Ran("identity", "new", tmp_path / "laptop")
    (tmp_path / "laptop.secret").chmod(0o644)
    ran = Ran("identity", "show", tmp_path / "laptop.secret")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "may be read by others (mode 0644): chmod 600 it" in ran.err


@pytest.mark.slow  # three Pythons for each command
@pytest.mark.parametrize(
    "command",
    [
        ["work", "tcp://127.0.0.1:1", TASK],
        ["submit", "tcp://127.0.0.1:1", os.devnull],
        ["fetch", "tcp://127.0.0.1:1", "key"],
        ["status", "tcp://127.0.0.1:1"],
        ["status", "--watch", "tcp://127.0.0.1:1"],
        ["task", "list", "tcp://127.0.0.1:1"],
        ["task", "retry", "--all", "--control", "tcp://127.0.0.1:1"],
        ["queue", "list", "tcp://127.0.0.1:1"],
        ["worker", "list", "tcp://127.0.0.1:1"],
        ["drain", "tcp://127.0.0.1:1"],
    ],
    ids=" ".join,
)
def test_a_wrong_identity_is_one_line_and_status_2(identities: Identities, command: list[str]):
    for ran in (
        Ran(*command, "--identity", identities.mine.secret),
        Ran(*command, "--identity", "/none", "--broker-identity", identities.broker.public),
        Ran(*command, **{OWN: str(identities.mine.secret), BROKER: "/none"}),
    ):
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "only one of two identities" in ran.err or "cannot read /none: no such file" in ran.err


@pytest.mark.parametrize(
    ("command", "rest"), [("work", [TASK]), ("submit", []), ("fetch", ["key"])], ids=["work", "submit", "fetch"]
)
def test_who_is_not_known_is_told_and_in_the_end_that_is_the_reason(
    identities: Identities, command: str, rest: list[str]
):
    with listening(identities.broker) as (address, _, _):
        ran = subprocess.run(
            [*COMMAND, command, "-q", "--connect-timeout", "1", *map(str, options(identities)), address, *rest],
            env=os.environ | ENVIRONMENT,
            input="task\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert (ran.returncode, ran.stdout) == (2, "")
    told = f"the broker at {address} does not know this identity ({identities.mine.key}), or not in this role"
    first, *_, last = ran.stderr.splitlines()
    assert told in first
    assert last.startswith(f"zmqbroker {command}: {told}")


def test_work_hands_its_identity_to_its_processes(identities: Identities, start_program: Callable[..., Program]):
    with listening(identities.broker) as (address, router, door):
        assert door is not None
        door.known.add(identities.mine.key)
        start_program("zmqbroker/__main__.py", "work", *options(identities), address, TASK)
        assert b'"role"' in router.recv_multipart()[1]


def test_status_says_why_nobody_answers(identities: Identities):
    with listening(identities.broker) as (address, _, _):
        ran = Ran("status", *options(identities), address)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith(
            f"zmqbroker status: the broker at {address} does not know this identity ({identities.mine.key})"
        )
