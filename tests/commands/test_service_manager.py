"""`serve` and `work` as a service manager runs them: it hears that they are ready, that they live, that they end."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from conftest import Peers
from helpers import TOP, Program, bound_addresses
from notify_support import Manager, set_variables
from work_support import Fifo, Work, end_at_once

from zmqbroker import Client
from zmqbroker.transport.control import ControlSocket

pytestmark = pytest.mark.once

pytest_plugins = ["notify_fixtures", "work_fixtures"]

ANY_PORTS = ("tcp://127.0.0.1:*",) * 3
SOON = 200_000  # microseconds without a sign of life
SILENCE = 1.0  # seconds; five times as long
HANGS = """\
import signal, sys
sys.path.append({top!r})
from zmqbroker.commands.main import main

def hang(*_):
    with open("gate", "rb", 0) as gate:
        print("hangs", flush=True)
        gate.read(1)
    print("goes on", flush=True)

signal.signal(signal.SIGUSR2, hang)
sys.exit(main())
"""
StartProgram = Callable[..., Program]


@pytest.fixture
def impatient(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Return one that wants signs of life."""
    monkeypatch.setenv("WATCHDOG_USEC", str(SOON))
    return manager


@pytest.fixture
def hanging(directory: Path, start_program: StartProgram) -> Work:
    """Return a function that starts a program whose loop hangs from a SIGUSR2 until the gate is opened."""
    script = directory.parent / "bin" / "hangs.py"
    script.write_text(HANGS.format(top=str(TOP)))
    return lambda *arguments: start_program(str(script), *arguments)


def hear_the_end_of_life(program: Program, manager: Manager, gate: Fifo) -> None:
    """Have a program hang, hear no more of it, and have it go on."""
    program.process.send_signal(signal.SIGUSR2)
    program.wait_for("^hangs$")
    while manager.hear(0):
        pass  # what was said before
    assert manager.hears_nothing(SILENCE)
    gate.open_gate()
    program.wait_for("^goes on$")
    manager.wait_for("WATCHDOG")


# The broker


@pytest.mark.parametrize("command", [["broker.py"], ["-m", "zmqbroker", "serve"]])
def test_a_broker_is_ready_when_it_is_bound(command: list[str], manager: Manager, start_program: StartProgram):
    if command[0] == "-m":
        command = ["zmqbroker/__main__.py", "serve"]
    broker = start_program(*command, "--quiet", *ANY_PORTS)
    said = manager.hear()
    assert said == {"READY": "1", "STATUS": "0 tasks waiting, 0 delayed, 0 running; 0 workers idle"}
    assert broker.process.poll() is None


def test_a_broker_that_cannot_be_bound_is_never_ready(manager: Manager, start_program: StartProgram):
    assert start_program("broker.py", "ipc:///nowhere/at/all", *ANY_PORTS[1:]).wait() == 2
    assert manager.hears_nothing()


def test_a_broker_says_that_it_drains_and_lives_until_it_ends(impatient: Manager, start_program: StartProgram):
    broker = start_program("broker.py", "--drain", 3600, *ANY_PORTS)
    with Peers() as peers:
        client = peers.open(zmq.REQ, bound_addresses(broker)[0])
        client.send(b"a task that nobody does")
        while not impatient.hear().get("STATUS", "").startswith("1 tasks waiting"):
            pass
        broker.process.send_signal(signal.SIGTERM)
        assert impatient.wait_for("STOPPING")["STATUS"].startswith("1 tasks waiting")
        for _ in range(3):
            assert "STOPPING" not in impatient.wait_for("WATCHDOG")
        assert end_at_once(broker) == 0
        assert client.recv() == b""


def test_a_drain_that_somebody_asked_for_is_said_as_well(manager: Manager, start_program: StartProgram):
    broker = start_program("broker.py", *ANY_PORTS)
    control = broker.wait_for(r"^control +(\S+)$")[1]
    manager.wait_for("READY")
    with ControlSocket(control, 20) as asking:
        asking.ask("drain")
    assert "STOPPING" in manager.hear()
    assert broker.wait() == 0


def test_an_idle_broker_lives_and_one_whose_loop_hangs_does_not(impatient: Manager, hanging: Work, gate: Fifo):
    broker = hanging("serve", *ANY_PORTS)
    impatient.wait_for("READY")
    for _ in range(5):
        impatient.wait_for("WATCHDOG")
    hear_the_end_of_life(broker, impatient, gate)


def test_a_broker_says_nothing_of_its_life_where_another_process_is_meant(
    impatient: Manager, start_program: StartProgram, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    broker = start_program("broker.py", *ANY_PORTS)
    impatient.wait_for("READY")
    assert impatient.hears_nothing(SILENCE)
    assert broker.end() == 0


def test_a_broker_serves_though_nobody_hears_it(start_program: StartProgram, monkeypatch: pytest.MonkeyPatch):
    set_variables(monkeypatch, "/nowhere/at/all", WATCHDOG_USEC=SOON)
    broker = start_program("broker.py", *ANY_PORTS)
    with Peers() as peers:
        client = peers.open(zmq.DEALER, bound_addresses(broker)[0])
        for _ in range(20):
            client.send(b"malformed, so answered at once")
            assert client.recv_multipart() == [b"", b""]
    assert broker.end() == 0
    (line,) = (line for line in broker.lines if "service manager" in line)
    assert line.endswith("cannot tell the service manager at /nowhere/at/all: No such file or directory")


# The workers


def test_workers_are_ready_when_the_first_process_has_the_function(manager: Manager, work: Work, client: Client):
    workers = work("--processes", 2, "tasks:echo")
    said = manager.wait_for("READY")
    assert said["STATUS"].endswith(" of 2 processes run; 0 tasks done, 0 failed, 0 processes crashed, 0 hung")
    assert client.call(b"body", 30) == b"body"
    assert workers.end() == 0
    assert manager.wait_for("STOPPING")["STATUS"].endswith(" 1 tasks done, 0 failed, 0 processes crashed, 0 hung")


def test_workers_are_ready_without_a_broker_that_comes_later(manager: Manager, run: Work):
    workers = run("tcp://127.0.0.1:1", "tasks:echo")
    manager.wait_for("READY")
    assert workers.end() == 0


def test_workers_without_their_function_are_never_ready(manager: Manager, run: Work):
    assert run("tcp://127.0.0.1:1", "tasks:missing").wait() == 2
    assert manager.hears_nothing()


def test_workers_say_at_once_that_they_end_and_finish_their_tasks_then(
    impatient: Manager, work: Work, client: Client, gate: Fifo
):
    workers = work("tasks:gated")
    future = client.submit(b"")
    workers.wait_for("^got a task$")
    workers.process.send_signal(signal.SIGTERM)
    impatient.wait_for("STOPPING")
    for _ in range(3):
        impatient.wait_for("WATCHDOG")
    gate.open_gate()
    assert future.result(30) == b"done"
    assert workers.wait() == 0


def test_workers_live_while_their_task_lasts_and_a_supervisor_that_hangs_does_not(
    impatient: Manager, running, hanging: Work, gate: Fifo
):
    workers = hanging("work", running.addresses.ready, "--", "sleep", "3600")
    impatient.wait_for("READY")
    with Client(running.addresses.requests) as client:
        client.submit(b"")
        running.wait_for("running", 1)
        for _ in range(5):
            impatient.wait_for("WATCHDOG")
        hear_the_end_of_life(workers, impatient, gate)
        assert end_at_once(workers) == 0


@pytest.mark.parametrize(
    "handler", [["tasks:environment"], ["--", sys.executable, "-c", "import os; print(*os.environ)"]]
)
def test_no_process_of_the_workers_and_no_command_of_theirs_has_what_is_for_the_supervisor(
    handler: list[str], impatient: Manager, work: Work, client: Client, directory: Path
):
    with (directory / "tasks.py").open("a") as tasks:
        tasks.write("\ndef environment(body):\n    return ' '.join(os.environ).encode()\n")
    work(*handler)
    names = client.call(b"", 30).decode().split()
    assert "PATH" in names
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(names)
