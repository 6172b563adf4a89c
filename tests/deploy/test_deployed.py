"""What containers start, run here as the compose file and the manifests say, with identities made as documented.

No engine and no cluster are needed: addresses are those of this machine, what is mounted is a directory, and
`kubectl create` is a script that puts files into directories.
"""

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deployed_support import BROKER, PAGE, WORKER, Container, in_compose, in_kubernetes, placed
from examples_support import OPERATIONS, section
from helpers import PATIENCE, Program, bound_addresses

pytest_plugins = ["command_fixtures"]
pytestmark = [pytest.mark.slow, pytest.mark.once]

TOKEN = "correct-horse-battery-staple"
MAIN = "zmqbroker/__main__.py"
KUBECTL = f"""#!{sys.executable}
import pathlib, sys

made = pathlib.Path({{made!r}})
words = [word for word in sys.argv[1:] if word not in ("create", "-n", "zmqbroker", "generic")]
if words[0] != "namespace":
    kind, name, *files = words
    place = made / name
    place.mkdir()
    for file in files:
        key, _, path = file.removeprefix("--from-file=").rpartition("=")
        (place / (key or path)).write_text(open(path).read())
        (place / (key or path)).chmod(0o400)
"""


def shell(script: str, directory: Path, longest: float = 4 * PATIENCE) -> int:
    """Run a script, which may fail, and return its exit status."""
    return subprocess.run(["sh", "-c", script], cwd=directory, timeout=longest, check=False).returncode


class Deployed:
    """Containers without containers."""

    def __init__(self, containers: dict[str, Container], sources: Path, own: Path) -> None:
        self.containers = containers
        self.addresses: dict[str, str] = {}  # here, by patterns of those there
        self._sources = sources
        self._own = own

    def here(self, name: str, text: str) -> str:
        """Return a word of a container as it is here."""
        for there, address in self.addresses.items():
            text = re.sub(there, address, text)
        return placed(text, self.containers[name].mounts, self._sources, self._own)

    def arguments(self, name: str) -> list[str]:
        return [self.here(name, word) for word in self.containers[name].arguments]

    def environment(self, name: str) -> dict[str, str]:
        found = self.containers[name].environment
        return {variable: self.here(name, value) for variable, value in found.items()}

    def probe_all(self, name: str) -> list[int]:
        """Run each probe of a container, and return the exit statuses."""
        environment = os.environ | self.environment(name)
        commands = [[self.here(name, word) for word in probe] for probe in self.containers[name].probes]
        return [
            subprocess.run(each, env=environment, timeout=4 * PATIENCE, check=False).returncode for each in commands
        ]


@pytest.fixture(params=["compose", "kubernetes"])
def deployed(request: pytest.FixtureRequest, tmp_path: Path, zmqbroker_script: str) -> Deployed:
    """Make the identities as the document says, and hand them over."""
    own, made = tmp_path / "store", tmp_path / "made"
    own.mkdir()
    made.mkdir()
    kubectl = Path(zmqbroker_script).parent / "kubectl"
    kubectl.write_text(KUBECTL.format(made=str(made)))
    kubectl.chmod(0o755)
    assert shell(f"set -e\n{section(OPERATIONS, 'Identities of containers').block('sh')}", tmp_path) == 0
    identities = tmp_path / "deploy" / "identities"
    if request.param == "compose":
        return Deployed(in_compose(), identities, own)
    assert shell(f"set -e\n{section(OPERATIONS, 'In Kubernetes').block('sh')}", identities) == 0
    assert len((made / "zmqbroker-token" / "token").read_text().strip()) == 64
    return Deployed(in_kubernetes(), made, own)


@pytest.fixture
def start(deployed: Deployed, start_program, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Program]:
    """Return a function that starts what is in a container."""

    def start(name: str) -> Program:
        with monkeypatch.context() as environment:
            for variable, value in deployed.environment(name).items():
                environment.setenv(variable, value)
            environment.setenv("ZMQBROKER_WEB_TOKEN", TOKEN)
            return start_program(MAIN, *deployed.arguments(name))

    return start


def got(page: Program, path: str, **headers: str) -> tuple[int, str]:
    """Return the status and the text of what the page answers."""
    port = int(page.wait_for(r"the page is at http://\S+:(\d+)/")[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_what_the_containers_start_works_together_and_ends_gracefully(deployed, start, tmp_path):
    deployed.addresses |= {r"tcp://\*:\d+": "tcp://127.0.0.1:*", r"0\.0\.0\.0:8161": "127.0.0.1:0"}
    broker = start(BROKER)
    requests, ready, _ = bound_addresses(broker)
    control = broker.wait_for(r"^control +(\S+)$")[1]
    deployed.addresses |= {r"tcp://[a-z]+:4162": ready, r"tcp://([a-z]+|127\.0\.0\.1):4164": control}
    assert set(deployed.probe_all(BROKER)) == {0}
    worker, page = start(WORKER), start(PAGE)
    files = "--identity client.secret --broker-identity broker.public"
    client = f"test $(echo three small words | zmqbroker submit {files} {requests}) = 3"
    assert shell(client, tmp_path / "deploy" / "identities") == 0
    assert got(page, "/healthz")[0] == got(page, "/readyz")[0] == 200
    assert "zmqbroker_up 1" in got(page, "/metrics", authorization=f"Bearer {TOKEN}")[1]
    assert got(page, "/metrics")[0] == 401
    port = page.wait_for(r"the page is at http://\S+:(\d+)/")[1]
    deployed.addresses["127.0.0.1:8161"] = f"127.0.0.1:{port}"
    assert set(deployed.probe_all(PAGE)) <= {0}
    assert (tmp_path / "store" / "tasks.db").is_file()
    assert (worker.end(), broker.end()) == (0, 0)
    assert 0 not in deployed.probe_all(BROKER)
    assert (got(page, "/healthz")[0], got(page, "/readyz")[0]) == (200, 503)
    assert page.end() == 0
