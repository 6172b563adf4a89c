"""`zmqbroker work` with a broker, where tasks hang: their clients learn why, and the next task is done."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from conftest import Running
from helpers import PATIENCE, wait_until
from work_support import Work, failure

from zmqbroker import Client, TaskFailed

pytest_plugins = ["work_fixtures"]

HANGS = """\
import ctypes, os, signal, time

def perform(body):
    exec(body)
    return b"done"
"""
SLEEP = b"while True: time.sleep(1000)"
IGNORE = b"for number in 1, 2, 15: signal.signal(number, signal.SIG_IGN)\n"
HOLD_THE_GIL = b"ctypes.PyDLL(None).sleep(1000)"

Start = Callable[..., Running]


@pytest.fixture
def directory(directory: Path) -> Path:
    (directory / "hangs.py").write_text(HANGS)
    return directory


def test_two_functions_that_hang_do_not_keep_two_processes(start: Start, run: Work):
    running = start(tries=1, timeout=2.0)
    program = run(running.addresses.ready, "hangs:perform", "--processes", 2)
    running.wait_for("idle", 2)
    with Client(running.addresses.requests) as client:
        began = monotonic()
        hung = [client.submit(hang) for hang in (IGNORE + SLEEP, HOLD_THE_GIL)]
        good = client.submit(b"pass", timeout=60)
        assert good.result(PATIENCE) == b"done"
        took = monotonic() - began
        for future in hung:
            with pytest.raises(TaskFailed, match=r"^timed out"):
                future.result(PATIENCE)
    program.wait_for("past its deadline: killed$", times=2)
    assert took < 10.0


def test_a_process_that_is_done_with_its_task_is_not_taken_to_hang(start: Start, run: Work):
    running = start(tries=1, timeout=1.0)
    program = run(running.addresses.ready, "hangs:perform", "--grace", 0.5, "--processes", 2)
    running.wait_for("idle", 2)
    with Client(running.addresses.requests) as client:
        assert client.call(b"pass", PATIENCE) == b"done"
        assert failure(client, SLEEP).reason.startswith("timed out")
        program.wait_for("past its deadline: killed$")
        running.wait_for("idle", 2)
    assert program.end() == 0
    assert program.output.count("killed") == 1
    assert running.count("late") == 0


def test_two_commands_that_hang_do_not_keep_two_processes(start: Start, run: Work):
    running = start(tries=1, timeout=1.0)
    run(running.addresses.ready, "--processes", 2, "--", "sh")
    with Client(running.addresses.requests) as client:
        hung = [client.submit(b"trap '' TERM; sleep 1000") for _ in range(2)]
        assert client.submit(b"echo done", timeout=60).result(PATIENCE) == b"done\n"
        for future in hung:
            with pytest.raises(TaskFailed, match=r"^timed out"):
                future.result(PATIENCE)


@pytest.mark.parametrize("hang", [IGNORE + SLEEP, HOLD_THE_GIL])
def test_a_client_learns_that_its_task_took_longer_than_it_may(work: Work, client: Client, hang: bytes):
    work("hangs:perform", "--kill-after", 0.5)
    assert failure(client, hang, tries=1).reason == "killed after 0.5 s"
    assert client.call(b"pass", PATIENCE) == b"done"


def test_a_client_learns_how_the_process_ended(work: Work, client: Client):
    work("hangs:perform")
    deaths = [failure(client, b"os._exit(3)", tries=1).reason for _ in range(3)]
    assert "exit status 3" in deaths  # once in a while the broker is faster, and says that the worker was lost


def test_a_late_result_counts_while_its_task_has_no_outcome(start: Start, run: Work):
    running = start(tries=2, timeout=0.5)
    run(running.addresses.ready, "hangs:perform", "--grace", 60)
    with Client(running.addresses.requests) as client:
        assert client.call(b"time.sleep(1)", PATIENCE) == b"done"
    assert running.count("attempts") == 1


def test_a_cancelled_function_is_ended_where_that_is_wanted(work: Work, client: Client, directory: Path):
    program = work("hangs:perform", "--kill-cancelled")
    task = client.submit(b"open('begun', 'w'); time.sleep(1000)")
    wait_until((directory / "begun").exists)
    assert task.cancel()
    assert client.call(b"pass", PATIENCE) == b"done"
    program.wait_for(r"nobody wants the result of task 1 \(\w+-0\) any more: it ends$")


def test_a_cancelled_command_is_ended(work: Work, client: Client, directory: Path):
    work("--", "sh")
    task = client.submit(b"touch begun; sleep 1000")
    wait_until((directory / "begun").exists)
    assert task.cancel()
    assert client.call(b"echo done", PATIENCE) == b"done\n"
