"""Standard streams that are not what one expects, for all the programs: nothing is lost in silence."""

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Running
from helpers import PATIENCE, TOP, wait_until
from library_support import NOBODY, working
from submit_support import SUBMIT, Submit, run, shouting, submit

pytestmark = pytest.mark.once

__all__ = ["shouting", "submit"]  # fixtures

FULL = Path("/dev/full")
ZMQBROKER = [sys.executable, "-m", "zmqbroker"]
TALKING = {  # what prints, and ends by itself
    "help": [*ZMQBROKER, "--help"],
    "version": [*ZMQBROKER, "--version"],
    "serve-version": [*ZMQBROKER, "serve", "--version"],
    "work-help": [*ZMQBROKER, "work", "--help"],
    "submit-help": [*ZMQBROKER, "submit", "--help"],
    "broker-help": [sys.executable, "broker.py", "--help"],
    "testworker": [sys.executable, "testworker.py", NOBODY, "tcp://127.0.0.1:2", "0"],
    "testworker-help": [sys.executable, "testworker.py", "--help"],
    "testclient-help": [sys.executable, "testclient.py", "--help"],
}
READ_LATE = 300_000  # bytes of a result that no pipe holds


def shell(command: list[str], redirections: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command with redirections as a shell writes them."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *command],
        cwd=TOP,
        env=os.environ | environment,
        capture_output=True,
        timeout=PATIENCE,
    )


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirection", [">&-", f">{FULL}"])
@pytest.mark.parametrize("name", TALKING)
def test_output_that_is_lost_is_one_line_and_status_2(name: str, redirection: str, unbuffered: str):
    ended = shell(TALKING[name], redirection, PYTHONUNBUFFERED=unbuffered)
    why = b"No space left on device" if "full" in redirection else b"Bad file descriptor"
    assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1), ended.stderr
    assert why in ended.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirection", [">&-", f">{FULL}"])
def test_results_that_are_lost_are_one_line_and_status_2(shouting: Running, redirection: str, unbuffered: str):
    ended = shell([*SUBMIT, shouting.addresses.requests, __file__], redirection, PYTHONUNBUFFERED=unbuffered)
    why = "No space left on device" if "full" in redirection else "Bad file descriptor"
    assert (ended.returncode, ended.stderr.decode()) == (2, f"zmqbroker submit: cannot write to stdout: {why}\n")


@pytest.mark.parametrize("name", TALKING)
def test_nobody_who_reads_is_status_141_and_no_word(name: str):
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        ended = subprocess.run(TALKING[name], cwd=TOP, stdout=theirs, stderr=subprocess.PIPE, timeout=PATIENCE)
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("what", ["2>&-", "2>/dev/full"])
def test_a_stderr_that_takes_nothing_changes_nothing_else(shouting: Running, what: str):
    command = [*SUBMIT, "-t", "1", shouting.addresses.requests, "-"]
    ended = shell(command, f"{what} <<'end'\na\nbad\nc\nend\n")
    assert (ended.stdout, ended.stderr, ended.returncode) == (b"A\nC\n", b"", 1)


@pytest.mark.parametrize("command", [SUBMIT, [*SUBMIT, "--whole"]])
def test_a_stdin_that_is_closed_cannot_be_read(shouting: Running, command: list[str]):
    ended = shell([*command, shouting.addresses.requests], "<&-")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.startswith(b"zmqbroker submit: cannot read stdin: Bad file descriptor")


def opened(process_id: int) -> dict[str, str]:
    """Return what the descriptors of a process are, by number; one that was closed just now is left out."""
    found = {}
    for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[descriptor.name] = os.readlink(descriptor)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("program", ["broker.py", "testworker.py", "testclient.py", "submit"])
def test_no_descriptor_of_zeromq_is_taken_for_a_standard_stream(program: str, tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = {
        "broker.py": [sys.executable, "broker.py", "-q", *["tcp://127.0.0.1:*"] * 3],
        "testworker.py": [sys.executable, "testworker.py", NOBODY, "tcp://127.0.0.1:2", "0"],
        "testclient.py": [sys.executable, "testclient.py", NOBODY],
        "submit": [*SUBMIT, NOBODY, str(fifo)],
    }[program]
    closed = "<&-" if program == "testworker.py" else "<&- >&-"
    script = ["sh", "-c", f'exec "$@" {closed} 2>&-', "sh", *command]
    with subprocess.Popen(script, cwd=TOP, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: any(what.startswith("socket:") for what in opened(process.pid).values()))
            assert {opened(process.pid).get(name) for name in "012"} == {"/dev/null"}
        finally:
            process.kill()


@pytest.mark.parametrize("given", [[b"one\ntwo\n", b"three\n"], [b"one\ntw", b"o\nthree\n"]])
def test_a_stdin_that_does_not_block_is_waited_for(shouting: Running, submit: Submit, given: list[bytes]):
    theirs, ours = os.pipe()
    os.set_blocking(theirs, False)
    process = submit(shouting.addresses.requests, stdin=theirs)
    os.close(theirs)
    with os.fdopen(ours, "wb", buffering=0) as writer:
        assert process.stdout is not None
        for part in given:
            writer.write(part)
            for _ in range(part.count(b"\n")):
                assert process.stdout.readline()
    assert (process.wait(PATIENCE), process.stdout.read()) == (0, b"")
    assert shouting.count("accepted") == 3


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_does_not_block_is_waited_for(
    running: Running, submit: Submit, unbuffered: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with working(running.addresses.ready, lambda body: READ_LATE * body):
        process = submit(running.addresses.requests, stdin=subprocess.PIPE, stdout=theirs)
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"a\nb\n")
        process.stdin.close()
        running.wait_for("done", 2)
        with os.fdopen(ours, "rb") as reader:
            assert reader.read() == b"a" * READ_LATE + b"\n" + b"b" * READ_LATE + b"\n"
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("command", [[*SUBMIT, NOBODY, "nicht-\u00fcberall"], [*ZMQBROKER, "\u00fcbel"]])
def test_an_encoding_that_lacks_a_letter_is_no_traceback(command: list[str]):
    ended = shell(command, "", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1)
    assert rb"\xfcb" in ended.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_broker_whose_stdout_is_full_says_so_and_serves(submit: Submit, tmp_path: Path):
    addresses = [f"ipc://{tmp_path}/{name}" for name in ("requests", "ready", "results")]
    with FULL.open("wb") as full:
        command = [*ZMQBROKER, "serve", "--drain", "0", *addresses]
        broker = subprocess.Popen(command, cwd=TOP, stdout=full, stderr=subprocess.PIPE)
    assert broker.stderr is not None
    try:
        with working(addresses[1], bytes.upper):
            assert run(submit(addresses[0]), b"task\n") == (b"TASK\n", b"", 0)
        broker.terminate()
        complaints = broker.communicate(timeout=PATIENCE)[1]
    finally:
        broker.kill()
    assert broker.returncode == 2
    assert b"cannot write to stdout: No space left on device\n" in complaints
    assert b"Traceback" not in complaints


def on_terminal(terminal: int) -> Callable[[], None]:
    """Make it the controlling terminal of a process in a session of its own."""

    def attach() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return attach


@pytest.mark.parametrize("options", [[], ["-q"]])
def test_a_terminal_that_goes_away_cancels_what_is_left(running: Running, submit: Submit, options: list[str]):
    ours, theirs = os.openpty()
    terminal = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = submit(*options, running.addresses.requests, **terminal, preexec_fn=on_terminal(theirs))
    os.close(theirs)
    try:
        os.write(ours, b"one\ntwo\nthree")  # the last line is not entered
        running.wait_for("accepted", 2)
    finally:
        os.close(ours)
    assert process.wait(PATIENCE) in (129, 2)  # SIGHUP, or what reading says at the same time
    running.wait_for("cancelled", 2)
    assert running.count("accepted") == 2
