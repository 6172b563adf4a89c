"""The steps of the Containerfile, run in a clean directory: what they make serves, and its health check tells.

No container engine is needed: what is at the top of a container is below a directory of the test, where each stage
finds nothing but what it has made or copied, and the user is whoever runs the test.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from conftest import Peers
from helpers import PATIENCE, TOP, Program, bound_addresses

pytestmark = pytest.mark.slow

LONGEST = 300.0  # seconds for pip to get what is needed
USER = "4161"
PLACES = r"(?<![\w/])/(?=(?:source|opt|run|var)\b)"  # what is the container's own
NOTHING_TO_GET = re.compile(r"No matching distribution found|Could not fetch|ConnectionError|timed out")


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Containerfile, and what follows each."""
    text = re.sub(r"^#.*\n", "", (TOP / "deploy" / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def argument(instruction: str) -> str:
    """Return what follows the last instruction of a kind."""
    return [rest for name, rest in instructions() if name == instruction][-1]


class Image:
    """What the steps make, below a directory."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "r"  # the paths of sockets are short
        self.environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._set_aside = directory / "stages"
        self._stage = self._current = ""

    def inside(self, text: str) -> str:
        """Return a text with the container's paths as they are here, and its user."""
        return re.sub(PLACES, f"{self.root}/", text).replace(USER, str(os.getuid()))

    def build(self) -> None:
        """Take each step."""
        for name, rest in instructions():
            step = getattr(self, name.lower(), None)
            if step is not None:
                step(rest)

    def from_(self, rest: str) -> None:
        """Begin a stage with nothing, and set aside what the last one has made."""
        if self._stage:
            shutil.move(self.root, self._set_aside / self._stage)
        for place in ("opt", "run", "var"):
            (self.root / place).mkdir(parents=True)
        self._set_aside.mkdir(exist_ok=True)
        self._stage = rest.partition(" AS ")[2] or "last"
        self._current = str(self.root)

    def workdir(self, rest: str) -> None:
        self._current = self.inside(rest)
        Path(self._current).mkdir()

    def env(self, rest: str) -> None:
        name, value = rest.split("=", 1)
        self.environment[name] = self.inside(value).replace(f"${name}", self.environment[name])

    def copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        top = TOP
        if sources[0].startswith("--from="):
            top = self._set_aside / sources.pop(0).removeprefix("--from=")
        into = Path(self._current, self.inside(target))
        for source in sources:
            found = top / source.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, into, symlinks=True)
            else:
                shutil.copy(found, into)

    def run(self, rest: str) -> None:
        ran = self.shell(self.inside(rest), LONGEST)
        if ran.returncode and NOTHING_TO_GET.search(ran.stdout + ran.stderr):
            pytest.skip(f"pip cannot get what is needed here: {ran.stderr.strip().splitlines()[-1]}")
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def shell(self, command: str, longest: float = PATIENCE) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self._current,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=longest,
            check=False,
        )

    def health(self) -> int:
        """Return the exit status of the health check."""
        _, _, command = argument("HEALTHCHECK").partition("CMD ")
        return self.shell(command).returncode


setattr(Image, "from", Image.from_)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Build it."""
    with tempfile.TemporaryDirectory(prefix="zi-") as directory:
        image = Image(Path(directory))
        image.build()
        yield image


@pytest.fixture
def broker(image: Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """Start what it starts, on free ports."""
    place = image.inside("/run/zmqbroker")  # which would be found without a word, were it not below a directory
    monkeypatch.setitem(image.environment, "ZMQBROKER_RUNTIME_DIR", place)
    monkeypatch.setenv("ZMQBROKER_RUNTIME_DIR", place)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(image.root)
    (entry,) = json.loads(argument("ENTRYPOINT"))
    command = [re.sub(r"tcp://\*:\d+", "tcp://127.0.0.1:*", word) for word in json.loads(argument("CMD"))]
    installed = shutil.which(entry, path=image.environment["PATH"])
    assert installed == image.inside("/opt/zmqbroker/bin/zmqbroker")
    broker = Program(installed, *command, python=Path(installed).parent / "python")
    yield broker
    broker.clean_up()


def test_what_the_steps_make_serves_and_is_healthy_until_it_does_not_answer(image: Image, broker: Program):
    requests, _, _ = bound_addresses(broker)
    assert image.health() == 0
    with Peers() as peers:
        client = peers.open(zmq.DEALER, requests)
        client.send_multipart([b"", b"a task that no worker asks for"])
        client.send(b"malformed: its answer tells that the task has been taken in")
        assert client.recv_multipart() == [b"", b""]
        assert image.shell("zmqbroker status").returncode == 1
        assert image.health() == 0
    broker.process.kill()
    broker.wait()
    assert image.health() == 1


def test_it_runs_as_a_user_who_has_the_directories_that_it_writes_to_and_is_not_root(image: Image):
    assert argument("USER") == f"{USER}:{USER}"
    assert argument("RUN") == f"install -d -m 0700 -o {USER} -g {USER} /run/zmqbroker /var/lib/zmqbroker"
    assert Path(image.inside("/run/zmqbroker")).is_dir()


def test_it_has_what_the_page_and_workers_that_call_functions_need(image: Image):
    assert image.shell("python -c 'import cloudpickle, prometheus_client, starlette, uvicorn'").returncode == 0


def test_nothing_of_the_source_is_left_in_it(image: Image):
    assert sorted(path.name for path in image.root.iterdir()) == ["opt", "run", "var"]


def test_it_exposes_the_ports_that_it_listens_on():
    assert re.findall(r"tcp://\*:(\d+)", argument("CMD")) == argument("EXPOSE").split()
