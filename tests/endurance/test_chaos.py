"""A short run of `chaos.py`; and that its accountant finds what is wrong."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos_accounts import Accounts

SCRIPT = Path(__file__).with_name("chaos.py")
LONGEST = 400.0  # seconds; the chaos lasts 20, and what follows is bounded by less
SENT = "sent a:1 plain 2\n"
TOOK = "took a:1 default 00\n"


def write_journal(directory: Path, name: str, lines: str) -> None:
    """Write down these lines, whenever they happened."""
    (directory / f"{name}.journal").write_text("".join(f"1.0 {line}\n" for line in lines.splitlines()))


@pytest.mark.slow
def test_every_task_has_its_reply_whatever_happens_to_clients_and_workers():
    command = [sys.executable, str(SCRIPT), "--seed", "1", "--minutes", "0.33"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=LONGEST)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends all that it has started
            process.communicate()
    assert process.returncode == 0, output


@pytest.mark.parametrize(
    ("client", "worker", "finding"),
    [
        (SENT, "", "has 0 replies"),
        (SENT + "got a:1 done\ngot a:1 done\n", TOOK, "has 2 replies"),
        (SENT + "got a:1 wrong [b'x']\n", TOOK, "a wrong reply"),
        (SENT + "got a:1 done\n", TOOK * 3, "was taken 3 times"),
        (SENT + "got a:1 done\n", "took a:2 default 00\n", "nobody sent a:2"),
        (SENT + "got a:1 done\n", "damaged 00\n", "a damaged body"),
        ("sent a:1 poison 2\ngot a:1 done\n", TOOK, "is poison, but done"),
        ("sent a:1 plain 2 gpu -\ngot a:1 done\n", "took a:1 cpu,default 00\n", "of the queue gpu"),
        ("sent a:1 plain 2 gpu -\ngot a:1 done\n", TOOK, "of the queue gpu"),
        (SENT + "got a:1 expired\n", TOOK, "expired"),
    ],
)
def test_the_accountant_finds_a_broken_promise(tmp_path: Path, client: str, worker: str, finding: str):
    write_journal(tmp_path, "a.1", client)
    write_journal(tmp_path, "b.2", worker)
    assert finding in Accounts(tmp_path, dead_clients=set()).violations[0]


@pytest.mark.parametrize(
    ("client", "worker"),
    [
        (SENT + "got a:1 done\n", TOOK * 3 + "released a:1\n"),
        (SENT + "got a:1 failed \n", TOOK * 2),
        (SENT + "gave-up a:1\n", TOOK),
        ("sent a:1 plain 2 gpu expired\ngot a:1 expired\n", "took a:1 cpu,gpu 00\n"),
    ],
)
def test_the_accountant_is_content_with_kept_promises(tmp_path: Path, client: str, worker: str):
    write_journal(tmp_path, "a.1", client)
    write_journal(tmp_path, "b.2", worker)
    assert not Accounts(tmp_path, dead_clients=set()).violations


@pytest.mark.parametrize(("times", "is_wrong"), [(6, False), (7, True)])
def test_the_accountant_knows_that_a_worker_with_several_tasks_may_begin_one_unseen(
    tmp_path: Path, times: int, is_wrong: bool
):
    write_journal(tmp_path, "a.1", "sent a:1 poison 2\ngot a:1 failed\n")
    for number in range(times):
        write_journal(tmp_path, f"worker-{number}-work-1.2", TOOK)
    assert bool(Accounts(tmp_path, dead_clients=set()).violations) is is_wrong


def test_the_accountant_expects_no_reply_for_a_dead_client(tmp_path: Path):
    write_journal(tmp_path, "a.1", SENT)
    assert not Accounts(tmp_path, dead_clients={1}).violations
