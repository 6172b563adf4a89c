"""A supervisor of processes that do nothing but write into their slots: what hangs is ended, and what died is named."""

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from helpers import PATIENCE, wait_until

from zmqbroker.wire.announced import task_header
from zmqbroker.worker.lifeline import FINISH, Process, Program
from zmqbroker.worker.limits import InHand, Limits
from zmqbroker.worker.supervisor import Supervisor

START = f"""
import ctypes, os, signal, socket, sys, time
from time import monotonic
sys.path[:] = {sys.path!r}
from zmqbroker.worker.slot import Slot
lifeline = socket.socket(fileno=int(sys.argv[-2]))
slot = Slot(int(sys.argv[-1]))
lifeline.send(b"ready\\n")
"""
BEGIN = f"slot.begin(b'attempt', {task_header(1, 'a key', 'default', 1, 3, timeout=0.2)!r}, monotonic())\n"
ENDLESS = "slot.begin(b'attempt', b'', monotonic())\n"
SLEEP = "time.sleep(1000)\n"
HANGS = {
    "sleeps": SLEEP,
    "ignores signals": f"for number in 2, 15: signal.signal(number, signal.SIG_IGN)\n{SLEEP}",
    "holds the GIL": "ctypes.PyDLL(None).sleep(1000)\n",
}
DEATHS = {
    "os.kill(os.getpid(), signal.SIGSEGV)\n": "killed by SIGSEGV",
    "os._exit(3)\n": "exit status 3",
    "os._exit(0)\n": "exit status 0",
}

Failures = Sequence[tuple[bytes, str]]


class Log(logging.Handler):
    """Stops a supervisor when so many lines of its log have the text."""

    def __init__(self, supervisor: Supervisor, text: str, times: int) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._supervisor = supervisor
        self._text = text
        self._times = times

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if sum(self._text in line for line in self.lines) == self._times:
            self._supervisor.stop()


def supervise(program: str, limits: Limits, until: str, times: int) -> tuple[list[str], list[tuple[bytes, str]]]:
    """Supervise one process until its log has so many lines with that text; return the log, and what was told."""
    told: list[tuple[bytes, str]] = []
    started = Program([sys.executable, "-c", START + program], b"")
    supervisor = Supervisor(started, 1, "a program", limits, told.extend)
    with logged(Log(supervisor, until, times)) as log, bounded(supervisor):
        supervisor.run()
    return log.lines, told


@contextmanager
def logged(log: Log) -> Iterator[Log]:
    logger = logging.getLogger("zmqbroker.supervisor")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    yield log
    logger.removeHandler(log)
    logger.setLevel(logging.NOTSET)


@contextmanager
def bounded(supervisor: Supervisor) -> Iterator[None]:
    timers = [threading.Timer(PATIENCE + more, supervisor.stop) for more in (0, 1)]
    for timer in timers:
        timer.start()
    yield
    assert all(timer.is_alive() for timer in timers), "waited in vain"
    for timer in timers:
        timer.cancel()


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_process_past_its_deadline_and_the_grace_is_killed_and_replaced(hang: str):
    log, told = supervise(BEGIN + hang, Limits(grace=0.1), "past its deadline: killed", times=2)
    assert not told  # the client has read `timed out`
    assert not [line for line in log if "crashed" in line]


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_process_whose_task_takes_too_long_is_killed_once_that_was_told(hang: str):
    log, told = supervise(ENDLESS + hang, Limits(kill_after=0.3), "is still at a task: killed after 0.3 s", times=2)
    assert told == [(b"attempt", "killed after 0.3 s")] * 2
    assert not [line for line in log if "crashed" in line]


@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_dies_with_a_task_in_hand_is_named(death: str):
    log, told = supervise(BEGIN + death, Limits(), "crashed", times=1)
    assert told[0] == (b"attempt", DEATHS[death])
    assert any(
        line.endswith(f"crashed at task 1 (a key): {DEATHS[death]}; another one starts in 0.1 s") for line in log
    )


def test_a_process_that_dies_between_two_tasks_is_not_named():
    _, told = supervise(BEGIN + "slot.end()\nos._exit(3)\n", Limits(), "crashed: exit status 3", times=1)
    assert not told


@pytest.mark.slow
def test_a_process_that_goes_on_with_another_task_is_left_alone():
    tasks = f"for _ in range(30):\n    {BEGIN}    time.sleep(0.1)\n    slot.end()\nos._exit(3)\n"
    log, told = supervise(tasks, Limits(grace=2.3, kill_after=2.5), "crashed: exit status 3", times=1)
    assert not told
    assert not [line for line in log if "is still at" in line]


def test_a_process_that_has_just_begun_another_task_is_not_killed_for_the_one_before():
    program = Program([sys.executable, "-c", f"{START}{BEGIN}lifeline.recv(1)\nos._exit(7)\n"], b"")
    process = Process(program, now=0.0)
    wait_until(lambda: process.slot.in_hand() is not None)
    process.listen(now=0.0)
    assert process.was_ready
    assert not process.kill_at(InHand(began=0.0, deadline=0.2, attempt_id=b"before"))
    process.tell(FINISH)
    wait_until(lambda: process.notice_end() is not None)
    assert process.end(now=1.0) == 7
    process.slot.close()


@pytest.mark.slow
def test_who_touches_is_left_alone_until_the_limit_of_its_own():
    touches = f"{BEGIN}while True:\n    slot.touch(None)\n    time.sleep(0.05)\n"
    _, told = supervise(
        touches, Limits(grace=2.0, kill_after=3.0), "still at task 1 (a key): killed after 3 s", times=1
    )
    assert told == [(b"attempt", "killed after 3 s")]


def test_processes_that_hang_are_ended_also_by_a_supervisor_that_is_ending():
    log, _ = supervise(BEGIN + SLEEP, Limits(grace=0.5), "1 process for a program", times=1)
    assert "past its deadline: killed" in log[-2]
    assert log[-1] == "ended"
