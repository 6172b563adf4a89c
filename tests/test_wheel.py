"""What is handed out: made of a copy of the tracked files by `make dist`, installed in each way, and tried.

`make test` installs the package in place: only here is it seen whether all the rooms get into the wheel, and into the
sdist all that the tests need.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import PATIENCE, TOP, Program, bound_addresses

from zmqbroker import __version__

pytestmark = pytest.mark.slow

ANY_PORTS = ("tcp://127.0.0.1:*",) * 3
LONGEST = 300.0  # seconds for what gets packages, or for it to give up
NOTHING_TO_GET = re.compile(r"No matching distribution|Could not fetch|ConnectionError|timed out|error sending request")
SOME = (
    "-n 0 -k 'test_house or test_package or links or readme'"  # of all, which are imported; these read much of the tree
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PICTURE = re.compile(r'\b(?:src|srcset)="([^"]+)"')
Start = Callable[..., Program]


def run(*command: object, **environment: object) -> "subprocess.CompletedProcess[str]":
    """Run a command without what `make` and pytest tell those that they start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    kept |= {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=LONGEST, check=False, env=kept
    )


def run_well(*command: object, **environment: object) -> str:
    """Run a command that must succeed, unless it cannot get a package, and return what it prints."""
    try:
        ran = run(*command, **environment)
    except subprocess.TimeoutExpired:
        pytest.skip(f"not done within {LONGEST:g} seconds: {' '.join(map(str, command))}")
    said = ran.stdout + ran.stderr
    if ran.returncode and (missing := NOTHING_TO_GET.search(said)):
        pytest.skip(f"a package cannot be had here ({missing[0]}): {' '.join(map(str, command))}")
    assert ran.returncode == 0, said
    return ran.stdout


def tracked() -> list[str]:
    """Return the paths of the files that git knows and that are there, below the top of the tree."""
    listed = run("git", "-C", TOP, "ls-files", "-z")
    paths = [path for path in listed.stdout.split("\0") if (TOP / path).is_file()]
    if "pyproject.toml" not in paths:  # an unpacked sdist, perhaps in somebody's repository
        pytest.skip(f"which files are tracked is not known: {listed.stderr.strip() or 'they are not'}")
    return paths


class Made(NamedTuple):
    """What `make dist` has made, and where."""

    tree: Path
    printed: str
    sdist: Path
    wheel: Path

    @property
    def commands(self) -> Path:
        """The directory of the commands of the environment that it was made with."""
        return self.tree / ".venv" / "bin"

    @property
    def metadata(self) -> Message:
        """What the wheel says of itself, and as its payload the description."""
        with zipfile.ZipFile(self.wheel) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return message_from_bytes(wheel.read(name))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Make an sdist and a wheel, away from the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for path in tracked():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / path, tree / path)
    for path in (tree / "laptop.secret", tree / "deploy" / "identities" / "broker.secret"):
        path.parent.mkdir(exist_ok=True)
        path.touch()  # what is not to be handed out
    printed = run_well("make", "--directory", tree, f"PYTHON={sys.executable}", "dist")
    (sdist,), (wheel,) = (list((tree / "dist").glob(kind)) for kind in ("*.tar.gz", "*.whl"))
    return Made(tree, printed, sdist, wheel)


@pytest.fixture(scope="module")
def installed(made: Made) -> Path:
    """Install the wheel, whose requirements are there already, and return the directory of its commands."""
    run_well(made.commands / "python", "-m", "pip", "install", "--no-index", made.wheel)
    return made.commands


@pytest.fixture(scope="module")
def installers(made: Made) -> Path:
    """Return the directory of uv, uvx and pipx."""
    run_well(made.commands / "python", "-m", "pip", "install", "--quiet", "uv", "pipx")
    return made.commands


@pytest.fixture(scope="module")
def places(installers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return the environment in which uv and pipx keep to themselves, and uv asks the index that pip asks."""
    own = tmp_path_factory.mktemp("places")
    names = ("UV_CACHE_DIR", "UV_TOOL_DIR", "PIPX_HOME", "PIPX_BIN_DIR", "PIPX_MAN_DIR")
    index = run(installers / "python", "-m", "pip", "config", "get", "global.index-url").stdout.strip()
    return {name: own / name for name in names} | ({"UV_DEFAULT_INDEX": index} if index else {})


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


def test_an_index_would_take_both(made):
    assert made.printed.count("PASSED") == 2


def test_the_wheel_has_every_file_of_the_package_and_no_other(made):
    files = {name for name in zipfile.ZipFile(made.wheel).namelist() if ".dist-info/" not in name}
    assert files == {path for path in tracked() if path.startswith("zmqbroker" + os.sep)}
    assert "zmqbroker/py.typed" in files


def test_the_wheel_says_its_licence_and_needs_pyzmq_alone(made):
    assert made.metadata["License-Expression"] == "MIT"
    assert made.metadata["License-File"] == "LICENSE"
    assert made.metadata["Version"] == __version__
    needs = [wanted for wanted in made.metadata.get_all("Requires-Dist", []) if "extra" not in wanted]
    assert [re.split(r"\W", wanted)[0] for wanted in needs] == ["pyzmq"]


def test_each_link_of_the_readme_into_the_tree_leads_to_the_tree_of_the_release(made):
    (home,) = (url.split(", ")[1] for url in made.metadata.get_all("Project-URL", []) if url.startswith("Homepage, "))
    shown, described = (LINK.findall(text) for text in ((TOP / "README.md").read_text(), made.metadata.get_payload()))
    expected = [f"README.md{link}" if link.startswith("#") else link for link in shown]
    assert described == [link if "://" in link else f"{home}/blob/v{__version__}/{link}" for link in expected]
    files = [link.partition("#")[0] for link in expected if "://" not in link]
    assert len(files) > 10
    assert [file for file in files if not (TOP / file).is_file()] == []


def test_the_pictures_of_the_readme_are_those_of_the_release(made):
    (home,) = (url.split(", ")[1] for url in made.metadata.get_all("Project-URL", []) if url.startswith("Homepage, "))
    shown, described = (
        PICTURE.findall(text) for text in ((TOP / "README.md").read_text(), made.metadata.get_payload())
    )
    assert described == [f"{home}/raw/v{__version__}/{file}" for file in shown]
    assert shown
    assert set(shown) <= set(tracked())


def test_the_sdist_has_every_file_of_the_tree_and_no_other(made):
    with tarfile.open(made.sdist) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}
    assert files == {*tracked(), "PKG-INFO"}


def test_an_unpacked_sdist_tests_itself(made, installers, places, tmp_path):
    with tarfile.open(made.sdist) as sdist:
        sdist.extractall(tmp_path)
    (top,) = tmp_path.iterdir()
    environment = places | {"VIRTUAL_ENV": top / ".venv"}
    test = ("make", "--directory", top, f"PYTHON={sys.executable}", f"PIP={installers / 'uv'} pip --quiet", "test")
    assert re.search(r"[1-9]\d* passed", run_well(*test, f"ARGS={SOME}", **environment))


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


def test_uvx_runs_the_command_without_installing_it(made, installers, places):
    assert run_well(installers / "uvx", "--from", made.tree, "zmqbroker", "--version", **places) == (
        f"zmqbroker {__version__}\n"
    )


def test_pipx_runs_the_command_without_installing_it(made, installers, places):
    assert run_well(installers / "pipx", "run", "--spec", made.tree, "zmqbroker", "--version", **places) == (
        f"zmqbroker {__version__}\n"
    )


def test_pipx_installs_the_command_with_an_extra(made, installers, places):
    run_well(installers / "pipx", "install", f"{made.tree}[completion]", **places)
    command = Path(str(places["PIPX_BIN_DIR"])) / "zmqbroker"
    assert run_well(command, "--version") == f"zmqbroker {__version__}\n"
    assert "_zmqbroker" in run_well(command, "completion", "bash")
