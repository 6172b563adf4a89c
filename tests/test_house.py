"""The rooms of zmqbroker/, and who imports whom: commands -> broker, client, worker, web -> transport -> wire."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import TOP

pytestmark = pytest.mark.once


MAY_IMPORT = {  # besides its own files
    "commands": {"broker", "client", "worker", "web", "transport", "wire"},
    "broker": {"transport", "wire"},
    "client": {"transport", "wire"},
    "worker": {"transport", "wire"},
    "web": {"transport", "wire"},
    "transport": {"wire"},
    "wire": set(),
    "__init__": {"broker", "client", "worker", "transport"},  # the public face
    "__main__": {"commands"},
}
# What decides, and what travels: no socket, no file, no thread, and time comes in as `now`.
PURE = [
    "wire/*.py",
    "broker/about.py",
    "broker/attempt_ids.py",
    "broker/authorized.py",
    "broker/control.py",
    "broker/questions.py",
    "broker/stored.py",
    "broker/counters.py",
    "broker/dispatch.py",
    "broker/intake.py",
    "broker/known.py",
    "broker/tasks.py",
    "broker/statistics.py",
    "broker/store/encoding.py",
    "broker/store/gate.py",
    "broker/store/journal.py",
    "broker/store/outcomes.py",
    "broker/store/rows.py",
    "broker/store/schema.py",
    "broker/task.py",
    "broker/queues.py",
    "broker/records.py",
    "broker/refusals.py",
    "broker/timers.py",
    "broker/workers.py",
    "broker/kept.py",
    "broker/ledger.py",
    "broker/matching.py",
    "transport/keys.py",
    "worker/session.py",
    "worker/limits.py",
    "web/history.py",
    "web/parameters.py",
    "web/tally.py",
]
COMPUTES = {
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "enum",
    "fnmatch",
    "functools",
    "heapq",
    "itertools",
    "json",
    "marshal",
    "math",
    "operator",
    "re",
    "struct",
    "typing",
    "zlib",
}
HOUSE = TOP / "zmqbroker"
FILES = sorted(HOUSE.rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    """Return the dotted names that a file imports, wherever in it, those of what it takes from modules included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{name.name}" for name in node.names)


def room(path: Path) -> str:
    """Return the room of a file; a file at the door is one of its own."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def wrong_arrows(source: str, room: str) -> list[str]:
    """Return the imports that a file in this room must not have."""
    own = [name.split(".") for name in imports(source) if name.startswith(("zmqbroker", "."))]
    allowed = {room, *MAY_IMPORT[room]}
    version = ["zmqbroker", "__version__"]  # of all that the public face shows, what the rooms take from there
    return [".".join(name) for name in own if name != version and ([*name, ""])[1] not in allowed]


def impurities(source: str, pure: set[str]) -> list[str]:
    """Return the imports that touch more than numbers and bytes; `pure` are the modules of ours that do not."""
    return [
        name
        for name in imports(source)
        if name.split(".")[0] not in COMPUTES and not {name, name.rpartition(".")[0]} & pure
    ]


def pure_files() -> list[Path]:
    return [path for pattern in PURE for path in sorted(HOUSE.glob(pattern))]


def module(path: Path) -> str:
    return ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_one_way(path):
    assert wrong_arrows(path.read_text(encoding="utf-8"), room(path)) == []


@pytest.mark.parametrize("path", pure_files(), ids=module)
def test_what_decides_and_what_travels_touches_neither_sockets_nor_clocks_nor_files(path):
    assert impurities(path.read_text(encoding="utf-8"), set(map(module, pure_files()))) == []


@pytest.mark.parametrize("pattern", PURE)
def test_every_pure_file_is_there(pattern):
    assert list(HOUSE.glob(pattern))


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("from zmqbroker.client.client import Client", "broker"),
        ("from zmqbroker.transport import messages", "wire"),
        ("def late():\n    import zmqbroker.commands.main", "worker"),
        ("from zmqbroker import worker", "client"),
        ("from zmqbroker import Client", "commands"),
        ("import zmqbroker", "transport"),
        ("from . import messages", "transport"),
    ],
)
def test_an_arrow_that_points_the_wrong_way_is_found(source, room):
    assert len(wrong_arrows(source, room)) == 1


@pytest.mark.parametrize(
    "source",
    ["import zmq", "from time import monotonic", "import os.path", "from zmqbroker.broker.broker import Broker"],
)
def test_an_impurity_is_found(source):
    assert len(impurities(source, set(map(module, pure_files())))) == 1
