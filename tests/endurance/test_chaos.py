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
        (SENT + "got a:1 done\ngot a:1 done\n", "took a:1\n", "has 2 replies"),
        (SENT + "got a:1 wrong [b'x']\n", "took a:1\n", "a wrong reply"),
        (SENT + "got a:1 done\n", "took a:1\n" * 3, "was taken 3 times"),
        (SENT + "got a:1 done\n", "took a:2\n", "nobody sent a:2"),
        (SENT + "got a:1 done\n", "damaged 00\n", "a damaged body"),
        ("sent a:1 poison 2\ngot a:1 done\n", "took a:1\n", "is poison, but done"),
        ("sent a:1 plain 2 gpu -\ngot a:1 done\n", "took a:1 cpu,default\n", "of the queue gpu"),
        ("sent a:1 plain 2 gpu -\ngot a:1 done\n", "took a:1\n", "of the queue gpu"),
        (SENT + "got a:1 expired\n", "took a:1\n", "expired"),
    ],
)
def test_the_accountant_finds_a_broken_promise(tmp_path: Path, client: str, worker: str, finding: str):
    (tmp_path / "a.1.journal").write_text(client)
    (tmp_path / "b.2.journal").write_text(worker)
    assert finding in Accounts(tmp_path, dead_clients=set()).violations[0]


@pytest.mark.parametrize(
    ("client", "worker"),
    [
        (SENT + "got a:1 done\n", "took a:1\n" * 3 + "released a:1\n"),
        (SENT + "got a:1 failed \n", "took a:1\n" * 2),
        (SENT + "gave-up a:1\n", "took a:1\n"),
        ("sent a:1 plain 2 gpu expired\ngot a:1 expired\n", "took a:1 cpu,gpu\n"),
    ],
)
def test_the_accountant_is_content_with_kept_promises(tmp_path: Path, client: str, worker: str):
    (tmp_path / "a.1.journal").write_text(client)
    (tmp_path / "b.2.journal").write_text(worker)
    assert not Accounts(tmp_path, dead_clients=set()).violations


@pytest.mark.parametrize(("times", "is_wrong"), [(6, False), (7, True)])
def test_the_accountant_knows_that_a_worker_with_several_tasks_may_begin_one_unseen(
    tmp_path: Path, times: int, is_wrong: bool
):
    (tmp_path / "a.1.journal").write_text("sent a:1 poison 2\ngot a:1 failed\n")
    for number in range(times):
        (tmp_path / f"worker-{number}-work-1.2.journal").write_text("took a:1\n")
    assert bool(Accounts(tmp_path, dead_clients=set()).violations) is is_wrong


def test_the_accountant_expects_no_reply_for_a_dead_client(tmp_path: Path):
    (tmp_path / "a.1.journal").write_text(SENT)
    assert not Accounts(tmp_path, dead_clients={1}).violations
