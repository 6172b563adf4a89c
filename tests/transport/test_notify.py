"""What a service manager is told, and what happens where it cannot be told."""

import logging
import os
import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest
from notify_support import Manager, abstract

from zmqbroker.transport.notify import RETRY, ServiceManager, service_manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Return who listens."""
    listening = Manager(str(tmp_path / "notify") if request.param == "path" else abstract(tmp_path))
    yield listening
    listening.close()


def test_it_hears_that_a_process_is_ready_and_ends(manager: Manager):
    with ServiceManager(manager.address) as told:
        told.tell_ready(1.0)
        assert manager.hear() == {"READY": "1", "STATUS": ""}
        told.describe = lambda: "3 tasks waiting"
        told.tell_stopping(2.0)
        assert manager.hear() == {"STOPPING": "1", "STATUS": "3 tasks waiting"}
        assert told.due == inf


def test_it_hears_that_a_process_lives_twice_in_the_time_of_its_watchdog(manager: Manager):
    with ServiceManager(manager.address, watchdog=10.0) as told:
        assert told.due == inf  # nobody waits for it before it is ready
        told.tell_ready(100.0)
        manager.wait_for("READY")
        for now in (105.0, 110.0):
            assert told.due == now
            told.tell_alive(now)
            assert manager.hear() == {"WATCHDOG": "1", "STATUS": ""}
        assert told.due == 115.0


def test_without_one_nothing_is_said_and_nothing_is_due():
    with ServiceManager("", watchdog=10.0) as told:
        told.tell_ready(1.0)
        told.tell_alive(2.0)
        told.tell_stopping(3.0)
        assert told.due == inf


@pytest.mark.parametrize(
    "address", ["relative/nowhere", "/nowhere/at/all", "@nobody-listens-here", "vsock:2:1234", "/"]
)
def test_an_address_where_nobody_listens_is_one_line_and_no_more(address: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING), ServiceManager(address, watchdog=20.0) as told:
        told.tell_ready(0.0)
        told.tell_alive(5.0)
        told.tell_stopping(6.0)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"cannot tell the service manager at {address}: ")


def test_a_name_that_is_too_long_for_a_socket_is_one_line(caplog: pytest.LogCaptureFixture):
    with ServiceManager("@" + 200 * "x") as told:
        told.tell_ready(0.0)
    assert len(caplog.records) == 1


def test_what_nobody_has_heard_is_said_again(tmp_path: Path):
    with ServiceManager(str(tmp_path / "notify")) as told:
        told.tell_ready(0.0)
        assert told.due == RETRY
        manager = Manager(str(tmp_path / "notify"))
        told.tell_stopping(1.0)
        assert manager.hear() == {"READY": "1", "STOPPING": "1", "STATUS": ""}
        assert told.due == inf
        manager.close()


def test_one_that_does_not_read_is_not_waited_for(manager: Manager):
    with ServiceManager(manager.address, watchdog=2.0) as told:
        told.tell_ready(0.0)
        for now in range(1, 1000):
            told.tell_alive(now)
        told.tell_stopping(1000.0)
        assert "READY" in manager.hear()
        heard = 1
        while not manager.hears_nothing():
            heard += 1
        assert heard < 1000
        told.tell_alive(1001.0)
        assert "STOPPING" in manager.hear()


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({}, inf),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getppid())}, inf),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "me"}, inf),
        ({"WATCHDOG_USEC": "1"}, 0.1),
        ({"WATCHDOG_USEC": "0"}, inf),
        ({"WATCHDOG_USEC": "-1"}, inf),
        ({"WATCHDOG_USEC": "soon"}, inf),
        ({"WATCHDOG_USEC": "²"}, inf),
        ({"WATCHDOG_USEC": "9" * 5000}, inf),
        ({"WATCHDOG_PID": str(os.getpid())}, inf),
    ],
)
def test_the_environment_says_where_it_is_and_loses_what_is_for_this_process(
    tmp_path: Path, variables: dict[str, str], watchdog: float
):
    manager = Manager(str(tmp_path / "notify"))
    environment = {"PATH": "/bin", "NOTIFY_SOCKET": manager.address, **variables}
    with service_manager(environment) as told:
        assert environment == {"PATH": "/bin"}
        told.tell_ready(0.0)
        manager.wait_for("READY")
        assert told.due == watchdog / 2
    manager.close()


def test_its_socket_is_not_inherited_by_programs(tmp_path: Path):
    with ServiceManager(str(tmp_path / "notify")) as told:
        opened = told._socket
        assert isinstance(opened, socket.socket)
        assert not opened.get_inheritable()
