"""The files of `zmqbroker submit`: reports and resuming, results, failed inputs; and how it is halted."""

import json
import re
import resource
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from conftest import Running
from helpers import PATIENCE, wait_until
from library_support import Gate, working
from submit_support import Submit, handle, run, shouting, submit

pytestmark = pytest.mark.once

__all__ = ["shouting", "submit"]  # fixtures

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def report_of(file: Path) -> list[dict[str, Any]]:
    """Read a report: each line but one that is not finished yet."""
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]


def give(process: Any, text: bytes) -> None:
    process.stdin.write(text)
    process.stdin.flush()


# -0


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_lines_may_end_with_a_nul_and_have_newlines(shouting: Running, submit: Submit, end: bytes):
    for option in ("-0", "--null"):
        assert run(submit(option, shouting.addresses.requests), b"one\ntwo\0\0three" + end) == (
            b"ONE\nTWO\n\nTHREE\n",
            b"",
            0,
        )


def test_a_line_that_ends_with_a_nul_is_done_as_soon_as_it_is_there(shouting: Running, submit: Submit):
    process = submit("-0", shouting.addresses.requests)
    assert process.stdout is not None
    give(process, b"one\0tw")
    assert process.stdout.readline() == b"ONE\n"
    assert run(process, b"o") == (b"TWO\n", b"", 0)


# Reports


def test_a_report_tells_what_became_of_each_line(running: Running, submit: Submit, tmp_path: Path):
    report = tmp_path / "report"
    with working(running.addresses.ready, handle, label="one"):
        out, _, status = run(submit("-t", 2, "--report", report, running.addresses.requests), b"a\nbad\n")
    assert (out, status) == (b"A\n", 1)
    done, failed = sorted(report_of(report), key=lambda line: line["line"])
    for line in (done, failed):
        assert line.pop("seconds") >= 0
        assert line.pop("worker").startswith("one (")
    assert done == {"line": 1, "status": "done", "attempts": 1, "reason": None, "checksum": "e8b7be43"}
    assert (failed["line"], failed["status"], failed["attempts"]) == (2, "failed", 2)
    assert failed["reason"] == "ValueError: bad input"


def test_a_report_that_is_there_is_not_overwritten(submit: Submit, tmp_path: Path):
    report = tmp_path / "report"
    report.write_bytes(b'{"line": 1}\n')
    _, err, status = run(submit("--report", report, "tcp://127.0.0.1:1"))
    assert (status, err.count(b"\n")) == (2, 1)
    assert f"{report} is there already: go on with it by --resume or --resume-failed".encode() in err
    _, err, status = run(submit("--resume", "--report", report, "tcp://127.0.0.1:1"))
    assert (status, report.read_bytes()) == (2, b'{"line": 1}\n')
    assert f"{report}, line 1: it is no line of a report".encode() in err


def test_to_resume_leaves_out_what_was_reported(shouting: Running, submit: Submit, tmp_path: Path):
    report, again = tmp_path / "report", tmp_path / "again"
    options = ["-t", 1, "--report", report]
    assert run(submit(*options, "--resume", shouting.addresses.requests), b"a\nbad\n")[0] == b"A\n"  # from the start
    half = b'{"line": 3, "stat'
    with report.open("ab") as file:
        file.write(half)
    out, err, status = run(
        submit(*options, "--resume", "--failed-to", again, shouting.addresses.requests), b"a\nbad\nc\n"
    )
    earlier = b"1 has failed in an earlier run: --resume-failed does it again\n"
    assert (out, err, status) == (b"C\n", earlier, 1)
    assert again.read_bytes() == b"bad\n"
    assert run(submit(*options, "--resume", shouting.addresses.requests), b"a\nbad\nc\n") == (b"", earlier, 1)
    assert Counter(line["line"] for line in report_of(report)) == {1: 1, 2: 1, 3: 1}
    out, err, status = run(submit(*options, "--resume-failed", shouting.addresses.requests), b"a\nbad\nc\n")
    assert (out, err, status) == (b"", b"line 2, task 4: ValueError: bad input\n", 1)
    assert Counter(line["line"] for line in report_of(report)) == {1: 1, 2: 2, 3: 1}


def test_an_input_that_has_changed_is_not_resumed(shouting: Running, submit: Submit, tmp_path: Path):
    report = tmp_path / "report"
    run(submit("--report", report, shouting.addresses.requests), b"a\nb\n")
    _, err, status = run(submit("--report", report, "--resume", shouting.addresses.requests), b"new\na\nb\n")
    assert (status, err.count(b"\n")) == (2, 1)
    assert b"line 1 is not what it was when it was reported" in err


def test_whole_files_are_resumed_by_their_names(shouting: Running, submit: Submit, tmp_path: Path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    command = ["--whole", "--report", "report", "--resume", shouting.addresses.requests]
    assert run(submit(*command, "a", "b", cwd=tmp_path))[0] == b"A\nB\n"
    (tmp_path / "b").write_text("changed")
    assert run(submit(*command, "c", "b", "a", cwd=tmp_path))[0] == b"C\nCHANGED\n"
    assert [line["file"] for line in report_of(tmp_path / "report")] == ["a", "b", "c", "b"]


def test_tasks_that_are_left_are_reported_with_their_keys(
    start: Callable[..., Running], submit: Submit, tmp_path: Path
):
    running, report = start(store=tmp_path / "tasks"), tmp_path / "report"
    options = ["--detach", "--report", report, "--resume", running.addresses.requests]
    first, _, status = run(submit(*options), b"a\nb\n")
    assert status == 0
    second, _, status = run(submit(*options), b"a\nb\nc\n")
    assert (len(second.split()), status) == (1, 0)
    lines = report_of(report)
    assert [(line["line"], line["status"]) for line in lines] == [(1, "accepted"), (2, "accepted"), (3, "accepted")]
    assert [line["key"] for line in lines] == (first + second).decode().split()


def test_what_is_killed_and_resumed_does_each_line_once(running: Running, submit: Submit, tmp_path: Path):
    lines, report, results = tmp_path / "lines", tmp_path / "report", tmp_path / "results"
    lines.write_bytes(b"".join(b"line %d\n" % number for number in range(1, 2001)))
    command = ["--report", report, "--resume", "--results", results, running.addresses.requests, lines]
    with working(running.addresses.ready, handle, count=2):
        for most in (200, 900):
            process = submit(*command)
            wait_until(lambda most=most: report.exists() and report.read_bytes().count(b"\n") > most)  # type: ignore[misc]
            process.kill()
            process.wait(PATIENCE)
            assert process.returncode == -signal.SIGKILL
        assert run(submit(*command)) == (b"", b"", 0)
    told = report_of(report)
    assert Counter(line["line"] for line in told) == dict.fromkeys(range(1, 2001), 1)
    assert {line["status"] for line in told} == {"done"}
    assert {file.name: file.read_bytes() for file in results.glob("[0-9]*")} == {
        str(number): b"LINE %d" % number for number in range(1, 2001)
    }


def test_nothing_is_reported_that_was_not_printed_when_it_is_killed(running: Running, submit: Submit, tmp_path: Path):
    lines, report = tmp_path / "lines", tmp_path / "report"
    lines.write_bytes(b"".join(b"line %d\n" % number for number in range(1, 2001)))
    command = ["--report", report, "--resume", running.addresses.requests, lines]
    with working(running.addresses.ready, handle), (tmp_path / "out").open("ab") as out:
        process = submit(*command, stdout=out)
        wait_until(lambda: report.exists() and report.read_bytes().count(b"\n") > 500)
        process.kill()
        process.wait(PATIENCE)
        assert run(submit(*command, stdout=out))[2] == 0
    assert {int(line.split()[1]) for line in (tmp_path / "out").read_bytes().splitlines()} == set(range(1, 2001))
    assert Counter(line["line"] for line in report_of(report)) == dict.fromkeys(range(1, 2001), 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_million_lines_are_resumed_in_flat_memory(running: Running, submit: Submit, tmp_path: Path):
    lines = [b"%d\n" % number for number in range(1_000_000)]
    told = b'"status": "done", "attempts": 1, "seconds": 0.1, "worker": "", "reason": null'
    line = b'{"line": %d, ' + told + b', "checksum": "%08x"}\n'
    report = tmp_path / "report"
    report.write_bytes(b"".join(line % (number, crc32(text[:-1])) for number, text in enumerate(lines, 1)))
    peaks = []
    for file, text in ((tmp_path / "empty", b""), (report, b"".join(lines))):
        process = submit("--report", file, "--resume", running.addresses.requests)
        give(process, text + b"one more\n")
        running.wait_for("accepted", len(peaks) + 1)  # which is all that is left
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks.append(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]))
    assert peaks[1] - peaks[0] < 15_000, peaks  # 5,000 of it for what was reported, and some for buffers


# Results


def test_results_go_to_files_of_a_directory(shouting: Running, submit: Submit, tmp_path: Path):
    results = tmp_path / "some" / "results"
    command = ["-t", 1, "--results", results, shouting.addresses.requests]
    out, err, status = run(submit(*command), b"a\nbad\n\n")
    assert (out, err, status) == (b"", b"line 2, task 2: ValueError: bad input\n", 1)
    files = {file.name: file.read_bytes() for file in results.iterdir()}
    assert files == {"1": b"A", "2.err": b"ValueError: bad input\n", "3": b""}


def test_results_of_an_earlier_run_are_not_lost(shouting: Running, submit: Submit, tmp_path: Path):
    results, report = tmp_path / "results", tmp_path / "report"
    results.mkdir()
    (results / "other").write_bytes(b"is no harm")
    command = ["-t", 1, "--results", results, "--report", report, shouting.addresses.requests]
    assert run(submit(*command), b"a\nbad\n")[2] == 1
    for others in ([], ["--report", tmp_path / "new"], ["--report", tmp_path / "new", "--resume"]):
        out, err, status = run(submit("--results", results, *others, shouting.addresses.requests), b"other\n")
        assert (out, status, err.count(b"\n")) == (b"", 2, 1)
        assert f"{results} has results already: name another directory, or go on with the --report".encode() in err
    (results / "2").write_bytes(b"by hand")
    assert run(submit(*command, "--resume-failed"), b"a\nbad\nc\n")[2] == 1
    files = {file.name: file.read_bytes() for file in results.iterdir()}
    assert files == {
        "1": b"A",
        "2": b"by hand",
        "2.err": b"ValueError: bad input\n",
        "3": b"C",
        "other": b"is no harm",
    }


def test_the_reason_of_an_earlier_run_goes_with_a_result(running: Running, submit: Submit, tmp_path: Path):
    results = tmp_path / "results"
    command = ["-t", 1, "--results", results, "--report", tmp_path / "report", "--resume-failed"]
    for handler in (handle, bytes.upper):
        with working(running.addresses.ready, handler):
            run(submit(*command, running.addresses.requests), b"bad\n")
    assert {file.name: file.read_bytes() for file in results.iterdir()} == {"1": b"BAD"}


def test_the_result_of_each_file_goes_to_one_that_is_named_after_it(shouting: Running, submit: Submit, tmp_path: Path):
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_bytes(b"bad" if name == "b.txt" else name.encode())
    command = ["-t", 1, "--whole", "--output", "out/{/.}.up", shouting.addresses.requests]
    out, err, status = run(submit(*command, "a.txt", "b.txt", "c.txt", cwd=tmp_path))
    assert (out, err, status) == (b"", b"b.txt, task 2: ValueError: bad input\n", 1)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {
        "a.up": b"A.TXT",
        "c.up": b"C.TXT",
    }


def test_a_result_that_does_not_fit_on_the_disk_leaves_no_piece_of_it(running: Running, submit: Submit, tmp_path: Path):
    report, results = tmp_path / "report", tmp_path / "results"
    command = ["--report", report, "--results", results, running.addresses.requests]
    with working(running.addresses.ready, lambda body: body * 5000):
        process = submit(*command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
        _, err, status = run(process, b"large\n")
    assert (err, status) == (f"zmqbroker submit: cannot write {results}/1: File too large\n".encode(), 2)
    assert list(results.iterdir()) == []
    assert report.read_bytes() == b""


@pytest.mark.once
def test_outputs_that_would_lose_something_are_refused(submit: Submit, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b.x").write_bytes(b"b")
    (tmp_path / "link").symlink_to("a")
    for template, inputs, why in (
        ("out", ["a", "b.x"], b"names the same file for all"),
        ("out/{/.}", ["a", "./a"], b"the results of a and ./a would both be out/a"),
        ("{.}", ["a"], b"a would be overwritten, and is an input"),
        ("link", ["a"], b"link would be overwritten, and is an input"),
        ("/dev/null", ["a"], b"/dev/null is there already, and is no file"),
        ("{}.out", ["-"], b"stdin has no name"),
        ("a/{/}", ["b.x"], b"cannot write a: "),
    ):
        process = submit("--whole", "--output", template, "tcp://127.0.0.1:1", *inputs, cwd=tmp_path)
        _, err, status = run(process)
        assert (status, err.count(b"\n")) == (2, 1)
        assert why in err
    assert (tmp_path / "a").read_bytes() == b"a"
    assert not (tmp_path / "out").exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--resume"], b"--resume goes with --report"),
        (["--resume-failed"], b"--resume-failed goes with --report"),
        (["--report", "r", "--resume", "--resume-failed"], b"not allowed with argument"),
        (["--output", "{}.out"], b"--output goes with --whole"),
        (["--whole", "--output", "{}.out", "--results", "d"], b"--results goes with no --output"),
        (["--results", "d", "--detach"], b"--results goes with no --detach: there are no results then"),
        (["--results", "d", "--keep-lines"], b"--results goes with no --keep-lines: nothing is printed then"),
        (["--results", "d", "--unordered"], b"--results goes with no --unordered"),
        (["--halt", "now,fail=1", "--detach"], b"--halt goes with no --detach"),
        (["--halt", "1"], b"argument --halt: '1' is not soon,fail=N or now,fail=N"),
        (["--give-up", "0"], b"--give-up must be more than 0"),
        (["--failed-to", "a"], b"--failed-to would empty a, which is an input"),
        (["--failed-to", "r", "--report", "r"], b"--report and --failed-to are the same file"),
        (["--whole", "--report", "r"], b"a file is named twice"),
        (["--results", "a"], b"cannot write a: File exists"),
        (["--report", "none/r"], b"cannot write none/r: No such file or directory"),
    ],
)
def test_options_that_do_not_go_together_are_refused(submit: Submit, tmp_path: Path, options: list[str], why: bytes):
    (tmp_path / "a").write_bytes(b"a\n")
    out, err, status = run(submit(*options, "tcp://127.0.0.1:1", "a", "a", cwd=tmp_path))
    assert (out, status, err.count(b"\n")) == (b"", 2, 1)
    assert why in err
    assert (tmp_path / "a").read_bytes() == b"a\n"


# Failed inputs


@pytest.mark.parametrize("options", [[], ["-0"]])
def test_the_inputs_that_failed_are_ready_to_be_submitted_again(
    shouting: Running, submit: Submit, tmp_path: Path, options: list[str]
):
    end = b"\0" if options else b"\n"
    command = [*options, "-t", 1, "--failed-to", tmp_path / "again", shouting.addresses.requests]
    assert run(submit(*command), b"a%sbad \xff\r%sb%sbad" % (end, end, end))[2] == 1
    assert sorted((tmp_path / "again").read_bytes().split(end)) == [b"", b"bad", b"bad \xff\r"]


def test_the_names_of_files_that_failed_are_ready_too(shouting: Running, submit: Submit, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"bad")
    command = ["-t", 1, "--whole", "--failed-to", "again", shouting.addresses.requests, "a", "b"]
    assert run(submit(*command, cwd=tmp_path))[2] == 1
    assert (tmp_path / "again").read_bytes() == b"b\n"


@pytest.mark.once
def test_names_with_newlines_are_ready_only_with_a_nul_at_their_ends(submit: Submit, tmp_path: Path):
    (tmp_path / "a\nb").write_bytes(b"a")
    command = ["--whole", "--failed-to", "again", "tcp://127.0.0.1:1", "a\nb"]
    _, err, status = run(submit(*command, cwd=tmp_path))
    assert (status, err.count(b"\n")) == (2, 1)
    assert rb"a\nb has a newline in its name: --failed-to needs -0 then" in err
    assert not (tmp_path / "again").exists()
    assert run(submit("-0", "--give-up", 0.1, *command, cwd=tmp_path))[2] == 124
    assert (tmp_path / "again").read_bytes() == b"a\nb\0"


def test_what_is_interrupted_is_among_the_failed_inputs_and_not_in_the_report(
    running: Running, submit: Submit, tmp_path: Path
):
    report, again = tmp_path / "report", tmp_path / "again"
    process = submit("--report", report, "--failed-to", again, running.addresses.requests)
    give(process, b"a\nb\n")
    running.wait_for("accepted", 2)
    process.send_signal(signal.SIGTERM)
    assert run(process)[2] == 143
    assert again.read_bytes() == b"a\nb\n"
    assert report.read_bytes() == b""


@needs_full
@pytest.mark.parametrize("option", ["--report", "--failed-to", "stdout"])
def test_a_full_disk_is_one_line_and_nothing_is_claimed(shouting: Running, submit: Submit, tmp_path: Path, option: str):
    files = {"--report": tmp_path / "report", "--failed-to": tmp_path / "again"}
    with FULL.open("wb") as full:
        if option != "stdout":
            files[option] = FULL
        options = [text for pair in files.items() for text in pair]
        process = submit(
            "-t", 1, *options, shouting.addresses.requests, **({"stdout": full} if option == "stdout" else {})
        )
        _, err, status = run(process, b"bad\na\nb\n")
    where = b"to stdout" if option == "stdout" else b"/dev/full"
    assert b"zmqbroker submit: cannot write %s: No space left on device\n" % where in err
    assert (status, err.count(b"cannot write")) == (2, 1)
    if option == "stdout":
        assert set((tmp_path / "again").read_bytes().split()) >= {b"a", b"bad"}
    if option != "--report":
        assert [line["line"] for line in report_of(files["--report"])] in ([], [1])


# What else is printed


@pytest.mark.parametrize("options", [[], ["--unordered"]])
def test_lines_are_kept_in_their_places(shouting: Running, submit: Submit, options: list[str]):
    out, _, status = run(submit("-t", 1, "--keep-lines", *options, shouting.addresses.requests), b"a\nbad\nc\n")
    lines = out.split(b"\n")
    assert status == 1
    assert (sorted(lines[:-1]) if options else lines) == (
        [b"1\tA", b"2\t", b"3\tC"] if options else [b"A", b"", b"C", b""]
    )


def test_lines_are_kept_in_their_places_when_it_is_interrupted(running: Running, submit: Submit):
    gate = Gate(b"2")
    with working(running.addresses.ready, gate, count=2):
        process = submit("--keep-lines", running.addresses.requests)
        give(process, b"1\n2\n3\n4\n")
        gate.wait_for(b"2")
        running.wait_for("done", 3)
        process.send_signal(signal.SIGINT)
        out, err, status = run(process)
        gate.open(b"2")
    assert (out, status) == (b"1\n\n3\n4\n", 130)
    assert err == b"line 2: cancelled\ninterrupted: 3 tasks done, 0 failed, 1 cancelled\n"


# How it ends


def test_what_waits_is_cancelled_when_it_is_halted_soon_and_what_runs_is_finished(running: Running, submit: Submit):
    held = running.worker()
    failing = running.worker()
    process = submit("-t", 1, "--halt", "soon,fail=1", running.addresses.requests)
    give(process, b"1\n2\n3\n4\n5\n")
    running.wait_for("accepted", 5)
    attempt_id, _ = held.take()
    failing.say(b"reject", failing.take()[0], b"no luck")
    running.wait_for("cancelled", 3)
    held.reply(attempt_id, b"result")
    out, err, status = run(process)
    assert (out, status) == (b"result\n", 1)
    assert err.endswith(b"halted: 1 tasks done, 1 failed, 3 cancelled\n")


def test_it_is_halted_now_when_too_much_has_failed(running: Running, submit: Submit, tmp_path: Path):
    held, failing = running.worker(), running.worker()
    again, report = tmp_path / "again", tmp_path / "report"
    options = ["--halt", "now,fail=1", "--failed-to", again, "--report", report]
    process = submit("-t", 1, *options, running.addresses.requests)
    give(process, b"1\n2\n3\n")
    running.wait_for("accepted", 3)
    _, first = held.take()
    attempt_id, second = failing.take()
    failing.say(b"reject", attempt_id, b"no luck")
    out, err, status = run(process)
    assert (out, status) == (b"", 1)
    assert err.endswith(b"halted: 0 tasks done, 1 failed, 2 cancelled\n")
    assert sorted(again.read_bytes().split()) == [b"1", b"2", b"3"]
    assert [line["line"] for line in report_of(report)] == [int(second[0])]
    running.wait_for("cancelled", 2)
    assert first != second


def test_what_is_not_done_in_time_is_given_up(running: Running, submit: Submit, tmp_path: Path):
    again = tmp_path / "again"
    command = ["--give-up", 1, "--failed-to", again, running.addresses.requests]
    out, err, status = run(submit(*command), b"a\nb\n")
    assert (out, err, status) == (b"", b"given up after 1 s: 0 tasks done, 0 failed, 2 cancelled\n", 124)
    assert again.read_bytes() == b"a\nb\n"
    running.wait_until(lambda: running.count("cancelled") == running.count("accepted"))


def test_what_is_done_in_time_is_not_given_up(shouting: Running, submit: Submit):
    assert run(submit("--give-up", 30, shouting.addresses.requests), b"a\n") == (b"A\n", b"", 0)
