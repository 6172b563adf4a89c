"""Signals to `zmqbroker submit`: what is finished is printed, and what is not is cancelled at the broker."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Running
from helpers import PATIENCE, TOP, wait_until
from library_support import NOBODY, Gate, working
from submit_support import SUBMIT, Submit, run, shouting, submit

__all__ = ["shouting", "submit"]  # fixtures

SOON = 0.1  # seconds, less than those in which signals are one
LARGE = 300_000  # bytes of a result that no pipe holds


def give(process: "subprocess.Popen[bytes]", text: bytes) -> None:
    """Give it lines, and leave its stdin open."""
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


@pytest.mark.parametrize("apart", [0, 0.001, SOON])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_one_after_the_other_are_one(running: Running, submit: Submit, first: signal.Signals, apart: float):
    process = submit(running.addresses.requests)
    give(process, b"a\nb\n")
    running.wait_for("accepted", 2)
    process.send_signal(first)
    if apart:
        threading.Event().wait(apart)  # the case itself
    process.send_signal(signal.SIGTERM)
    _, err, status = run(process)
    assert status in (128 + first, 128 + signal.SIGTERM)  # at the same time the lower number is heard first
    assert err == b"interrupted: 0 tasks done, 0 failed, 2 cancelled\n"
    running.wait_for("cancelled", 2)


def test_signals_without_end_do_not_keep_it_from_cancelling(running: Running, submit: Submit):
    process = submit(running.addresses.requests)
    give(process, b"a\nb\n")
    running.wait_for("accepted", 2)

    def signal_on() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    wait_until(signal_on)
    assert run(process)[1:] == (b"interrupted: 0 tasks done, 0 failed, 2 cancelled\n", 130)
    running.wait_for("cancelled", 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_starts_ends_it_without_a_word(tmp_path: Path, number: signal.Signals):
    (tmp_path / "zmq.py").write_text(f"import os\nos.kill(os.getpid(), {number})\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{TOP}"}
    ended = subprocess.run([*SUBMIT, NOBODY], cwd=tmp_path, env=environment, capture_output=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-number, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_from_the_start_stays_so(shouting: Running, submit: Submit, number: signal.Signals):
    process = submit(shouting.addresses.requests, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    give(process, b"one\n")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ONE\n"
    process.send_signal(number)
    assert run(process, b"two\n") == (b"TWO\n", b"", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_broker_heeds_no_signal_that_is_ignored_from_the_start(number: signal.Signals):
    command = [sys.executable, "broker.py", "--drain", "0", *["tcp://127.0.0.1:*"] * 3]
    ignore: Callable[[], object] = lambda: signal.signal(number, signal.SIG_IGN)  # noqa: E731
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, preexec_fn=ignore) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(number)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"0 tasks done" in out


@pytest.mark.parametrize("stuck", [b"1", b"3", b"6"])
def test_what_is_finished_is_printed_in_order_and_counted(running: Running, submit: Submit, stuck: bytes):
    gate = Gate(stuck)
    with working(running.addresses.ready, gate, count=2):
        process = submit("-t", 1, running.addresses.requests)
        give(process, b"1\n2\n3\n4\n5\n6\n")
        gate.wait_for(stuck)
        running.wait_for("done", 5)
        process.send_signal(signal.SIGINT)
        out, err, status = run(process)
        gate.open(stuck)
    gap = b"" if stuck == b"6" else b"line %s: cancelled\n" % stuck
    assert (out.split(), status) == ([number for number in b"1 2 3 4 5 6".split() if number != stuck], 130)
    assert err == gap + b"interrupted: 5 tasks done, 0 failed, 1 cancelled\n"


@pytest.mark.parametrize("are_whole", [False, True])
def test_neighbours_that_were_cancelled_are_one_line(running: Running, submit: Submit, tmp_path: Path, are_whole: bool):
    names = ["1", "2", "3", "4\n", "5"]
    for name in names:
        (tmp_path / name).write_text(f"{name[0]}\n")
    options = ["--whole"] if are_whole else []
    process = submit(*options, running.addresses.requests, *names, cwd=tmp_path)
    for body in b"12345":
        worker = running.worker()
        attempt_id, (line,) = worker.take()
        assert line[:1] == bytes([body])
        if body in b"15":
            worker.reply(attempt_id, line)
    running.wait_for("done", 2)
    process.send_signal(signal.SIGINT)
    out, err, status = run(process)
    place = b", line 1" if not are_whole else b""
    assert (out, status) == (b"1\n5\n", 130)
    assert err.split(b"\n")[0] == rb"2%s to 4\n%s (3): cancelled" % (place, place)


def test_the_counts_are_those_of_the_broker_however_busy_it_is(shouting: Running, submit: Submit):
    process = submit("-t", 1, shouting.addresses.requests, __file__, "-")
    assert process.stdin is not None
    threading.Thread(target=flood, args=[process], daemon=True).start()
    shouting.wait_for("done", 500)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    assert process.wait(PATIENCE) == 130
    counts = re.search(rb"^interrupted: (\d+) tasks done, 0 failed, (\d+) cancelled\n", err, re.MULTILINE)
    assert counts is not None
    assert out.count(b"\n") == int(counts[1])
    shouting.let_the_broker_notice()
    accepted, done, cancelled = (shouting.count(name) for name in ("accepted", "done", "cancelled"))
    assert (done, accepted - done) == (int(counts[1]), cancelled)
    assert cancelled <= int(counts[2])  # among which are those that were not sent yet


def flood(process: "subprocess.Popen[bytes]") -> None:
    """Give it lines until it takes no more."""
    assert process.stdin is not None
    try:
        while True:
            process.stdin.write(b"line\n" * 1000)
    except (BrokenPipeError, ValueError):
        return


def test_a_signal_ends_it_though_nobody_reads_what_it_prints(running: Running, submit: Submit):
    with working(running.addresses.ready, lambda body: LARGE * body):
        process = submit(running.addresses.requests)
        give(process, b"a\nb\nc\n")
        running.wait_for("done", 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    _, err, _ = run(process)
    assert err == (
        b"not all that was finished is printed: nobody reads it\ninterrupted: 3 tasks done, 0 failed, 0 cancelled\n"
    )


def test_an_error_cancels_what_is_left(running: Running, submit: Submit, tmp_path: Path):
    (tmp_path / "lines").write_bytes(b"a\nb\n")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = submit(running.addresses.requests, tmp_path / "lines", fifo, tmp_path / "gone-later")
    assert run(process)[2] == 2  # it was never there
    (tmp_path / "gone-later").write_bytes(b"c\n")
    process = submit(running.addresses.requests, tmp_path / "lines", fifo, tmp_path / "gone-later")
    running.wait_for("accepted", 2)
    (tmp_path / "gone-later").unlink()
    fifo.write_bytes(b"")
    _, err, status = run(process)
    assert (status, err) == (
        2,
        f"zmqbroker submit: cannot read {tmp_path}/gone-later: No such file or directory\n".encode(),
    )
    running.wait_for("cancelled", 2)
