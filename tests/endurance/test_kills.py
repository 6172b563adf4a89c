"""A short run of `kills.py`; and that its accountant finds what is wrong."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kills_accounts import LATE, Accounts

SCRIPT = Path(__file__).with_name("kills.py")
LONGEST = 900.0  # seconds; the kills take about 20, and what follows is bounded by less
DONE = "got a:1 done 5e"
DURABLE, ACCEPTED = "sent a:1 plain 2 gpu - - durable 5e", "accepted a:1"
DETACHED = DURABLE.replace("durable", "detached")
ATTACHED = DURABLE.replace("durable", "attached")


@pytest.mark.slow
def test_what_a_broker_has_promised_holds_when_it_is_killed_again_and_again():
    command = [sys.executable, str(SCRIPT), "--seed", "1", "--kills", "12", "--life", "0.8"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=LONGEST)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends all that it has started
            process.communicate()
    assert process.returncode == 0, output


def accounts(directory: Path, *lines: str, deaths: list[float] | None = None, dead: set[int] | None = None) -> Accounts:
    """Judge what one process has written, a line each second from 1 on; None: nobody has died."""
    text = "".join(f"{at}.0 {line}\n" for at, line in enumerate(lines, 1))
    (directory / "a.1.journal").write_text(text)
    return Accounts(directory, dead or set(), deaths or [])


def took(hand_out: int, queues: str = "gpu") -> str:
    return f"took a:1 {queues} {hand_out:02x}"


@pytest.mark.parametrize(
    ("lines", "finding"),
    [
        ([DURABLE], "has no outcome"),
        ([DETACHED, ACCEPTED], "has no outcome"),
        ([DETACHED, ACCEPTED, "unknown a:1", "forgets a:1"], "was accepted, and is unknown"),
        ([DURABLE, DONE, "got a:1 failed 2 no"], "has several outcomes"),
        ([ATTACHED, DONE, DONE], "has several outcomes"),
        ([DURABLE, "got a:1 done 5f"], "has a wrong outcome"),
        ([DURABLE, "got a:1 unavailable 0 it ends"], "has a wrong outcome"),
        ([DURABLE, "cancels a:1", "cancelled a:1", DONE], "was cancelled, but has another outcome"),
        ([DURABLE, "got a:1 cancelled 0 by somebody"], "was cancelled by nobody"),
        ([DURABLE.replace("plain", "poison"), DONE], "is poison, but done"),
        ([DURABLE, "got a:1 expired 0 no"], "has expired too early"),
        ([DURABLE.replace("gpu -", "gpu 9"), "got a:1 expired 0 no"], "has expired too early"),
        ([DURABLE, "got a:1 failed 1 no"], "has failed, and tries were left"),
        ([DURABLE.replace("- - d", "- 7 d"), took(1), DONE], "was begun before its delay was over"),
        ([DURABLE, DONE, *["ended a:1"] * int(LATE), took(1)], "was begun after it was settled"),
        ([DURABLE, took(1), took(2), took(3), DONE], "was begun too often"),
        ([ATTACHED, took(1), took(2), took(3), DONE], "was begun too often"),
        ([DURABLE, took(1), took(1), DONE], "the attempt 01 of a:1 was handed out 2 times"),
        ([DURABLE, took(1, "cpu,default"), DONE], "got a:1 of the queue gpu"),
        ([DONE], "nobody sent a:1"),
        (["damaged 00"], "a damaged body"),
    ],
)
def test_the_accountant_finds_a_broken_promise(tmp_path: Path, lines: list[str], finding: str):
    assert any(finding in violation for violation in accounts(tmp_path, *lines).violations)


@pytest.mark.parametrize(
    "lines",
    [
        [DURABLE, took(1), DONE, DONE],
        [DETACHED, ACCEPTED, took(1), took(2), DONE, DONE, "forgets a:1", "unknown a:1"],
        [DETACHED, ACCEPTED, "forgets a:1", "unknown a:1"],
        [DURABLE, "cancels a:1", "cancelled a:1", "got a:1 cancelled 0 by its client", took(1)],
        [DURABLE, "cancels a:1", DONE],
        [DURABLE.replace("gpu -", "gpu 1.5"), took(1), "got a:1 expired 1 no"],
        [DURABLE, "rejected a:1", "got a:1 failed 1 no"],
        [DURABLE, took(1), "released a:1", took(2), took(3), "got a:1 failed 2 no"],
        [DURABLE.replace("- - d", "- 1.5 d"), "ended a:1", took(1), DONE],
        [ATTACHED, "gave-up a:1"],
    ],
)
def test_the_accountant_is_content_with_kept_promises(tmp_path: Path, lines: list[str]):
    assert accounts(tmp_path, *lines).violations == []


def test_the_accountant_knows_that_what_is_not_stored_is_a_new_task_for_the_next_broker(tmp_path: Path):
    lines = [ATTACHED, took(1), took(2), took(3), DONE]
    assert accounts(tmp_path, *lines, deaths=[2.5]).violations == []
    assert accounts(tmp_path, *lines, deaths=[0.5, 5.5]).violations != []


def test_the_accountant_expects_no_outcome_for_a_dead_client(tmp_path: Path):
    assert accounts(tmp_path, DURABLE, dead={1}).violations == []
    assert accounts(tmp_path, DETACHED, ACCEPTED, dead={1}).violations != []
