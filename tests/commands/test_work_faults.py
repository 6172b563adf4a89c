"""`zmqbroker work` where what it runs misbehaves: forks, threads, signals, and what is left behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Running
from helpers import PATIENCE, wait_until
from work_support import Fifo, Work, failure, has_left_nothing

from zmqbroker import Client

pytest_plugins = ["work_fixtures"]

FAULTS = """\
import asyncio, atexit, logging, multiprocessing, os, signal, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tasks import gated, process_id

forking = multiprocessing.get_context("fork")
SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]

def is_first():
    try:
        Path("first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def terminate(body):
    child = forking.Process(target=time.sleep, args=(1000,))
    child.start()
    child.terminate()
    child.join()
    return b"%d" % child.exitcode

def pool(body):
    with forking.Pool(1) as pool:
        try:
            pool.apply_async(time.sleep, (1000,)).get(timeout=0.2)
        except multiprocessing.TimeoutError:
            return b"gave up"

def executor(body):
    with ProcessPoolExecutor(1) as executor:
        return b"%d" % executor.submit(int, body).result()

def spawned(body):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return b"%d" % executor.submit(int, body).result()

def own_handlers(body):
    reader, writer = os.pipe()
    if os.fork() == 0:
        kinds = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
        os.write(writer, b"%d %d" % (kinds == [signal.SIG_DFL] * 3, signal.set_wakeup_fd(-1)))
        os._exit(0)
    os.wait()
    return os.read(reader, 100)

def falls_through(body):
    if os.fork() == 0:
        exec(body)
        return b"child"
    return b"%d" % os.waitstatus_to_exitcode(os.wait()[1])

def touches(body):
    if os.fork() == 0:
        frame = sys._getframe()
        while "self" not in frame.f_locals or not hasattr(frame.f_locals["self"], "touch"):
            frame = frame.f_back
        try:
            frame.f_locals["self"].touch()
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    return b"%d" % os.waitstatus_to_exitcode(os.wait()[1])

def die_with(child):
    if not is_first():
        return b"done by another process"
    child()
    os.kill(os.getpid(), signal.SIGKILL)

def forked(body):
    return die_with(forking.Process(target=time.sleep, args=(1000,)).start)

def forked_session(body):
    def away():
        os.setsid()
        time.sleep(1000)
    return die_with(forking.Process(target=away).start)

def forked_twice(body):
    def away():
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
    def start():
        if os.fork() == 0:
            away()
            os._exit(0)
        os.wait()
    return die_with(start)

def own_group(body):
    def start():
        Path("child").write_text(str(subprocess.Popen(SLEEP, preexec_fn=os.setpgrp).pid))
    return die_with(start)

def becomes_another(body):
    if is_first():
        os.execvp(SLEEP[0], SLEEP)
    return b"done by another process"

def exits(body):
    if is_first():
        os._exit(0)
    return b"done by another process"

def lingering_thread(body):
    threading.Thread(target=time.sleep, args=(1000,), name="lingers").start()
    return b"%d" % os.getpid()

def lingering_exit(body):
    atexit.register(time.sleep, 1000)
    return b"%d" % os.getpid()

def lingering_child(body):
    forking.Process(target=time.sleep, args=(1000,)).start()
    return b"%d" % os.getpid()

async def cancelled():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)

def base_exception(body):
    return asyncio.run(cancelled()) if body == b"bad" else body

def closed_stderr(body):
    sys.stderr.close()
    raise ValueError("after it was closed")

def no_stderr(body):
    os.closerange(2, 3)
    sys.stderr = None
    raise ValueError("after it was closed")

def broken_logging(body):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("broken")
    logging.getLogger().addHandler(Broken())
    raise ValueError("after it was broken")

def leaving_logging(body):
    def leave(*arguments, **options):
        raise SystemExit(3)
    logging.Logger._log = leave
    raise ValueError("after it was broken")

def timer(body):
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("too slow"))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    time.sleep(1000)

def bad(body):
    raise ValueError(body.decode())
"""


@pytest.fixture(autouse=True)
def faults(directory: Path) -> None:
    """Have the functions of this file there."""
    (directory / "faults.py").write_text(FAULTS)
    (directory / "queue.py").unlink()  # multiprocessing would take it for Python's


# What a forked child inherits


@pytest.mark.parametrize(
    ("function", "body", "result"),
    [
        ("terminate", b"", b"-15"),
        ("pool", b"", b"gave up"),
        ("executor", b"7", b"7"),
        ("spawned", b"7", b"7"),
        ("own_handlers", b"", b"1 -1"),
    ],
)
def test_a_child_of_a_function_has_the_signal_handlers_of_any_process(
    work: Work, client: Client, function: str, body: bytes, result: bytes
):
    program = work(f"faults:{function}")
    for _ in range(3):
        assert client.call(body, PATIENCE, tries=1) == result
    assert program.end() == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", b"0"),
        (b"raise ValueError", b"1"),
        (b"sys.exit(3)", b"3"),
        (b"sys.exit('why')", b"1"),
        (b"os._exit(4)", b"4"),
        (b"raise KeyboardInterrupt", b"1"),
        (b"sys.stderr.close(); raise GeneratorExit", b"1"),
        (b"threading.Thread(target=time.sleep, args=(1000,)).start()", b"0"),
    ],
)
def test_a_child_that_comes_back_out_of_the_function_ends(work: Work, client: Client, body: bytes, status: bytes):
    program = work("faults:falls_through")
    assert client.call(body, PATIENCE, tries=1) == status
    assert client.call(b"", PATIENCE, tries=1) == b"0"
    assert program.end() == 0
    assert has_left_nothing(program)


def test_a_child_cannot_touch(work: Work, client: Client):
    work("faults:touches")
    assert client.call(b"", PATIENCE, tries=1) == b"7"


# What a process leaves behind


@pytest.mark.parametrize("function", ["forked", "forked_session", "forked_twice", "own_group"])
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only the process group is known here")
def test_what_a_killed_process_has_started_ends_and_its_task_is_done_by_another(
    work: Work, client: Client, function: str
):
    program = work(f"faults:{function}", "--processes", 2)
    program.wait_for("2 processes")
    assert client.call(b"", PATIENCE) == b"done by another process"
    assert program.end() == 0
    assert has_left_nothing(program)


def test_a_command_ends_with_its_process(work: Work, client: Client, news: Fifo, directory: Path):
    program = work("--", "sh")
    task = client.submit(b"[ -e first ] && exec echo again; touch first; exec 3> news; echo $PPID >&3; sleep 1000")
    os.kill(int(news.read()), signal.SIGKILL)
    assert news.read() == b""
    assert task.result(PATIENCE) == b"again\n"
    assert program.end() == 0


def test_what_a_command_left_in_the_background_ends_with_its_process(work: Work, client: Client, news: Fifo):
    program = work("--", "sh")
    client.call(b"(exec 3> news; echo here >&3; sleep 1000) & ", PATIENCE)
    assert news.read() == b"here\n"
    assert program.end() == 0
    assert news.read() == b""
    assert has_left_nothing(program)


# What is waited for


@pytest.mark.slow
@pytest.mark.parametrize("function", ["lingering_thread", "lingering_exit", "lingering_child"])
def test_a_process_that_does_not_end_is_replaced_and_then_killed(work: Work, client: Client, function: str):
    program = work(f"faults:{function}", "--max-tasks", 1)
    first, second = (client.call(b"", PATIENCE) for _ in range(2))
    assert first != second
    what = "threads that run on: lingers" if function == "lingering_thread" else "what it does at its exit, or children"
    for process_id in (first, second):
        program.wait_for(rf"process {process_id.decode()} was done and did not end within 5 s \({what}\): killed$")
    assert program.end() == 0
    assert has_left_nothing(program)
    assert "crashed" not in program.output


def test_the_end_of_a_command_is_the_end_whoever_has_its_pipes(work: Work, client: Client):
    program = work("--", "sh")
    assert client.call(b"sleep 1000 & echo done", PATIENCE, tries=1) == b"done\n"
    assert client.call(b"yes & echo done", PATIENCE, tries=1).startswith((b"done\n", b"y\n"))
    assert client.call(b"sleep 1000 <&0 >/dev/null & echo done", PATIENCE, tries=1) == b"done\n"
    assert failure(client, b"sleep 1000 & echo why >&2; exit 3", tries=1).reason == "exit status 3: why"
    assert program.end() == 0


def test_a_command_may_close_its_pipes_long_before_its_end(work: Work, client: Client, news: Fifo, gate: Fifo):
    work("--", "sh")
    task = client.submit(b"echo done; exec <&- >&- 2>&-; echo here > news; read line < gate", tries=1)
    assert news.read() == b"here\n"
    gate.open_gate()
    assert task.result(PATIENCE) == b"done\n"


# What a function raises, closes and breaks


def test_an_exception_that_is_no_exception_fails_the_attempt_and_the_process_lives(work: Work, client: Client):
    program = work("faults:base_exception", "-v")
    for _ in range(3):
        assert failure(client, b"bad", tries=1).reason == "CancelledError"
    assert client.call(b"good", PATIENCE) == b"good"
    assert program.end() == 0
    assert len(re.findall("process [0-9]+ starts", program.output)) == 1


def test_a_function_whose_own_timer_calls_exit_has_failed_and_the_process_lives(work: Work, client: Client):
    program = work("faults:timer", "-v")
    for _ in range(2):
        assert failure(client, b"", tries=1).reason == "the function called sys.exit(too slow)"
    assert program.end() == 0
    assert len(re.findall("process [0-9]+ starts", program.output)) == 1


@pytest.mark.parametrize(
    ("function", "what"),
    [("closed_stderr", "closed"), ("no_stderr", "closed"), ("broken_logging", "broken"), ("leaving_logging", "broken")],
)
def test_a_function_that_breaks_the_log_ends_nothing(work: Work, client: Client, function: str, what: str):
    program = work(f"faults:{function}", "-v")
    for _ in range(3):
        assert failure(client, b"", tries=1).reason == f"ValueError: after it was {what}"
    assert program.end() == 0
    assert len(re.findall("process [0-9]+ starts", program.output)) == 1


def test_a_process_that_ends_in_the_middle_of_a_task_has_crashed_whatever_its_status(work: Work, client: Client):
    program = work("faults:exits")
    assert client.call(b"", PATIENCE) == b"done by another process"
    program.wait_for(r"crashed at task 1 \(\w+-0\): exit status 0; another one starts in 0.1 s$")


def test_a_process_that_has_become_another_program_is_replaced(work: Work, client: Client):
    program = work("faults:becomes_another")
    assert client.call(b"", PATIENCE) == b"done by another process"
    program.wait_for("process [0-9]+ has closed its lifeline, or become another program: killed$")
    assert program.end() == 0
    assert has_left_nothing(program)


def test_a_log_that_nobody_reads_holds_up_nothing(directory: Path, running: Running, client: Client):
    zmqbroker = str(directory.parent / "bin" / "zmqbroker")
    command = [sys.executable, zmqbroker, "work", "-v", running.addresses.ready, "--", "sh"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for _ in range(3):
            assert client.call(b"yes complaint | head -n 10000 >&2; echo done", PATIENCE, tries=1) == b"done\n"
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_failures_are_logged_at_a_limited_rate_and_the_rest_is_told(work: Work, client: Client):
    program = work("faults:bad")
    for number in range(5):
        failure(client, b"%d" % number, tries=1)
    program.wait_for(r" \S+:\d+: task 1 \(\w+-0\): the handler failed in attempt 1: ValueError: 0$")
    program.wait_for(
        r" task 5 \(\w+-4\): the handler failed in attempt 1: ValueError: 4 \(3 more like this were not logged\)$"
    )
    assert program.output.count("Traceback") == 1


# Signals


@pytest.mark.parametrize("numbers", [(signal.SIGHUP,), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM,) * 5])
def test_signals_within_half_a_second_are_one(work: Work, client: Client, gate: Fifo, numbers: tuple[signal.Signals]):
    program = work("faults:gated")
    task = client.submit(b"", tries=1)
    program.wait_for("^got a task$")
    for number in numbers:
        program.process.send_signal(number)
    program.wait_for("ending when the tasks in hand are done")
    gate.open_gate()
    assert task.result(PATIENCE) == b"done"
    assert program.wait() == 0


def test_sighup_says_why_even_when_quiet(work: Work, client: Client):
    program = work("faults:process_id", "-q")
    client.call(b"", PATIENCE)
    assert program.end(signal.SIGHUP) == 0
    assert re.search(" SIGHUP: ending when the tasks in hand are done; [^\n]*$", program.output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_all_there_are_lets_the_task_in_hand_finish(
    work: Work, client: Client, gate: Fifo, number: signal.Signals
):
    program = work("faults:gated", "-v")
    task = client.submit(b"", tries=1)
    program.wait_for("^got a task$")
    process_id = int(program.wait_for("process ([0-9]+) starts")[1])
    for receiver in (process_id, program.process.pid):
        os.kill(receiver, number)
    program.wait_for("1 of 1 processes run" if number == signal.SIGUSR1 else "ending when the tasks in hand are done")
    gate.open_gate()
    assert task.result(PATIENCE) == b"done"
    assert program.end() == 0
    assert "another one starts" not in program.output


def test_a_question_to_a_process_that_has_just_started_does_not_end_it(
    work: Work, client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    (directory / "sitecustomize.py").write_text(
        "import os, signal, sys\nif '-c' in sys.orig_argv: os.kill(os.getpid(), signal.SIGUSR1)"
    )
    monkeypatch.setenv("PYTHONPATH", str(directory))
    program = work("tasks:echo")
    assert client.call(b"answered", PATIENCE) == b"answered"
    assert program.end() == 0
    assert "crashed" not in program.output


def test_a_report_says_what_the_processes_have_done(work: Work, client: Client):
    program = work("-q", "--processes", 1, "--max-tasks", 3, "--", "sh")
    for body in (b"true", b"true", b"kill -9 $PPID", b"false"):
        client.submit(body, tries=1).exception(PATIENCE)
    program.process.send_signal(signal.SIGUSR1)
    program.wait_for(
        r"[01] of 1 processes run \(tasks so far: .*\); "
        r"in all [23] tasks done, [12] failed, 1 processes crashed, 0 hung$"
    )
    assert program.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_before_stays_so(work: Work, client: Client, number: signal.Signals):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        program = work("faults:process_id")
    finally:
        signal.signal(number, before)
    process_id = int(client.call(b"", PATIENCE))
    program.process.send_signal(number)
    if number == signal.SIGHUP:
        os.kill(process_id, number)
    assert client.call(b"", PATIENCE, tries=1) == b"%d" % process_id
    assert program.end() == 0


# The surroundings


def test_a_directory_that_was_replaced_is_that_of_the_next_processes(work: Work, client: Client, directory: Path):
    program = work("tasks:echo", "--max-tasks", 1)
    assert client.call(b"old", PATIENCE) == b"old"
    program.wait_for("1 process for tasks:echo")
    (directory.parent / "new").mkdir()
    (directory.parent / "new" / "tasks.py").write_text("def echo(body):\n    return b'new ' + body\n")
    directory.rename(directory.parent / "old")
    (directory.parent / "new").rename(directory)
    client.call(b"of the process that was there", PATIENCE)
    assert client.call(b"task", PATIENCE) == b"new task"


def test_a_directory_that_is_gone_is_told_at_growing_intervals(work: Work, client: Client, directory: Path):
    program = work("tasks:echo", "--max-tasks", 1)
    program.wait_for("1 process for tasks:echo")
    shutil.rmtree(directory)
    assert client.call(b"task", PATIENCE) == b"task"
    for delay in (0.1, 0.2):
        program.wait_for(rf"cannot start a process: .*No such file or directory: .*; another one starts in {delay} s$")
    assert program.end() == 0


def test_a_long_command_line_is_taken(work: Work, client: Client):
    program = work("--", "sh", "-c", "cat; echo $#", *["argument"] * 20_000)
    assert client.call(b"number ", PATIENCE) == b"number 19999\n"
    assert len(program.wait_for("1 process for sh -c")[0]) < 200
    assert program.end() == 0


def test_a_module_of_the_current_directory_hides_none_that_we_need(work: Work, client: Client, directory: Path):
    (directory / "json.py").write_text("raise RuntimeError('not the one of Python')\n")
    work("tasks:echo")
    assert client.call(b"task", PATIENCE) == b"task"


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="others are not told from ours here")
def test_children_that_are_none_of_ours_are_reaped(work: Work, client: Client, directory: Path):
    script = directory.parent / "bin" / "zmqbroker"
    script.write_text(f"import os\nif os.fork() == 0:\n    os._exit(5)\n{script.read_text()}")
    program = work("tasks:echo")
    assert client.call(b"task", PATIENCE) == b"task"

    def zombies() -> int:
        children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
        return sum(" Z " in Path(f"/proc/{child}/stat").read_text() for child in children)

    wait_until(lambda: zombies() == 0)
    assert program.end() == 0
