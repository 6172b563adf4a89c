"""A broker with a store, seen from outside: how it says that it cannot begin or go on, and what it does when it can."""

import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from asking import NO_FRAME, Asking, serving
from conftest import LOOPBACK, Peers, PlainWorker
from helpers import Program, bound_addresses

from zmqbroker.broker.store.schema import VERSION

pytestmark = pytest.mark.once

pytest_plugins = ["disk_fixtures"]

MIB = 1 << 20
DISK = 30 * MIB
LARGE = 100_000  # bytes
Serve = Callable[..., "Served"]


class Served:
    """A broker with a store in a process of its own, and its peers."""

    def __init__(self, program: Program, peers: Peers) -> None:
        self.program = program
        self._peers = peers

    def begin(self) -> "Served":
        """Wait until it serves."""
        self._addresses = bound_addresses(self.program)
        self.asking = self.client()
        return self

    def client(self) -> Asking:
        return Asking(self._peers.open(zmq.DEALER, self._addresses[0]))

    def plain_client(self) -> "zmq.Socket[bytes]":
        return self._peers.open(zmq.REQ, self._addresses[0])

    def worker(self) -> PlainWorker:
        _, ready, results = self._addresses
        return PlainWorker(self._peers.open(zmq.REQ, ready), self._peers.open(zmq.PUSH, results))

    def last_words(self) -> str:
        """Return what it has to say when it ends with status 1: one line about its store, the last one."""
        assert self.program.wait() == 1
        assert "Traceback" not in self.program.output
        (line,) = [line for line in self.program.lines if "the store" in line]
        assert line == self.program.lines[-1]
        return line


@pytest.fixture
def serve(start_program: Callable[..., Program]) -> Callable[..., Served]:
    """Return a function that starts a broker with a store in this file."""
    with Peers() as peers:
        program = ["broker.py", "--control", "none", "--drain", 0, "--store"]
        yield lambda path, floor=0: Served(
            start_program(*program, path, "--store-floor", floor, *[LOOPBACK] * 3), peers
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def sound(path: Path) -> Path:
    """A store with three tasks that wait, of a broker that has ended."""
    with serving(path) as broker:
        for number in range(3):
            broker.leave(f"key-{number}", b"<the body of %d>" % number * 50)
    return path


# What it cannot begin with


def test_a_broker_does_not_begin_with_the_store_of_another_one(serve: Serve, path: Path):
    serve(path).begin()
    assert "another broker has it" in serve(path).last_words()


def tables(path: Path) -> bytes:
    """Return what a file has behind its header, in which SQLite counts who has opened it."""
    return path.read_bytes()[100:] if path.is_file() else b""


def make_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()


def damage_a_page(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(100)  # where the first page has its table of contents
        file.write(b"\xff" * 60)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (make_newer, "it was written by a newer zmqbroker"),
        (lambda path: path.write_bytes(b"dear diary\n" * 500), "it is no store of a broker"),
        (damage_a_page, "it is damaged"),
        (lambda path: os.truncate(path, 3 * 4096), "it is damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "it is no file"),
    ],
    ids=["newer", "no database", "damaged", "cut off", "a directory"],
)
def test_a_broker_does_not_begin_with_what_it_cannot_rely_on_and_leaves_it_there(
    serve: Serve, sound: Path, spoil: Callable[[Path], object], why: str
):
    spoil(sound)
    before = tables(sound)
    assert why in serve(sound).last_words()
    assert tables(sound) == before


def test_a_broker_does_not_begin_where_there_is_no_directory(serve: Serve, tmp_path: Path):
    assert "No such file or directory" in serve(tmp_path / "nowhere" / "tasks.db").last_words()


@pytest.mark.parametrize(
    ("is_there", "why"), [(False, "Read-only file system"), (True, "it cannot be written, or nothing beside it")]
)
def test_a_broker_does_not_begin_where_nothing_can_be_written(
    serve: Serve, make_disk: Callable[[int], Path], is_there: bool, why: str
):
    disk = make_disk(DISK)
    if is_there:
        with serving(disk / "tasks.db") as broker:
            broker.leave("mine", b"task")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert why in serve(disk / "tasks.db").last_words()


# What it cannot go on with


def replace(path: Path) -> None:
    (path.parent / "another").write_bytes(path.read_bytes())
    os.replace(path.parent / "another", path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(replace, "its file was replaced"), (Path.unlink, "No such file")],
    ids=["replaced", "removed"],
)
def test_a_broker_whose_file_is_taken_away_ends_and_tells_who_waits(
    serve: Serve, path: Path, spoil: Callable[[Path], object], why: str
):
    broker = serve(path).begin()
    broker.asking.leave("left", b"task")
    durable, fetching, plain = broker.client(), broker.client(), broker.client()
    durable.send("waited for", b"task", durable=True)
    fetching.send("left", fetch=1000)
    plain.client.send_multipart([b"", b"task"])
    for asking in (durable, fetching, plain):
        assert asking.fetch("nobody's")[0] == "unknown"  # so what was sent before has come
    spoil(path)
    for asking in (durable, fetching):
        header, _ = asking.receive()
        assert header["status"] == "unavailable"
    assert plain.client.recv_multipart() == [b"", b""]
    last_words = broker.last_words()
    assert why in last_words
    assert "the broker has ended" in last_words


def test_a_broker_that_cannot_write_ends_and_tells_who_waits_for_what_it_could_not_store(serve: Serve, path: Path):
    broker = serve(path).begin()
    broker.asking.leave("left", b"task")
    fetching = broker.client()
    fetching.send("left", fetch=1000)
    assert fetching.fetch("nobody's")[0] == "unknown"  # so that has come
    resource.prlimit(broker.program.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    broker.asking.send("too large", bytes(LARGE), detach=True)
    for asking in (broker.asking, fetching):
        header, _ = asking.receive()
        assert header["status"] == "unavailable"
    assert "disk I/O error" in broker.last_words()
    with serving(path) as again:
        assert again.fetch("left")[0] == "waiting"
        assert again.fetch("too large")[0] == "unknown"


# What it goes on with


def test_a_broker_names_what_is_damaged_and_serves_all_else(serve: Serve, sound: Path):
    text = sound.read_bytes()
    place = text.index(b"<the body of 1>")
    sound.write_bytes(text[:place] + b"[" + text[place + 1 :])
    broker = serve(sound).begin()
    broker.program.wait_for(r"task 2 \(key-1\) is damaged in the store, and left there")
    damaged = ("failed", "damaged in the store", NO_FRAME)
    assert broker.asking.fetch("key-1") == damaged
    worker = broker.worker()
    for number in (0, 2):
        body = [b"<the body of %d>" % number * 50]
        assert worker.echo() == body
        assert broker.asking.fetch(f"key-{number}", 1000) == ("done", "", body)
    assert broker.asking.ask("key-1", forget=True) == damaged
    assert broker.asking.fetch("key-1")[0] == "unknown"
    broker.asking.leave("key-1", b"anew")
    assert broker.program.end() == 0
    assert "Traceback" not in broker.program.output


@pytest.mark.parametrize("floor", [0, 4 * MIB])
def test_a_broker_whose_disk_is_full_settles_what_runs_and_takes_tasks_again_when_there_is_room(
    serve: Serve, make_disk: Callable[[int], Path], floor: int
):
    broker = serve(make_disk(DISK) / "tasks.db", floor).begin()
    asking, worker, left = broker.asking, broker.worker(), 0
    while (answer := asking.ask(f"key-{left}", bytes(LARGE), detach=True))[0] == "accepted":
        left += 1
    assert answer[0] == "unavailable"
    assert "the store's disk is full" in answer[1] or "nearly full" in answer[1]
    assert left > 50
    attempt_id, _ = worker.take()
    worker.reply(attempt_id, bytes(DISK))
    reason = f"the result ({DISK} bytes) does not fit on the store's disk"
    assert asking.fetch("key-0", 1000) == ("failed", reason, NO_FRAME)
    for number in range(1, left):
        attempt_id, _ = worker.take()
        worker.reply(attempt_id, b"done")
        assert asking.fetch(f"key-{number}", 1000) == ("done", "", [b"done"])
    plain = broker.plain_client()
    plain.send(b"not stored")
    assert worker.echo() == [b"not stored"]
    assert plain.recv_multipart() == [b"not stored"]
    for number in range(left):
        assert asking.ask(f"key-{number}", forget=True)[0] in ("done", "failed")
    while asking.ask("again", bytes(LARGE), detach=True)[0] != "accepted":  # when it has looked, once a second
        assert asking.client.poll(100) == 0
    assert broker.program.end() == 0
    assert "Traceback" not in broker.program.output
