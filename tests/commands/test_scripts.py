"""The programs at the top of the tree, as a user runs them."""

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import PATIENCE, TOP, Program, bound_addresses

pytestmark = pytest.mark.once

ANY_PORT = "tcp://127.0.0.1:*"
SOME = "tcp://127.0.0.1:1"  # an address that is never used

ANY_PORTS = (ANY_PORT,) * 3

BAD_OPTIONS = {
    "broker.py": [
        (),
        ("-t", "-1", *ANY_PORTS),
        ("-t", "1.5", *ANY_PORTS),
        ("-T", "soon", *ANY_PORTS),
        ("-T", "nan", *ANY_PORTS),
        ("-T", "inf", *ANY_PORTS),
        ("--retry-factor", "0.5", *ANY_PORTS),
        ("--retry-most", "-1", *ANY_PORTS),
        ("--limit", "gpu", *ANY_PORTS),
        ("--limit", "gpu=-1", *ANY_PORTS),
        ("--limit", "no queue=1", *ANY_PORTS),
        ("--limit-waiting", "=1", *ANY_PORTS),
        ("--limit-waiting", "gpu=" + "9" * 5000, *ANY_PORTS),
        (ANY_PORT, "nowhere", ANY_PORT),
        (ANY_PORT, ANY_PORT, "tcp://127.0.0.1"),
        (ANY_PORT, ANY_PORT, "ipc:///\udcff/x"),  # not UTF-8
        (ANY_PORT, "inproc://tasks", ANY_PORT),
        (SOME, ANY_PORT, SOME),
        ("tcp://*:4161", "tcp://*:4161", ANY_PORT),
    ],
    "testworker.py": [
        (SOME, SOME),
        (SOME, SOME, "2"),
        (SOME, SOME, "-0.1"),
        (SOME, SOME, "nan"),
        (SOME, SOME, "often"),
        ("nowhere", SOME, "0.1"),
        (SOME, "tcp://*:4163", "0.1"),
        (SOME, SOME, "0.1"),
        (SOME, "inproc://results", "0.1"),
        (SOME, "tcp://127.0.0.1:69697", "0.1"),
    ],
    "testclient.py": [
        (),
        ("-n", "0", SOME),
        ("-c", "-1", SOME),
        ("-c", "many", SOME),
        ("localhost:4161",),
        ("inproc://requests",),
        ("tcp://127.0.0.1:69697",),
        ("tcp://127.0.0.1:4161x",),
    ],
}


AS_OLD_PYTHON = """
import runpy, sys
sys.version_info = (3, 9, 25, "final", 0)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture
def start_broker(start_program: Callable[..., Program]) -> Callable[..., Program]:
    def start_one(*options: object, addresses: tuple[str, ...] = ANY_PORTS) -> Program:
        return start_program("broker.py", "--drain", 0, *options, *addresses)

    return start_one


@pytest.fixture
def unheard() -> Iterator[str]:
    """Return an address that nobody listens on, nor will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{bound.getsockname()[1]}"


def test_the_three_programs_work_together_and_every_reply_arrives(start_program, start_broker):
    broker = start_broker("-T", "0.2")
    requests, ready, results = bound_addresses(broker)
    workers = [start_program("testworker.py", ready, results, 0.1) for _ in range(2)]
    for worker in workers:  # else one may come when the other has done it all
        worker.wait_for("^Asking for tasks$")
    client = start_program("testclient.py", "-n", 3, "-c", 20, requests)
    assert client.wait() == 0
    assert client.wait_for(r"^60 tasks: (\d+) answered, (\d+) failures, in \d+\.\d+ seconds$")
    replies = [line for line in client.lines if line.startswith("Client ")]
    tasks = {(number, 100 * number + i) for number in range(3) for i in range(20)}
    assert {tuple(map(int, line.removeprefix("Client ").split(" -> ")[0].split(": "))) for line in replies} == tasks
    assert all(task.endswith((f"{task.split()[2]} -> -{task.split()[2]}", "-> failure")) for task in replies)
    assert [worker.end() for worker in workers] == [0, 0]
    assert broker.end() == 0
    assert all(worker.wait_for(r"^Task \d+: answering it$") for worker in workers)


@pytest.mark.slow
def test_a_task_that_every_worker_drops_ends_in_a_failure(start_program, start_broker):
    requests, ready, results = bound_addresses(start_broker("-t", 2, "-T", "0.05"))
    worker = start_program("testworker.py", ready, results, 1)
    client = start_program("testclient.py", "-c", 2, requests)
    assert client.wait() == 0
    assert client.lines[:2] == ["Client 0: 0 -> failure", "Client 0: 1 -> failure"]
    assert client.wait_for("^2 tasks: 0 answered, 2 failures, in ")
    assert worker.wait_for("^Task 0: dropping it$", times=2)


def test_a_worker_goes_on_after_a_restart_of_the_broker(start_program, start_broker):
    broker = start_broker()
    requests, ready, results = addresses = bound_addresses(broker)
    worker = start_program("testworker.py", ready, results, 0)
    assert start_program("testclient.py", "-c", 1, requests).wait() == 0
    broker.end(signal.SIGKILL)
    worker.wait_for("^The connection to the broker was lost")
    bound_addresses(start_broker(addresses=addresses))
    assert start_program("testclient.py", "-c", 5, requests).wait() == 0
    assert worker.end() == 0


def test_a_client_sends_again_what_a_restarted_broker_has_forgotten(start_program, start_broker):
    broker = start_broker()
    requests, ready, results = addresses = bound_addresses(broker)
    dropper = start_program("testworker.py", ready, results, 1)
    client = start_program("testclient.py", "-c", 2, requests)
    dropper.wait_for("^Task 0: dropping it$")
    dropper.end()
    broker.end(signal.SIGKILL)
    client.wait_for("^Client 0: the connection was lost, sending 0 again$")
    bound_addresses(start_broker(addresses=addresses))
    start_program("testworker.py", ready, results, 0)
    assert client.wait() == 0
    assert client.wait_for("^2 tasks: 2 answered, 0 failures, in ")


def test_a_client_says_that_no_broker_answers_and_ends_at_ctrl_c(start_program, unheard):
    client = start_program("testclient.py", "-n", 2, "-c", 3, unheard)
    client.wait_for(f"^no reply yet from {unheard}: is the broker running")
    assert client.end(signal.SIGINT) == 130
    assert client.wait_for("^6 tasks: 0 answered, 0 failures, 6 without a reply, in ")
    assert "Traceback" not in client.output


@pytest.mark.parametrize("script", BAD_OPTIONS)
def test_without_pyzmq_a_program_says_in_one_line_what_to_install(script):
    command = [sys.executable, "-S", TOP / script, "--help"]  # -S: no packages but Python's own
    ran = subprocess.run(command, env=without_path(), capture_output=True, text=True, timeout=PATIENCE)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(rf"{script}: pyzmq is not installed .* pip install pyzmq\n", ran.stderr)


@pytest.mark.parametrize("script", BAD_OPTIONS)
def test_under_an_old_python_a_program_says_in_one_line_which_it_needs(script):
    command = [sys.executable, "-S", "-c", AS_OLD_PYTHON, TOP / script]
    ran = subprocess.run(command, env=without_path(), capture_output=True, text=True, timeout=PATIENCE)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"{script}: Python 3.10 or newer is needed, and this is 3.9\n"


def without_path() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.slow
@pytest.mark.parametrize("script", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_status_2(start_program, script):
    programs = {arguments: start_program(script, *arguments) for arguments in BAD_OPTIONS[script]}
    statuses = {arguments: program.wait() for arguments, program in programs.items()}
    assert statuses == dict.fromkeys(programs, 2)
    for arguments, program in programs.items():
        assert len(program.lines) == 1, arguments
        assert program.lines[0].startswith(f"{script}: "), arguments


def test_a_taken_address_is_one_line_and_status_2(start_program, start_broker):
    taken, *_ = bound_addresses(start_broker())
    second = start_broker(addresses=(ANY_PORT, taken, ANY_PORT))
    assert second.wait() == 2
    assert len(second.lines) == 1
    assert taken in second.lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_broker_ends_at_a_signal_with_its_totals(start_program, start_broker, number):
    broker = start_broker()
    requests, ready, results = bound_addresses(broker)
    start_program("testworker.py", ready, results, 0)
    assert start_program("testclient.py", "-c", 3, requests).wait() == 0
    assert broker.end(number) == 0
    assert broker.lines[-1].startswith("3 tasks done, 0 failed, ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_a_task_ends_at_a_signal(start_program, start_broker, number):
    _, ready, results = bound_addresses(start_broker())
    worker = start_program("testworker.py", ready, results, 0)
    worker.wait_for("^Asking for tasks$")
    assert worker.end(number) == 0
    complaints = f"^no answer yet from {SOME}: is the broker running.$"  # after 3 seconds, on a loaded machine
    assert [line for line in worker.lines if not re.match(complaints, line)] == ["Asking for tasks"]


def test_a_worker_that_is_told_to_end_still_delivers_its_result(start_program, start_broker):
    requests, ready, results = bound_addresses(start_broker())
    worker = start_program("testworker.py", ready, results, 0)
    client = start_program("testclient.py", "-c", 1, requests)
    worker.wait_for("^Task 0: answering it$")
    assert worker.end() == 0
    assert client.wait() == 0
    assert "Client 0: 0 -> -0" in client.lines


def test_a_worker_ends_at_a_signal_where_no_broker_listens(start_program, unheard):
    worker = start_program("testworker.py", unheard, SOME, 0)
    worker.wait_for("^Asking for tasks$")
    assert worker.end() == 0
    assert worker.lines == ["Asking for tasks"]


@pytest.mark.parametrize("script", ["testworker.py", "testclient.py"])
def test_output_that_nobody_reads_is_no_traceback(start_program, start_broker, script):
    requests, ready, results = bound_addresses(start_broker())
    other = ("testclient.py", requests) if script == "testworker.py" else ("testworker.py", ready, results, 0)
    arguments = (ready, results, "0") if script == "testworker.py" else (requests,)
    start_program(*other)
    with subprocess.Popen(
        [sys.executable, TOP / script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            process.stdout.close()
            _, complaints = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert complaints == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_the_demo_ends_by_itself_and_leaves_nothing_behind(start_program, mark):
    demo = start_program("tests/demo.py", "0.1")
    assert demo.wait() == 0
    assert demo.wait_for(r"^client +\| 100 tasks: \d+ answered, \d+ failures, in ")
    assert demo.wait_for(r"^broker +\| \d+ tasks done, ")
    assert "Traceback" not in demo.output
    assert processes_with(mark) == []


def test_the_demo_leaves_nothing_behind_when_it_is_interrupted(start_program, mark):
    demo = start_program("tests/demo.py", "1")
    demo.wait_for(r"^client +\| Client 0: 0 -> ")
    assert demo.end(signal.SIGINT) == 130
    assert "Traceback" not in demo.output
    assert processes_with(mark) == []


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Mark the environment of all that is started from here on."""
    value = uuid.uuid4().hex
    monkeypatch.setenv("ZMQBROKER_TEST", value)
    return f"ZMQBROKER_TEST={value}".encode()


def processes_with(mark: bytes) -> list[int]:
    """Return the ids of the processes whose environment holds the mark, where the system can tell."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = mark in environment.read_bytes()
        except OSError:  # gone, or not ours
            continue
        if marked:
            found.append(int(environment.parent.name))
    return found


def test_a_low_limit_of_descriptors_is_said_in_one_line():
    script = f'ulimit -n 100; exec "{sys.executable}" "{TOP / "broker.py"}" --drain 0 {" ".join(ANY_PORTS)}'
    with subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert "only 100 descriptors, one for each connection: raise `ulimit -Hn`" in process.stderr.readline()
        finally:
            process.kill()
