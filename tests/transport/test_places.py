"""Where control sockets are when nobody says where: in a directory that nobody else can do anything in."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Running

from zmqbroker.transport import places
from zmqbroker.transport.control import ControlSocket, control_addresses
from zmqbroker.transport.places import ONLY_PLACE, own_place

Listen = Callable[[Path], Path]


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a new directory with a short path: those of sockets are limited."""
    with tempfile.TemporaryDirectory(prefix="zp-") as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def shared(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have all places below one directory; return what stands for /run/zmqbroker, which cannot be made."""
    shared = short / "run" / "zmqbroker"
    monkeypatch.setattr(places, "SHARED", shared)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "user"))
    monkeypatch.delenv(ONLY_PLACE, raising=False)
    (short / "user").mkdir(0o700)
    return shared


@pytest.fixture
def own(short: Path) -> Path:
    return short / "user" / "zmqbroker"


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return a function that listens at a path."""
    with ExitStack() as stack:

        def listen(path: Path) -> Path:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            return path

        yield listen


def leave_stale(path: Path) -> Path:
    """Make a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


def ended_process() -> int:
    """Return the number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_directory_is_made_for_the_user_alone(own: Path):
    assert own_place() == str(own / f"{os.getpid()}.control")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_the_shared_directory_comes_first_where_it_can_be_had(shared: Path):
    shared.mkdir(0o700, parents=True)
    assert own_place() == str(shared / f"{os.getpid()}.control")


def test_where_a_variable_names_the_place_there_is_no_other(short: Path, shared: Path, monkeypatch, listen: Listen):
    shared.mkdir(0o700, parents=True)
    listen(shared / "other.control")
    monkeypatch.setenv(ONLY_PLACE, str(short / "mine"))
    assert own_place() == str(short / "mine" / f"{os.getpid()}.control")
    assert places.places() == []


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_without_a_runtime_directory_it_is_one_in_tmp(monkeypatch, value: str):
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert places._directories()[1:] == [Path(f"/tmp/zmqbroker-{os.getuid()}")]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_not_taken(own: Path, mode: int, monkeypatch):
    monkeypatch.setenv(ONLY_PLACE, str(own))
    own.mkdir()
    own.chmod(mode)
    with pytest.raises(PermissionError, match=r" is no directory of this user's alone$"):
        own_place()


def test_a_link_is_not_taken_wherever_it_leads(short: Path, own: Path, monkeypatch):
    monkeypatch.setenv(ONLY_PLACE, str(own))
    (short / "elsewhere").mkdir(0o700)
    own.symlink_to(short / "elsewhere")
    with pytest.raises(PermissionError, match=r" is no directory of this user's alone$"):
        own_place()
    leave_stale(short / "elsewhere" / "1.control")
    assert places.places() == []


def test_a_file_is_not_taken(own: Path, monkeypatch):
    monkeypatch.setenv(ONLY_PLACE, str(own))
    own.write_text("")
    with pytest.raises(PermissionError):
        own_place()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_not_taken(own: Path, monkeypatch):
    monkeypatch.setenv(ONLY_PLACE, str(own))
    own.mkdir(0o700)
    os.chown(own, 65534, 65534)
    with pytest.raises(PermissionError):
        own_place()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_root_finds_sockets_of_others_in_the_shared_directory_only(shared: Path, own: Path, listen: Listen):
    shared.mkdir(0o755, parents=True)
    own.mkdir(0o700)
    for directory in (shared, own):
        listen(directory / "1.control")
        os.chown(directory, 65534, 65534)
    assert places.places() == [str(shared / "1.control")]


def test_a_directory_that_others_may_write_to_has_no_sockets_for_us(own: Path, listen: Listen):
    own.mkdir()
    listen(own / "1.control")
    assert places.places() == [str(own / "1.control")]
    own.chmod(0o777)
    assert places.places() == []


def test_a_place_whose_path_is_too_long_is_passed_over(short: Path, monkeypatch):
    monkeypatch.setenv(ONLY_PLACE, str(short / ("x" * 90)))
    with pytest.raises(OSError, match=r" is too long for a socket$"):
        own_place()


def test_stale_sockets_of_processes_that_are_gone_are_removed_and_nothing_else(own: Path, listen: Listen):
    own.mkdir(0o700)
    gone = ended_process()
    stale = [leave_stale(own / name) for name in (f"{gone}.control", f"{gone}-1.control", f"{os.getpid()}.control")]
    parent = leave_stale(own / f"{os.getppid()}.control")  # which may be just about to listen
    named = leave_stale(own / "mine.control")
    alive = listen(own / f"{gone}-2.control")
    (own / f"{gone}-3.control").write_text("no socket")
    assert own_place() == str(own / f"{os.getpid()}.control")
    assert [path for path in stale if path.exists()] == []
    assert all(path.exists() for path in (parent, named, alive, own / f"{gone}-3.control"))


def test_only_sockets_that_somebody_listens_on_are_found(own: Path, listen: Listen):
    own.mkdir(0o700)
    leave_stale(own / "1.control")
    (own / "2.control").write_text("no socket")
    listen(own / "control")
    assert control_addresses() == [f"ipc://{own}/control"]


def test_several_brokers_of_a_process_have_a_socket_each_which_goes_with_them(start: Callable[..., Running], own: Path):
    brokers = [start(control="auto") for _ in range(3)]
    addresses = [broker.broker.control_address for broker in brokers]
    assert len(set(addresses)) == 3
    assert control_addresses() == sorted(map(str, addresses))
    for broker, address in zip(brokers, addresses, strict=True):
        with ControlSocket(str(address), 20) as control:
            assert control.ask("status")["addresses"]["requests"] == broker.addresses.requests
    brokers.pop().finish()
    assert len(os.listdir(own)) == 2
    assert control_addresses() == sorted(map(str, addresses[:2]))


def test_where_no_place_can_be_had_there_is_one_warning_and_no_control(
    start: Callable[..., Running], caplog, monkeypatch
):
    monkeypatch.setenv(ONLY_PLACE, "/proc/zmqbroker")
    broker = start(control="auto")
    assert broker.broker.control_address is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("there is no control socket: ")
    assert line.endswith("; give --control an address, or none")
    assert broker.count("accepted") == 0
