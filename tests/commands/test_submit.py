"""`zmqbroker submit` as a user runs it, against workers in this process."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from conftest import PATIENCE_MS, Peers, Running
from helpers import PATIENCE, TOP, wait_until
from library_support import working
from submit_support import SUBMIT, Submit, handle, run, shouting, submit

from zmqbroker import wire

pytestmark = pytest.mark.once

__all__ = ["shouting", "submit"]  # fixtures


def has_open(process_id: int, file: Path) -> bool:
    """Tell whether a process has a file open, where the system can tell."""
    for descriptor in Path(f"/proc/{process_id}/fd").glob("*"):
        with suppress(OSError):  # closed since it was listed
            if os.readlink(descriptor) == str(file):
                return True
    return False


def test_each_line_is_a_task_and_each_reply_a_line_in_order(shouting: Running, submit: Submit):
    out, err, status = run(submit(shouting.addresses.requests), b"one\n\nthree\r\nlast")
    assert (out, err, status) == (b"ONE\n\nTHREE\r\nLAST\n", b"", 0)


def test_failures_go_to_stderr_with_their_line_and_the_reason(shouting: Running, submit: Submit):
    out, err, status = run(submit("-t", 1, shouting.addresses.requests), b"a\nbad\nc\n")
    assert (out, err, status) == (b"A\nC\n", b"line 2, task 2: ValueError: bad input\n", 1)


def test_unordered_replies_come_with_their_lines_number(shouting: Running, submit: Submit):
    text = b"".join(b"line %d\n" % number for number in range(1, 501))
    out, _, status = run(submit("--unordered", shouting.addresses.requests), text)
    lines = sorted(out.splitlines(), key=lambda line: int(line.split(b"\t")[0]))
    assert lines == [b"%d\tLINE %d" % (number, number) for number in range(1, 501)]
    assert status == 0


def test_files_are_read_one_after_the_other(shouting: Running, submit: Submit, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one\nbad\n")
    (tmp_path / "b").write_bytes(b"three")
    arguments = ["-t", 1, shouting.addresses.requests, tmp_path / "a", "-", tmp_path / "b"]
    out, err, status = run(submit(*arguments), b"two\n")
    assert (out, status) == (b"ONE\nTWO\nTHREE\n", 1)
    assert err == f"{tmp_path}/a, line 2, task 2: ValueError: bad input\n".encode()


def test_a_whole_file_is_one_task(shouting: Running, submit: Submit, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    out, _, status = run(submit("--whole", shouting.addresses.requests, tmp_path / "a", tmp_path / "a"))
    assert (out, status) == (b"ONE\nTWO\nONE\nTWO\n", 0)
    assert shouting.count("accepted") == 2


def test_a_result_of_a_whole_file_gets_a_newline_only_where_it_is_text(
    running: Running, submit: Submit, tmp_path: Path
):
    results = [b"text", b"\x89PNG\r\n", b"\x00\x01", b"\xff", "\u00fc".encode(), b""]
    files = [tmp_path / str(number) for number in range(len(results))]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number)
    with working(running.addresses.ready, lambda body: results[int(body)]):
        out, err, status = run(submit("--whole", running.addresses.requests, *files))
    assert (out, err, status) == (b"text\n\x89PNG\r\n\x00\x01\xff\xc3\xbc\n\n", b"", 0)


def test_options_may_stand_between_the_address_and_the_files(shouting: Running, submit: Submit, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "-b").write_bytes(b"three")
    given = [
        ["--whole", "a", "-", "./-b"],
        ["a", "-T", 5, "-", "--whole", "--", "-b"],
        ["--whole", "--", "a", "-", "-b"],
    ]
    for arguments in given:
        process = submit(shouting.addresses.requests, *arguments, cwd=tmp_path)
        assert run(process, b"two\n") == (b"ONE\nTWO\nTHREE\n", b"", 0)


def test_a_reply_does_not_wait_for_the_next_line(shouting: Running, submit: Submit):
    process = submit(shouting.addresses.requests)
    assert process.stdin is not None
    assert process.stdout is not None
    for line in (b"one\n", b"two\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == line.upper()
    assert run(process) == (b"", b"", 0)


def test_no_more_than_a_window_is_ahead_of_what_was_printed(running: Running, submit: Submit):
    process = submit("--window", 5, running.addresses.requests)
    assert process.stdin is not None
    process.stdin.write(b"task\n" * 100)
    process.stdin.flush()
    running.wait_for("accepted", 5)
    running.let_the_broker_notice()
    assert running.count("accepted") == 5
    with working(running.addresses.ready, handle):
        assert run(process) == (b"TASK\n" * 100, b"", 0)


def test_priority_delay_timeout_and_tries_are_those_of_the_tasks(running: Running, submit: Submit):
    silent = running.worker()
    arguments = ["-T", 0.1, "-t", 1, "--priority", -1, "--delay", 1]  # -1 is a number here, though -0 is an option
    process = submit(*arguments, running.addresses.requests)
    assert process.stdin is not None
    process.stdin.write(b"task\n")
    process.stdin.flush()
    running.wait_until(lambda: running.count("delayed") == 1)
    silent.take()
    out, err, status = run(process)
    assert (out, err, status) == (b"", b"line 1, task 1: timed out after 0.1 s (1 of 1 attempts)\n", 1)


def test_tasks_go_to_their_queue_in_their_group(running: Running, submit: Submit):
    arguments = ["--queue", "gpu", "--group", "ada", "--unordered", running.addresses.requests]
    process = submit(*arguments)
    assert process.stdin is not None
    process.stdin.write(b"A1\nA2\nA3\n")
    process.stdin.flush()
    running.wait_for("accepted", 3)
    other = submit(*arguments[:3], "bob", *arguments[4:])
    assert other.stdin is not None
    other.stdin.write(b"B1\n")
    other.stdin.flush()
    running.wait_for("accepted", 4)
    done: list[bytes] = []
    with working(running.addresses.ready, lambda body: done.append(body) or body, queues=["gpu"], slots=1):  # type: ignore[func-returns-value]
        assert run(process)[2] == run(other)[2] == 0
    assert done == [b"A1", b"B1", b"A2", b"A3"]


def test_a_task_that_expires_has_failed(running: Running, submit: Submit):
    out, err, status = run(submit("--expires", 0.5, running.addresses.requests), b"one\ntwo\n")
    assert (out, status) == (b"", 1)
    assert re.fullmatch(
        rb"line 1, task 1: no result .*\nline 2, task 2: no result .*\n", err
    )  # within 0.5 s, or what is left of it


def test_a_task_that_has_expired_before_an_interruption_counts_as_failed(running: Running, submit: Submit):
    process = submit("--window", 1, "--expires", 0.5, running.addresses.requests)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stderr.readline().startswith(b"line 1, task 1: no result ")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert process.stderr.read() == b"interrupted: 0 tasks done, 1 failed, 0 cancelled\n"


def test_tasks_are_tried_again_as_their_options_say(running: Running, submit: Submit):
    options = ["-t", 3, "--retry-delay", 0.1, "--retry-factor", 2, "--retry-most", 0.15]
    with Peers() as peers:
        broker: zmq.Socket[bytes] = peers.context.socket(zmq.ROUTER)
        broker.rcvtimeo, broker.linger = PATIENCE_MS, 0
        process = submit(*options, f"tcp://127.0.0.1:{broker.bind_to_random_port('tcp://127.0.0.1')}")
        assert process.stdin is not None
        process.stdin.write(b"task\n")
        process.stdin.flush()
        _, header, *_ = broker.recv_multipart()
        broker.close()
    fields = json.loads(header.removeprefix(wire.HEADER))
    del fields["key"]
    assert fields == {"tries": 3, "retry_delay": 0.1, "retry_factor": 2, "retry_most": 0.15}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_what_is_outstanding(running: Running, submit: Submit, number: signal.Signals):
    process = submit(running.addresses.requests)
    assert process.stdin is not None
    process.stdin.write(b"a\nb\nc\n")
    process.stdin.flush()
    running.wait_for("accepted", 3)
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert run(process)[:2] == (b"", b"interrupted: 0 tasks done, 0 failed, 3 cancelled\n")
    running.wait_for("cancelled", 3)


def test_nothing_is_left_at_the_broker_when_a_signal_comes_amid_submitting(running: Running, submit: Submit):
    for accepted in (1, 300):
        process = submit("--window", 5000, running.addresses.requests)
        assert process.stdin is not None
        before = running.count("accepted")
        process.stdin.write(b"task\n" * 5000)
        process.stdin.flush()
        running.wait_for("accepted", before + accepted)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        run(process)
        running.wait_until(lambda: running.count("cancelled") == running.count("accepted"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_ctrl_c_while_lines_are_counted_ends_it_quietly(submit: Submit, tmp_path: Path):
    lines = tmp_path / "lines"
    with lines.open("wb") as file:
        file.truncate(1 << 40)  # takes hours to read, and no space
    ours, theirs = pty.openpty()
    try:
        process = submit("tcp://127.0.0.1:1", lines, stderr=theirs)
        wait_until(lambda: has_open(process.pid, lines))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_fifo_is_opened_once(shouting: Running, submit: Submit, tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = submit(shouting.addresses.requests, fifo)
    fifo.write_bytes(b"one\ntwo\n")
    assert run(process) == (b"ONE\nTWO\n", b"", 0)


def test_a_pipe_that_is_closed_early_ends_it_quietly(shouting: Running, submit: Submit):
    process = submit(shouting.addresses.requests)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x\n" * 20_000)
    process.stdin.flush()
    assert process.stdout.readline() == b"X\n"
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=PATIENCE)
    assert (err, process.returncode) == (b"", 128 + signal.SIGPIPE)


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_complained_of(submit: Submit):
    process = submit("tcp://127.0.0.1:1")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"task\n")
    process.stdin.flush()
    said = b"nobody answers at tcp://127.0.0.1:1: is the broker running there? (connection refused)\n"
    assert process.stderr.readline() == said
    process.send_signal(signal.SIGINT)
    assert run(process)[2] == 130


def test_a_broker_that_does_not_come_in_time_is_the_end(submit: Submit):
    out, err, status = run(submit("tcp://127.0.0.1:1", "--connect-timeout", "0.5"), b"one\ntwo\n")
    assert (out, status) == (b"", 2)
    assert err == (
        b"zmqbroker submit: nobody has answered at tcp://127.0.0.1:1 for 0.5 s: is the broker running there? "
        b"(connection refused)\n"
    )


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_progress_is_shown_on_a_terminal_only(
    shouting: Running, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_tqdm: bool
):
    if not has_tqdm:  # as if it were not installed
        (tmp_path / "tqdm.py").write_text("raise ImportError\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{TOP}")
        monkeypatch.chdir(tmp_path)
    else:
        pytest.importorskip("tqdm")
    (tmp_path / "lines").write_bytes(b"x\n" * 50)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = {"env": os.environ | {"PYTHONPATH": f"{tmp_path}:{TOP}"}}
    command = [*SUBMIT, shouting.addresses.requests, str(tmp_path / "lines")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, **environment)  # type: ignore[call-overload]
    os.close(theirs)
    try:
        out, _ = process.communicate(timeout=PATIENCE)
        shown = os.read(ours, 65536)
    finally:
        process.kill()
        os.close(ours)
    assert out == b"X\n" * 50
    assert b"50" in shown
    assert (b"50 done, 0 failed" in shown) is not has_tqdm


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_how_far_a_single_task_has_come_is_shown(tmp_path: Path, has_tqdm: bool):
    if has_tqdm:
        pytest.importorskip("tqdm")
    else:
        (tmp_path / "tqdm.py").write_text("raise ImportError\n")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{TOP}"}
    with Peers() as peers:
        broker: zmq.Socket[bytes] = peers.context.socket(zmq.ROUTER)
        broker.rcvtimeo = PATIENCE_MS
        command = [*SUBMIT, f"tcp://127.0.0.1:{broker.bind_to_random_port('tcp://127.0.0.1')}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": theirs}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)  # type: ignore[call-overload]
        os.close(theirs)
        try:
            process.stdin.write(b"task\n")
            process.stdin.close()
            client_id, header, *_ = broker.recv_multipart()
            fields = json.loads(header.removeprefix(wire.HEADER))
            assert fields["progress"] is True
            progress = wire.reply_header(fields["key"], wire.PROGRESS, 1, "", 1)
            broker.send_multipart([client_id, progress, b"", b'{"done": 3, "total": 10, "text": "read\\u001bing"}'])
            shown = b""
            while b"3/10 read ing" not in shown:
                assert select.select([ours], [], [], PATIENCE)[0]
                shown += os.read(ours, 65536)
            broker.send_multipart([client_id, wire.reply_header(fields["key"], wire.DONE, 1, "", 1), b"", b"TASK"])
            assert process.stdout.read() == b"TASK\n"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            os.close(ours)
            broker.close(linger=0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "the following arguments are required: REQUESTS"),
        (("nonsense",), "'nonsense' is no address"),
        (("tcp://127.0.0.1:1", "-q", "a", "--wohle"), "unrecognized arguments: --wohle"),
        (("tcp://127.0.0.1:1", "--key", "a"), "unrecognized arguments: --key"),
        (("tcp://127.0.0.1:1", "no-such-file"), "cannot read no-such-file: No such file"),
        (("tcp://127.0.0.1:1", "no\nsuch\x1bfile"), r"cannot read no\nsuch\x1bfile: No such file"),
        (("--window", "0", "tcp://127.0.0.1:1"), "--window must be 1 or more"),
        (("-T", "soon", "tcp://127.0.0.1:1"), "'soon' is no number"),
        (("--priority", "x", "tcp://127.0.0.1:1"), "'x' is no whole number"),
        (("--queue", "a b", "tcp://127.0.0.1:1"), "'a b' is not a name of 1 to 128 of the characters"),
        (("--group", "", "tcp://127.0.0.1:1"), "group must be text of 1 to 64 characters"),
        (("--expires", "0", "tcp://127.0.0.1:1"), "expires must be seconds above 0"),
        (("--expires", "1", "--delay", "1", "tcp://127.0.0.1:1"), "expires must be more than delay"),
        (("--retry-factor", "0", "tcp://127.0.0.1:1"), "'0' is no number from 1 to 1000"),
        (("--retry-delay", "x", "tcp://127.0.0.1:1"), "'x' is no number from 0 up"),
        (("-t", "99999999999", "tcp://127.0.0.1:1"), "tries must be a whole number"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(submit: Submit, arguments: tuple[str, ...], complaint: str):
    out, err, status = run(submit(*arguments), b"task\n")
    assert (out, status, err.count(b"\n")) == (b"", 2, 1)
    assert complaint in err.decode()


def test_json_lines_go_out_as_json_and_come_back_on_one_line_each(running: Running, submit: Submit):
    def pretty(body: bytes) -> bytes:
        return json.dumps({"twice": 2 * json.loads(body)}, indent=2).encode()

    with working(running.addresses.ready, pretty):
        out, err, status = run(submit("--json-lines", running.addresses.requests), b'1\n"a"\n{\n  [1, 2]  \n')
    assert out == b'{"twice":2}\n{"twice":"aa"}\n{"twice":[1,2,1,2]}\n'
    assert err.startswith(b"line 3: it is no JSON: Expecting property name")
    assert (err.count(b"\n"), status) == (1, 1)


def test_a_result_that_is_no_json_has_failed_with_json_lines(running: Running, submit: Submit):
    with working(running.addresses.ready, lambda body: b"<" + body + b">"):
        out, err, status = run(submit("--json-lines", running.addresses.requests), b"1\n")
    assert (out, status) == (b"", 1)
    assert err.startswith(b"line 1: the task is done, but its result cannot be read: it is no JSON")


def test_json_lines_are_lines(submit: Submit):
    out, err, status = run(submit("--json-lines", "--whole", "tcp://127.0.0.1:1"))
    assert (out, status) == (b"", 2)
    assert b"--json-lines goes with no --whole: it takes lines" in err


@pytest.mark.parametrize("option", ["--detach", "--durable"])
def test_a_broker_without_a_store_is_told_of_once(running: Running, submit: Submit, tmp_path: Path, option: str):
    report, again = tmp_path / "report", tmp_path / "again"
    options = [option, "--report", report, "--failed-to", again]
    if option == "--durable":
        options += ["--halt", "now,fail=1"]
    out, err, status = run(submit(*options, running.addresses.requests), b"a\n" * 3000)
    why = b"this broker stores no tasks: it was started without --store"
    assert (out, err, status) == (b"", b"zmqbroker submit: %s\n" % why, 2)
    assert report.read_bytes() == b""
    assert set(again.read_bytes().splitlines()) == {b"a"}
