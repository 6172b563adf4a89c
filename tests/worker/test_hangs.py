"""`zmqbroker work` where what it runs hangs, dies or is not wanted: what the broker is told, and who goes on."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers import TOP, Program
from worker_support import BareBroker, Outcome

SCRIPT = f"""\
import sys
sys.path[:0] = [{str(TOP)!r}]
from zmqbroker.commands.main import main
sys.exit(main())
"""

TASKS = """\
import ctypes, os, signal, time

def perform(body):
    exec(body)
    return b"done"
"""

HANGS = {
    "sleeps": b"time.sleep(1000)",
    "ignores signals": b"for number in 1, 2, 15: signal.signal(number, signal.SIG_IGN)\nwhile True: time.sleep(1000)",
    "holds the GIL": b"ctypes.PyDLL(None).sleep(1000)",
}
DEATHS = {
    b"os.kill(os.getpid(), signal.SIGSEGV)": b"killed by SIGSEGV",
    b"os._exit(3)": b"exit status 3",
}

Work = Callable[..., Program]


@pytest.fixture
def broker() -> Iterator[BareBroker]:
    with BareBroker() as broker:
        yield broker


@pytest.fixture
def work(broker: BareBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """Return a function that starts `zmqbroker work` for that broker, where there is a tasks.py."""
    (tmp_path / "zmqbroker_script.py").write_text(SCRIPT)
    (tmp_path / "tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def work(*arguments: object) -> Program:
            program = Program(str(tmp_path / "zmqbroker_script.py"), "work", broker.ready, *arguments)
            stack.callback(program.clean_up)
            return program

        yield work


def next_outcome(broker: BareBroker) -> tuple[bytes, Outcome]:
    """Wait for what comes of an attempt; a worker may ask for more meanwhile."""
    while True:
        sender, outcome = broker.said()
        if outcome.verb not in (b"ready", b"withdraw"):
            return sender, outcome


def see_another_one(broker: BareBroker, program: Program) -> None:
    """See that a process has taken the place of one that is gone, and does a task."""
    worker = broker.met()
    broker.give(worker, b"next", b"pass", timeout=None)
    assert next_outcome(broker) == (worker, Outcome(b"done", b"next", (b"done",), 1))
    assert "crashed" not in program.output


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_function_that_hangs_is_ended_after_its_deadline_and_another_process_goes_on(
    broker: BareBroker, work: Work, hang: bytes
):
    program = work("tasks:perform", "--grace", 0.5)
    broker.give(broker.met(), b"hang", hang, timeout=0.5)
    see_another_one(broker, program)  # and nothing was said of the attempt: the broker has given it up by itself
    program.wait_for(r"process \d+ is still at task 1 after 1\.\d s, 0\.\d s past its deadline: killed$")


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_function_that_takes_longer_than_it_may_is_ended_and_the_broker_told(
    broker: BareBroker, work: Work, hang: bytes
):
    program = work("tasks:perform", "--kill-after", 0.5)
    worker = broker.met()
    broker.give(worker, b"hang", hang, timeout=None)
    sender, outcome = next_outcome(broker)
    assert sender != worker
    assert outcome == Outcome(b"fail", b"hang", (b"killed after 0.5 s",), 0)
    see_another_one(broker, program)
    program.wait_for(r"process \d+ is still at task 1: killed after 0.5 s$")


def test_touches_end_with_the_time_that_a_task_may_take(broker: BareBroker, work: Work):
    work("tasks:perform", "--touch", 0.2, "--grace", 0.5, "--kill-after", 1.5)
    worker = broker.met()
    broker.give(worker, b"hang", HANGS["sleeps"], timeout=0.6)
    touches = 0
    while (said := next_outcome(broker)) == (worker, Outcome(b"touch", b"hang", (b"",), 0)):
        touches += 1
    assert said[1] == Outcome(b"fail", b"hang", (b"killed after 1.5 s",), 0)
    assert 2 <= touches <= 7


@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_dies_is_named(broker: BareBroker, work: Work, death: bytes):
    work("tasks:perform")
    worker = broker.met()
    broker.give(worker, b"deadly", death, timeout=None)
    sender, outcome = next_outcome(broker)
    assert sender != worker
    assert outcome == Outcome(b"fail", b"deadly", (DEATHS[death],), 0)
    broker.met()


def test_a_process_whose_task_is_cancelled_is_ended_where_that_is_wanted(broker: BareBroker, work: Work):
    program = work("tasks:perform", "--kill-cancelled")
    worker = broker.met()
    broker.give(worker, b"unwanted", HANGS["sleeps"], timeout=None)
    broker.tell(worker, b"cancel", b"unwanted")
    see_another_one(broker, program)
    program.wait_for("nobody wants the result of task 1 any more: it ends$")


def test_a_command_whose_task_is_cancelled_is_ended_and_its_process_goes_on(broker: BareBroker, work: Work):
    work("--", "sh")
    worker = broker.met()
    broker.give(worker, b"unwanted", b"sleep 1000 & sleep 1000", timeout=None)
    broker.tell(worker, b"cancel", b"unwanted")
    assert next_outcome(broker) == (worker, Outcome(b"fail", b"unwanted", (b"killed by SIGKILL",), 1))
    broker.give(worker, b"next", b"echo done", timeout=None)
    assert next_outcome(broker) == (worker, Outcome(b"done", b"next", (b"done\n",), 1))


def test_a_command_that_hangs_is_ended_with_its_process(broker: BareBroker, work: Work):
    program = work("--grace", 0.5, "--", "sh")
    broker.give(broker.met(), b"hang", b"sleep 1000 & sleep 1000", timeout=0.5)
    broker.met()
    program.wait_for("past its deadline: killed$")


def test_a_command_knows_its_task(broker: BareBroker, work: Work):
    work("--", "sh")
    worker = broker.met()
    about = b'echo "$ZMQBROKER_KEY|$ZMQBROKER_QUEUE|$ZMQBROKER_ATTEMPT"'
    for fields, seen in (
        ({"key": "a key: \N{GREEK SMALL LETTER PHI}", "attempt": 2}, "a key: \N{GREEK SMALL LETTER PHI}|default|2\n"),
        ({"key": "\0\ud800"}, "??|default|1\n"),
        ({}, "|default|1\n"),
    ):
        broker.give(worker, b"about", about, **fields)
        assert next_outcome(broker)[1].argument == (seen.encode(),)


def test_a_line_of_progress_by_a_command_is_told_while_it_runs_and_is_no_complaint(broker: BareBroker, work: Work):
    work("--", "sh")
    worker = broker.met()
    command = b"echo bad >&2; echo ZMQBROKER_PROGRESS 3/10 shrinking >&2; read line < gate; exit 3"
    broker.give(worker, b"slow", b"mkfifo gate; " + command, timeout=None)
    sender, outcome = next_outcome(broker)
    assert (sender, outcome.verb, outcome.attempt_id) == (worker, b"progress", b"slow")
    assert json.loads(outcome.argument[0]) == {"done": 3, "total": 10, "text": "shrinking"}
    Path("gate").write_text("go on\n")
    assert next_outcome(broker)[1] == Outcome(b"fail", b"slow", (b"exit status 3: bad",), 1)
