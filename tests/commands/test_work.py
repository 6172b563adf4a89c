"""`zmqbroker work` as a user runs it: a function or a command on tasks, in processes that are looked after."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import Running
from helpers import PATIENCE
from work_support import OTHER, SOME, Fifo, Work, end_at_once, failure, has_left_nothing

from zmqbroker import Client, TaskFailed, __version__
from zmqbroker.wire import chunks
from zmqbroker.worker.outcome import Interrupted
from zmqbroker.worker.process import Settings, WorkerProcess
from zmqbroker.worker.slot import SIZE, Slot, anonymous_file

pytest_plugins = ["work_fixtures"]

AWAY = "tcp://192.0.2.1:4162"  # of no machine
BAD_USAGE = {
    (): "READY",
    (SOME,): "MODULE:FUNCTION",
    (SOME, "--python", "tasks:echo"): "--python takes neither a function nor a command",
    (SOME, "tasks:echo", "--python"): "--python takes neither a function nor a command",
    (SOME, "--python", "--", "sh"): "--python takes neither a function nor a command",
    (SOME, "--python", "--queues", "python.gpu,default"): "--python serves queues for calls alone, .* not default",
    (SOME, "tasks:echo", "--queues", "python"): "the queue python is for calls of functions: give --python",
    (SOME, "--queues", "python.gpu", "--", "sh"): "the queue python.gpu is for calls of functions: give --python",
    (SOME, "tasks:echo", "--trust-the-network"): "--trust-the-network goes with --python",
    (AWAY, "--python"): f"{AWAY} may be another machine, and without identities whoever may send tasks there "
    "runs code here: give --identity and --broker-identity, or --trust-the-network; see docs/security.md",
    ("tcp://no.such.host.invalid:1", "--python"): "has a name that does not resolve now, so it may be another machine",
    (SOME, OTHER): f"{OTHER} is a second address: a worker needs READY alone",
    (SOME, OTHER, "tasks:echo"): f"{OTHER} is a second address: a worker needs READY alone",
    (SOME, OTHER, "--", "sh"): f"{OTHER} is a second address: a worker needs READY alone",
    (SOME, "tasks:echo", "--", "sh"): "either a function, tasks:echo, or a command",
    (SOME, "echo"): "'echo' is no MODULE:FUNCTION; a command goes after --",
    (SOME, "nothing:echo"): "cannot import nothing: ModuleNotFoundError: No module named 'nothing'",
    (SOME, "broken:echo"): r"cannot import broken: NameError: .* \(.*broken.py, line 2\)",
    (SOME, "leaves:echo"): "cannot import leaves: SystemExit: 0",
    (SOME, "greedy:echo"): "no file descriptors are left for a worker",
    (SOME, "greens:echo"): "a Worker needs real threads, and this program has replaced them",
    (SOME, "tasks:nothing"): "cannot find tasks:nothing",
    (SOME, "tasks:number"): "tasks:number is no function but int",
    ("nowhere", "tasks:echo"): "'nowhere' is no address",
    ("tcp://localhost:70000", "tasks:echo"): "its port must be a number from 1 to 65535",
    ("inproc://ready", "tasks:echo"): "use tcp:// or ipc://",
    (SOME, "tasks:echo", "--processes", "many"): "'many' is no whole number",
    (SOME, "tasks:echo", "--queues", ""): "a queue has a name of 1 to 128 of the characters",
    (SOME, "tasks:echo", "--queues", "gpu, default"): "a queue has a name of 1 to 128 of the characters",
    (SOME, "tasks:echo", "--queues", ",".join("a" * 65)): "queues must be a list of 1 to 64 names",
    (SOME, "tasks:echo", "--slots", "-1"): "'-1' is no whole number",
    (SOME, "tasks:echo", "--kill-after", "1e9"): "1,000,000 seconds at most",
    (SOME, "tasks:echo", "--grace", "1e9"): "1,000,000 seconds at most",
    (SOME, "tasks:echo", "--touch", "1e9"): "1,000,000 seconds at most",
    (SOME, "--"): "a command is missing",
    (SOME, "--", "no-such-command-here"): "'no-such-command-here' is no command",
    (SOME, "--", "./tasks.py"): "'./tasks.py' is no command",
}

# Functions


def test_a_function_from_the_current_directory_does_the_tasks(work: Work, client: Client, running: Running):
    program = work("tasks:echo", "--processes", 2)
    assert list(client.map([b"%d" % i for i in range(100)])) == [b"%d" % i for i in range(100)]
    assert client.call([b"two", b"frames"], PATIENCE) == [b"two", b"frames"]
    assert program.end() == 0
    assert [line.split(" ", 2)[2] for line in program.lines] == [
        "2 processes for tasks:echo",
        f"reached zmqbroker {__version__} at {running.addresses.ready}",
        "ending when the tasks in hand are done; a second signal ends them at once",
        "ended",
    ]


def test_a_function_may_be_a_method_in_a_package(work: Work, client: Client):
    program = work("package.deep:things.add", "--slots", 4, "--label", "adder", "-q")
    assert client.call(b"things", PATIENCE) == b"more things"
    assert program.end() == 0
    assert program.lines == []


def test_a_function_gets_tasks_of_the_queues_that_it_is_for_the_first_first(
    run: Work, running: Running, client: Client
):
    queues = ("cpu", "gpu", "default")
    futures = {queue: client.submit(b"", queue=queue) for queue in queues}
    running.wait_for("accepted", 3)
    run(running.addresses.ready, "tasks:queue", "--queues", "gpu,cpu", "--slots", 1)
    results = {queue: futures[queue].result(PATIENCE) for queue in ("gpu", "cpu")}
    assert results == {"gpu": b"1 gpu", "cpu": b"2 cpu"}
    assert not futures["default"].done()


def test_an_exception_fails_the_attempt_with_its_text(work: Work, client: Client):
    work("tasks:bad")
    error = failure(client, b"", tries=2)
    assert (error.reason, error.attempts) == ("ValueError: bad input", 2)


def test_a_function_that_ends_its_process_fails_and_the_process_lives_on(work: Work, client: Client):
    working = work("tasks:leave", "--verbose")
    for _ in range(2):
        assert str(failure(client, b"task", tries=2)) == "the function called sys.exit(0)"
    assert working.end() == 0
    assert len(re.findall("process [0-9]+ starts", working.output)) == 1


def test_a_process_that_the_function_forks_may_end(work: Work, client: Client):
    work("tasks:fork")
    assert client.call(b"task", PATIENCE) == b"0"


def test_a_rejected_task_is_not_tried_again(work: Work, client: Client):
    work("tasks:reject")
    error = failure(client, b"", tries=2)
    assert (error.reason, error.attempts) == ("not now, not ever", 1)


def test_touch_keeps_a_task_that_runs_for_longer_than_its_timeout(work: Work, client: Client):
    work("tasks:slow", "--touch", 0.05)
    assert client.call(b"", PATIENCE, timeout=0.9, tries=1) == b"done"


def test_calls_need_cloudpickle(run: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cloudpickle.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = run(SOME, "--python")
    assert program.wait() == 2
    program.wait_for(r'^zmqbroker work: work --python needs cloudpickle: pip install "zmqbroker\[python\]" ')


# Processes


def test_a_crashed_process_is_replaced(work: Work, client: Client):
    program = work("tasks:crash_once")
    assert client.call(b"", PATIENCE, timeout=5) == b"at the second attempt"
    program.wait_for(r"process \d+ crashed at task 1 \(\w+-0\): exit status 3; another one starts in 0.1 s$")


def test_processes_that_crash_again_and_again_are_replaced_at_growing_intervals(work: Work, client: Client):
    program = work("tasks:crash")
    assert failure(client, b"", timeout=5, tries=3).attempts == 3
    for seconds in (0.1, 0.2, 0.4):
        program.wait_for(
            rf"process \d+ crashed at task 1 \(\w+-0\): killed by SIGKILL; another one starts in {seconds} s$"
        )
    assert program.end() == 0


@pytest.mark.parametrize("processes", [1, 3])
def test_a_broker_that_does_not_come_in_time_is_the_end(run: Work, processes: int):
    program = run(SOME, "tasks:echo", "--connect-timeout", 0.5, "--processes", processes)
    assert program.wait() == 2
    assert f"zmqbroker work: nobody has answered at {SOME} for 0.5 s: is the broker running" in program.lines[-1]


def test_a_replacement_that_cannot_start_says_why(work: Work, client: Client, directory: Path):
    program = work("tasks:echo", "--max-tasks", 1)
    program.wait_for("1 process for tasks:echo")
    shutil.rmtree(directory / "__pycache__", ignore_errors=True)
    (directory / "tasks.py").unlink()
    assert client.call(b"task", PATIENCE) == b"task"
    program.wait_for("crashed: cannot import tasks: ModuleNotFoundError.*; another one starts in 0.1 s$")
    program.wait_for("crashed: cannot import tasks: ModuleNotFoundError.*; another one starts in 0.2 s$")


def test_a_process_leaves_after_its_share_of_tasks(work: Work, client: Client):
    program = work("tasks:process_id", "--max-tasks", 2, "-v")
    first, second, third, fourth, fifth = (client.call(b"", PATIENCE) for _ in range(5))
    assert first == second != third == fourth != fifth
    assert "crashed" not in program.output


@pytest.mark.parametrize(("send", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)])
def test_a_signal_lets_the_task_in_hand_finish(work: Work, client: Client, gate: Fifo, send, number):
    program = work("tasks:gated", "--processes", 2)
    task = client.submit(b"")
    program.wait_for("^got a task$")
    send(program.process.pid, number)
    program.wait_for("ending when the tasks in hand are done")
    gate.open_gate()
    assert task.result(PATIENCE) == b"done"
    assert program.wait() == 0
    assert has_left_nothing(program)
    assert "Traceback" not in program.output


def test_a_second_signal_gives_up_the_task_in_hand(work: Work, client: Client, gate: Fifo):
    program = work("tasks:gated")
    task = client.submit(b"", tries=1)
    program.wait_for("^got a task$")
    assert end_at_once(program) == 0
    with pytest.raises(TaskFailed, match=r"^the handler was interrupted$"):
        task.result(PATIENCE)
    assert has_left_nothing(program)
    assert "Traceback" not in program.output


def test_processes_whose_supervisor_was_killed_finish_the_task_in_hand_and_leave(
    work: Work, client: Client, gate: Fifo
):
    program = work("tasks:gated", "--processes", 2)
    task = client.submit(b"")
    program.wait_for("^got a task$")
    program.process.kill()
    program.process.wait(PATIENCE)
    gate.open_gate()
    assert task.result(PATIENCE) == b"done"
    assert has_left_nothing(program)


def test_a_program_without_a_broker_ends_at_a_signal(run: Work, directory: Path):
    program = run(SOME, "tasks:echo")
    program.wait_for("1 process for tasks:echo")
    assert program.end(signal.SIGINT) == 0
    assert has_left_nothing(program)


# Commands


def test_a_command_gets_the_body_and_prints_the_result(work: Work, client: Client):
    program = work("--processes", 2, "--", "tr", "a-z", "A-Z")
    program.wait_for("2 processes for tr a-z A-Z$")
    assert client.call(b"text", PATIENCE) == b"TEXT"
    assert client.call([b"two ", b"frames"], PATIENCE) == [b"TWO FRAMES"]


@pytest.mark.skipif(shutil.which("factor") is None, reason="there is no factor here")
def test_factor_factors(work: Work, client: Client):
    work("--", "factor")
    assert list(client.map([b"4161", b"4162"])) == [b"4161: 3 19 73\n", b"4162: 2 2081\n"]


def test_a_body_stands_in_the_place_of_an_argument_whatever_it_holds(work: Work, client: Client):
    work("--", "sh", "-c", 'cat; printf "%s." "$@"', "sh", "a{}b", "{}", "{}")
    for body in (b"two words", b"", b"$(exit 3)`';\n", b"\xff{}"):
        assert client.call(body, PATIENCE) == b"a{}b." + 2 * (body + b".")
    assert client.call([b"fra", b"mes"], PATIENCE) == [b"a{}b.frames.frames."]


def test_a_body_that_can_be_no_argument_is_rejected(work: Work, client: Client):
    work("--", "echo", "{}")
    for body, reason in (
        (b"a\0b", "a body with a NUL byte cannot stand in the place of {}"),
        (b"x" * (1 << 22), "the body is too long to stand in the place of {}"),
    ):
        error = failure(client, body)
        assert (error.reason, error.attempts) == (reason, 1)


def test_a_command_fails_with_its_status_and_the_last_line_of_its_complaints(work: Work, client: Client):
    work("--", "sh")
    reasons = {
        b"echo one >&2; echo two >&2; echo >&2; exit 3": "exit status 3: two",
        b"exit 1": "exit status 1",
        b"echo gone >&2; kill -TERM $$": "killed by SIGTERM: gone",
        b"kill -KILL $$": "killed by SIGKILL",
    }
    assert {body: failure(client, body, tries=1).reason for body in reasons} == reasons
    assert client.call(b"echo complaint >&2; echo result", PATIENCE) == b"result\n"


def test_a_command_knows_the_queue_of_its_task(work: Work, client: Client):
    work("--queues", "a/b,default", "--", "sh", "-c", 'echo "$ZMQBROKER_QUEUE"')
    assert client.call(b"", PATIENCE, queue="a/b") == b"a/b\n"
    assert client.call(b"", PATIENCE) == b"default\n"


def test_a_command_is_killed_with_its_group_when_it_takes_too_long(work: Work, client: Client, news: Fifo):
    work("--kill-after", 1.5, "--", "sh")
    hang = client.submit(b"exec 3> news; echo here >&3; sleep 1000 & sleep 1000", tries=1)
    assert news.read() == b"here\n"
    with pytest.raises(TaskFailed, match=r"^killed after 1\.5 s$"):
        hang.result(PATIENCE)
    assert news.read() == b""
    assert failure(client, b"echo 'for long' >&2; sleep 1000", tries=1).reason == "killed after 1.5 s: for long"
    assert client.call(b"echo the next", PATIENCE) == b"the next\n"


def test_large_bodies_go_through_a_command_both_ways(work: Work, client: Client):
    work("--kill-after", 60, "--", "cat")
    body = os.urandom(5_000_000)
    assert client.call(body, PATIENCE) == body


def test_a_command_need_not_read_its_input(work: Work, client: Client):
    work("--", "true")
    assert client.call(bytes(5_000_000), PATIENCE) == b""


def test_a_signal_lets_the_running_command_finish(work: Work, client: Client, gate: Fifo, news: Fifo):
    program = work("--touch", 0.05, "--", "sh")
    task = client.submit(b"echo here > news; read line < gate; echo done", timeout=5)
    assert news.read() == b"here\n"
    os.killpg(program.process.pid, signal.SIGINT)
    program.wait_for("ending when the tasks in hand are done")
    gate.open_gate()
    assert task.result(PATIENCE) == b"done\n"
    assert program.wait() == 0
    assert has_left_nothing(program)


def test_a_second_signal_kills_the_running_command_with_its_group(work: Work, client: Client, news: Fifo):
    program = work("--", "sh")
    task = client.submit(b"exec 3> news; echo here >&3; sleep 1000 & sleep 1000", tries=1)
    assert news.read() == b"here\n"
    assert end_at_once(program) == 0
    with pytest.raises(TaskFailed, match=r"^interrupted: "):
        task.result(PATIENCE)
    assert news.read() == b""
    assert has_left_nothing(program)


def test_a_second_signal_gives_up_all_of_a_chunk_in_hand(work: Work, client: Client, news: Fifo):
    program = work("--", "sh")
    chunk = [[b"exec 3> news; echo one >&3; sleep 1000"], [b"echo two > news"]]
    task = client.submit(chunks.pack(chunk), tries=1)  # type: ignore[arg-type]
    assert news.read() == b"one\n"
    assert end_at_once(program) == 0
    with pytest.raises(TaskFailed, match=r"^interrupted: "):
        task.result(PATIENCE)
    assert news.read() == b""
    assert has_left_nothing(program)


def test_a_second_signal_between_two_bodies_of_a_chunk_gives_up_the_rest(directory: Path):
    settings = Settings(
        SOME,
        "tasks:echo",
        False,
        [],
        ["default"],
        0,
        False,
        0,
        max_tasks=0,
        slots=1,
        connect_timeout=0,
        label=None,
        identity=None,
        broker_identity=None,
        log_level=0,
    )
    process = WorkerProcess(settings, Slot(anonymous_file(bytes(SIZE))))
    assert process._handle(b"first") == b"first"
    process._is_leaving = True
    process._heed(signal.SIGINT, None)
    with pytest.raises(Interrupted, match="told to leave at once"):
        process._handle(b"second")
    process._worker.run()  # closes it


# Usage


@pytest.mark.slow
def test_bad_usage_is_one_line_and_status_2(run: Work):
    programs = {arguments: run(*arguments) for arguments in BAD_USAGE}
    assert {arguments: program.wait() for arguments, program in programs.items()} == dict.fromkeys(programs, 2)
    assert {arguments: len(program.lines) for arguments, program in programs.items()} == dict.fromkeys(programs, 1)
    for arguments, program in programs.items():
        program.wait_for(rf"^zmqbroker work: .*{BAD_USAGE[arguments]}")


def test_help_says_what_both_forms_take(run: Work):
    program = run("--help")
    assert program.wait() == 0
    program.wait_for("READY MODULE:FUNCTION$")
    program.wait_for(r"READY -- COMMAND \[ARG \.\.\.\]$")
    program.wait_for("^  zmqbroker work tcp://localhost:4162 tasks:shrink --processes 4$")


def test_a_command_that_complains_without_end_has_its_last_lines_logged_and_its_result_at_once(
    work: Work, client: Client
):
    working = work("-v", "--", "sh", "-c", "seq 200000 >&2; echo done")
    assert client.call(b"", PATIENCE) == b"done\n"
    working.wait_for(r" \S+:\d+: task 1 \(\w+-0\): stderr: 200000 lines, of which these are the last:$")
    working.wait_for("stderr: 200000$")
    assert not any(line.endswith("stderr: 199000") for line in working.lines)


def test_json_is_for_a_function(work: Work):
    program = work("--json", "--", "cat")
    assert program.wait() == 2
    program.wait_for("--json is for a function")
