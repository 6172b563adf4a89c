"""The broker as a process, and what signals do to it and to those who wait for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from conftest import Peers, PlainWorker
from helpers import PATIENCE, TOP, Program, bound_addresses, wait_until

StartBroker = Callable[..., "Served"]


class Served(Peers):
    """A broker process, and peers of it in this one."""

    def __init__(self, *options: object) -> None:
        super().__init__()
        self.program = Program("broker.py", *options, *["tcp://127.0.0.1:*"] * 3)
        self.requests, self.ready, self.results = bound_addresses(self.program)

    def client(self, kind: int = zmq.REQ) -> zmq.Socket[bytes]:
        return self.open(kind, self.requests)

    def worker(self) -> PlainWorker:
        return PlainWorker(self.open(zmq.REQ, self.ready), self.open(zmq.PUSH, self.results, linger=1000))

    def signal(self, number: signal.Signals) -> None:
        self.program.process.send_signal(number)


@pytest.fixture
def serve() -> Iterator[StartBroker]:
    """Return a function that starts a broker process with the given options."""
    started: list[Served] = []

    def serve(*options: object) -> Served:
        started.append(Served(*options))
        return started[-1]

    yield serve
    for served in started:
        served.program.clean_up()
        served.close()


def one_runs_and_others_wait(served: Served, others: int) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Have the broker take in tasks; return the client of the one that runs, and that of the others."""
    running, waiting, worker = served.client(), served.client(zmq.DEALER), served.worker()
    running.send(b"running")
    worker.take()
    for _ in range(others):
        waiting.send_multipart([b"", b"waiting"])
    waiting.send(b"malformed: its answer tells that the others have been taken in")
    assert waiting.recv_multipart() == [b"", b""]
    return running, waiting


def test_sigterm_lets_the_running_task_finish_and_ends_with_status_0(serve: StartBroker):
    served = serve("--drain", 30)
    client, worker = served.client(), served.worker()
    client.send(b"task")
    attempt_id, _ = worker.take()
    served.signal(signal.SIGTERM)
    served.program.wait_for("draining: 1 task")
    worker.reply(attempt_id, b"done")
    assert client.recv() == b"done"
    assert served.program.wait() == 0
    served.program.wait_for("^1 tasks done, 0 failed")


def test_at_the_end_of_the_drain_what_waits_and_what_runs_fails(serve: StartBroker):
    served = serve("--drain", 0.2)
    running, waiting = one_runs_and_others_wait(served, 3)
    served.signal(signal.SIGTERM)
    assert running.recv() == b""
    assert [waiting.recv_multipart() for _ in range(3)] == [[b"", b""]] * 3
    assert served.program.wait() == 0
    served.program.wait_for("^0 tasks done, 4 failed")


def test_ctrl_c_while_a_broker_starts_ends_it_without_a_word(tmp_path: Path):
    interrupt = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nsignal.raise_signal(signal.SIGINT)\n"
    )
    (tmp_path / "zmq.py").write_text(interrupt)  # a shell that started us in the background has SIGINT ignored
    ended = subprocess.run(
        [sys.executable, "broker.py", "--version"],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_drain(serve: StartBroker, number: signal.Signals):
    served = serve("--drain", 3600)
    client, worker = served.client(), served.worker()
    client.send(b"task")
    worker.take()
    served.signal(number)
    served.program.wait_for("draining")

    def has_ended() -> int:
        if served.program.process.poll() is None:
            served.signal(number)  # those of half a second are one
        return client.poll(100)

    wait_until(lambda: bool(has_ended()))
    assert client.recv() == b""
    assert served.program.wait() == 0
    served.program.wait_for(f"{number.name}: ending at once")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_a_terminal_and_a_wrapper_send_are_one(
    serve: StartBroker, first: signal.Signals, second: signal.Signals
):
    served = serve("--drain", 3600)
    client, worker = served.client(), served.worker()
    client.send(b"task")
    attempt_id, _ = worker.take()
    for _ in range(2):
        served.signal(first)
        served.signal(second)
    served.program.wait_for("draining")
    worker.reply(attempt_id, b"done")
    assert client.recv() == b"done"
    assert served.program.wait() == 0
    assert "ending at once" not in served.program.output


def test_a_hangup_is_told_however_quiet_the_log_is():
    served = Program("broker.py", "-q", "ipc://*", "ipc://*", "ipc://*")
    try:
        ask_for_status(served)
        assert served.end(signal.SIGHUP) == 0
        served.wait_for("SIGHUP: ending when what was accepted is done")
    finally:
        served.clean_up()


def test_sigusr1_has_the_state_logged_and_ends_nothing(serve: StartBroker):
    served = serve("--drain", 0)
    one_runs_and_others_wait(served, 2)
    served.signal(signal.SIGUSR1)
    served.program.wait_for("2 tasks waiting, 0 delayed, 1 running; 0 workers idle; so far 0 tasks done, 0 failed")


def ask_for_status(program: Program) -> None:
    """Ask until there is an answer: a program that has only begun to start would be ended by it."""
    wait_until(lambda: "SigCgt" in (text := status_of(program)) and bool(caught(text) >> signal.SIGUSR1 - 1 & 1))
    program.process.send_signal(signal.SIGUSR1)
    program.wait_for("tasks waiting|starting")


def status_of(program: Program) -> str:
    return Path(f"/proc/{program.process.pid}/status").read_text()


def caught(status: str) -> int:
    return int(status.split("SigCgt:")[1].split()[0], 16)


def test_a_broker_that_was_stopped_judges_no_deadline_before_it_has_read_what_came_in_time(serve: StartBroker):
    served = serve("-t", 1, "-T", 1)
    client, worker = served.client(), served.worker()
    for _ in range(2):
        client.send(b"task")
        attempt_id, _ = worker.take()
        served.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, served.program.process.pid, os.WSTOPPED)
        worker.reply(attempt_id, b"in time")
        assert not client.poll(1200)  # milliseconds, past the deadline: a broker that is stopped answers nobody
        served.signal(signal.SIGCONT)
        assert client.recv() == b"in time"
