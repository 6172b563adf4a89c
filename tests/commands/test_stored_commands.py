"""`zmqbroker task list --failed`, `task show`, `retry` and `forget`, and what `status` tells of a store."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from conftest import Peers
from control_commands_support import Ran, place
from helpers import Program, bound_addresses, wait_until
from library_support import working

from zmqbroker.commands.screen import is_healthy

pytestmark = pytest.mark.once


__all__ = ["place"]  # a fixture

ANY_PORT = "tcp://127.0.0.1:*"


class StoringBroker(Peers):
    """`serve --store` in a process, and who leaves tasks there and does them."""

    def __init__(self, start_program: Callable[..., Program], path: Path, *options: object) -> None:
        super().__init__()
        self.program = start_program("broker.py", "-t", 1, "--store", path, *options, *[ANY_PORT] * 3)
        self.requests, self.ready, _ = bound_addresses(self.program)
        self.program.wait_for("^control ")

    def leave(self, key: str, *body: bytes, **fields: object) -> None:
        """Have a task stored."""
        with self.context.socket(zmq.DEALER) as client:
            client.linger, client.rcvtimeo = 0, 20_000
            client.connect(self.requests)
            header = {"key": key, "detach": True, **fields}
            client.send_multipart([b"ZB1 " + json.dumps(header).encode(), b"", *body])
            assert json.loads(client.recv_multipart()[0][4:])["status"] == "accepted"

    def fail(self, reason: str, *keys: str, **fields: object) -> None:
        """Have tasks stored that fail for a reason."""

        def refuse(body: bytes) -> bytes:
            raise ValueError(reason)

        before = totals()["failed"]
        queue = str(fields.get("queue", "default"))
        with working(self.ready, refuse, queues=[queue], label="one"):
            for key in keys:
                self.leave(key, b"body of %s" % key.encode(), **fields)
            wait_until(lambda: totals()["failed"] == before + len(keys))

    def do_all(self, number: int, queue: str = "default") -> None:
        """Do what waits, until so many tasks are done since the start."""
        with working(self.ready, bytes.upper, queues=[queue]):
            wait_until(lambda: totals()["done"] >= number)


def totals() -> dict[str, int]:
    totals: dict[str, int] = Ran("status", "--json").json["totals"]
    return totals


@pytest.fixture
def broker(place: str, start_program: Callable[..., Program], tmp_path: Path) -> Iterator[StoringBroker]:
    with StoringBroker(start_program, tmp_path / "tasks.db") as broker:
        yield broker


def test_failed_tasks_are_listed_by_queue_and_reason(broker: StoringBroker):
    broker.fail("bad input", "a", "b")
    broker.fail("no memory", "c", queue="gpu")
    listed = Ran("task", "list", "--failed")
    assert (listed.err, listed.status) == ("", 0)
    assert re.search(r"^ +1  default +1 +7\.0 d  a +ValueError: bad input \(one \(.*\)\)$", listed.out, re.MULTILINE)
    assert len(listed.out.splitlines()) == 4
    by_reason = Ran("task", "list", "--failed", "--reason", "*bad*", "--json").json
    assert [task["key"] for task in by_reason["failed"]] == ["a", "b"]
    newest = Ran("task", "list", "--failed", "--newest", "--json").json
    assert [task["key"] for task in newest["failed"]] == ["c", "b", "a"]
    first = Ran("task", "list", "--failed", "--queue", "default", "--most", 1)
    assert first.out.splitlines()[2:] == ["there may be more: 3 failed tasks are in the store in all"]


def test_a_failed_task_is_shown_retried_and_done(broker: StoringBroker):
    broker.fail("bad input", "a")
    shown = Ran("task", "show", "a")
    assert Ran("task", "show", 1, "--json").json["stored"]["key"] == "a"
    assert re.search(r"^status +failed\nreason +ValueError: bad input\nworker +one ", shown.out, re.MULTILINE)
    assert re.search(r"^frames +1\nbody +body of a$", shown.out, re.MULTILINE)
    retried = Ran("task", "retry", "a")
    assert (retried.out, retried.err, retried.status) == ("task a waits again\n", "", 0)
    broker.do_all(1)
    assert "\nbody      BODY OF A\n" in Ran("task", "show", "a").out
    again = Ran("task", "retry", "a")
    assert (again.out, again.err, again.status) == ("", "zmqbroker task retry: task 1 has not failed\n", 1)


def test_several_tasks_are_changed_and_each_that_cannot_be_has_a_line(broker: StoringBroker):
    broker.fail("bad input", "a", "b", "3", "d")
    ran = Ran("task", "forget", "a", "nothing", "2", "17")
    assert (ran.out, ran.status) == ("task a is forgotten\ntask 2 is forgotten\n", 1)
    nothing = "zmqbroker task forget: the store keeps nothing of a task with the"
    assert ran.err == f"{nothing} key nothing\n{nothing} number 17\n"
    assert Ran("task", "retry", "--key", "--json", "3").json["retried"] == 1
    assert [task["key"] for task in Ran("task", "list", "--failed", "--json").json["failed"]] == ["d"]


def test_all_of_a_kind_are_retried_or_forgotten(broker: StoringBroker):
    broker.fail("timed out", *(f"key {number}" for number in range(60)), queue="gpu")
    broker.fail("bad input", "a", "b")
    ran = Ran("task", "retry", "--all", "--queue", "gpu", "--reason", "*timed out*")
    assert (ran.out, ran.err, ran.status) == ("60 failed tasks wait again\n", "", 0)
    broker.do_all(60, "gpu")
    assert Ran("task", "forget", "--all", "--json").json["forgotten"] == 2
    for name in ("retry", "forget"):
        none = Ran("task", name, "--all")
        assert (none.out, none.status) == ("", 1)
        assert none.err == f"zmqbroker task {name}: there are no such failed tasks in the store\n"


def test_what_was_retried_and_forgotten_is_so_when_the_broker_was_killed(
    place: str, start_program: Callable[..., Program], tmp_path: Path
):
    with StoringBroker(start_program, tmp_path / "tasks.db") as broker:
        broker.fail("bad input", "a", "b", "c")
        assert Ran("task", "retry", "a").status == Ran("task", "forget", "b").status == 0
        broker.program.process.kill()
        broker.program.wait()
    with StoringBroker(start_program, tmp_path / "tasks.db") as broker:
        assert [task["key"] for task in Ran("task", "list", "--json").json["tasks"]] == ["a"]
        assert [task["key"] for task in Ran("task", "list", "--failed", "--json").json["failed"]] == ["c"]
        broker.do_all(1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["retry"], "say which tasks, or --all"),
        (["forget", "--all", "a"], "say which tasks, or --all; the address of a control socket goes to --control"),
        (["retry", "--reason", "x", "a"], "--queue and --reason say which of --all are meant"),
        (["list", "--reason", "x"], "--reason and --newest are for --failed only"),
        (
            ["list", "--failed", "--slowest"],
            "--state, --worker and --slowest are for tasks that wait or run, and not for --failed",
        ),
    ],
)
def test_options_that_do_not_fit_are_one_line_and_status_2(arguments: list[str], error: str):
    ran = Ran("task", *arguments)
    program = f"zmqbroker task {arguments[0]}"
    assert (ran.out, ran.err, ran.status) == ("", f"{program}: {error} (see {program} --help)\n", 2)


def test_without_a_store_it_is_one_line_and_status_1(place: str, start):
    start(control="auto")
    for arguments in (["list", "--failed"], ["retry", "a"], ["forget", "--all"]):
        ran = Ran("task", *arguments)
        assert (ran.out, ran.status) == ("", 1)
        program = f"zmqbroker task {arguments[0]}"
        assert ran.err == f"{program}: this broker stores no tasks: it was started without --store\n"
    assert "store" not in Ran("status").out
    assert Ran("status", "--json").json["store"] is None


# The status


def test_the_status_shows_the_store(broker: StoringBroker, tmp_path: Path):
    broker.fail("bad input", "a", "b")
    broker.leave("c", b"body")
    broker.do_all(1)
    ran = Ran("status")
    assert (ran.err, ran.status) == ("", 0)
    where, stored = re.search(r"^store (\S+): .*\n(stored: .*)$", ran.out, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert "~" in where or where == str(tmp_path / "tasks.db")
    assert re.search(r"^store \S+: \d+ [kM]B, .* free \(floor 67 MB\)$", ran.out, re.MULTILINE)
    assert re.fullmatch(r"stored: 3 outcomes, 2 failed; \d+ commits, p50 < \S+ m?s, p99 < \S+ m?s", stored)
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_status_is_1_and_says_so_when_the_disk_is_nearly_full(
    place: str, start_program: Callable[..., Program], tmp_path: Path
):
    with StoringBroker(start_program, tmp_path / "tasks.db", "--store-floor", 10**15):
        ran = Ran("status")
    assert ran.status == 1
    assert re.search(
        r"^new tasks are not stored: .* are free on the store's disk, the floor is ", ran.out, re.MULTILINE
    )


@pytest.mark.parametrize("option", ["--store-floor", "--keep", "--keep-failed", "--reclaim"])
def test_what_is_said_of_a_store_that_there_is_not_is_refused_in_one_line(option: str):
    ran = Ran("serve", option, 5, *[ANY_PORT] * 3)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"zmqbroker serve: {option} goes with --store: there is none (see zmqbroker serve --help)\n"


def status_of(**store: object) -> dict[str, object]:
    """Return a status with a store as the broker tells it."""
    told = {"path": "/tasks.db", "bytes": 1, "free": 1000, "floor": 100, "refusing": False, "outcomes": 0, "failed": 0}
    told |= {"dropped": 0, "damaged": 0, "commits": {"counts": [0] * 16, "seconds": 0.0}, "bounds": [1.0] * 15}
    return {"unserved": 0, "store": told | store}


@pytest.mark.parametrize(
    ("store", "is_well"),
    [
        ({"free": 200, "floor": 100}, True),
        ({"free": 199, "floor": 100}, False),
        ({"free": 0, "floor": 0}, True),
        ({"refusing": True}, False),
    ],
)
def test_all_is_well_while_twice_the_floor_is_free(store: dict[str, object], is_well: bool):
    assert is_healthy(status_of(**store)) == is_well


def test_a_status_of_a_broker_that_knows_of_no_stores_is_shown():
    assert is_healthy({"unserved": 0})
