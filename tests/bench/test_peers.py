"""The comparison with other systems, with numbers so small that only its working is tested."""

import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.machine import file_system, sync_time
from bench.peers import NAMES
from bench.processes import descendants
from bench.stage import Stage, StageError
from bench.systems import driver, durable
from bench.systems.link import Link

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
PEERS = [sys.executable, "-m", "bench.peers"]
TINY = ["--runs", "1", "--seconds", "0.1", "--waiting", "500", "--wait", "10"]
CAPTURED: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}

# Ends a stage whose process has left a child behind, in a session of its own, and prints the child's id.
LEAVE_AN_ORPHAN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
"""
END_A_STAGE = f"""
from bench.processes import adopt_orphans
from bench.stage import Stage
adopt_orphans()
with Stage() as stage:
    print(stage.start("-c", {LEAVE_AN_ORPHAN!r}).line())
"""


class Leaving:
    """A client whose tasks are done at once, under keys that are their bodies; some with a wrong result."""

    def __init__(self) -> None:
        self.spoilt: set[str] = set()
        self.most = 0  # tasks whose results were not had yet
        self._outstanding = 0

    def submit(self, body: bytes, detach: bool) -> Future[str]:
        assert detach
        self._outstanding += 1
        self.most = max(self.most, self._outstanding)
        stored: Future[str] = Future()
        stored.set_result(body.decode())
        return stored

    def outcome(self, key: str, wait: float) -> Future[bytes]:
        assert wait > 0
        self._outstanding -= 1
        result: Future[bytes] = Future()
        result.set_result(b"spoilt" if key in self.spoilt else key.encode())
        return result


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PEERS, *TINY, *map(str, arguments)], **CAPTURED)


@pytest.mark.slow
def test_systems_measured_one_by_one_come_together_in_one_table(tmp_path):
    for name in ("zmqbroker", "process-pool"):
        ran = compare("--only", name, "--results", tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert "skipped" not in ran.stderr, ran.stderr

    results = json.loads((tmp_path / "peers.json").read_text())
    assert set(results["systems"]) == {"zmqbroker", "process-pool"}
    for row in results["systems"].values():
        assert row["rate"] > 0
        assert row["large_rate"] > 0
        assert len(row["percentiles"]) == 101
    ours, pool = results["systems"]["zmqbroker"], results["systems"]["process-pool"]
    assert ours["server_us"] is not None
    assert ours["waiting_bytes"] > 0
    assert 0 < ours["kill"]["again"] < 10
    assert ours["kill"]["outcome"] == "held"
    assert pool["kill"]["again"] is None
    assert pool["kill"]["outcome"].startswith("BrokenProcessPool")

    table = (tmp_path / "peers.md").read_text()
    assert table in ran.stdout + "\n"
    for row in results["systems"].values():
        assert f"| {row['title']} |" in table
        assert row["command"] in table
        assert row["machine"]["processor"] in table


def test_a_system_that_is_absent_is_skipped_with_the_reason(tmp_path):
    ran = compare("--only", "parsl", "--environments", tmp_path / "none", "--results", tmp_path)
    assert ran.returncode == 0, ran.stderr
    reason = "parsl: parsl not installed; --install does that"
    assert f"- {reason}" in ran.stdout
    assert json.loads((tmp_path / "peers.json").read_text())["systems"] == {}


@pytest.mark.slow
def test_systems_with_their_tasks_on_the_disk_have_a_table_of_their_own(tmp_path):
    ran = compare("--only", "durable-zmqbroker*", "--runs", "2", "--disk", tmp_path, "--results", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "skipped" not in ran.stderr, ran.stderr

    results = json.loads((tmp_path / "peers.json").read_text())
    assert set(results["durable"]) == {"durable-zmqbroker", "durable-zmqbroker-waiting"}
    table = (tmp_path / "peers.md").read_text()
    for row in results["durable"].values():
        assert len(row["rates"]) == 2
        assert row["rate"] > 0
        assert row["sync_us"] > 0
        assert len(row["percentiles"]) == 101
        assert f"| {row['title']} |" in table
        assert row["stored"] in table
    runs = [line for line in ran.stderr.splitlines() if line.startswith("bench.peers: durable")]
    assert runs == ["bench.peers: durable-zmqbroker", "bench.peers: durable-zmqbroker-waiting"] * 2


def test_all_on_the_disk_of_which_one_is_absent_are_measured_without_it(tmp_path):
    ran = compare("--only", "durable-huey", "--environments", tmp_path / "none", "--results", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "- durable-huey: huey not installed; --install does that" in ran.stdout
    assert json.loads((tmp_path / "peers.json").read_text())["durable"] == {}


@pytest.mark.parametrize("window", [1, 2, 10, 100])
def test_of_results_that_were_left_and_fetched_the_right_ones_are_counted(window):
    client = Leaving()
    bodies = [b"%d" % number for number in range(25)]
    assert durable.count_fetched(client, bodies, window) == 25
    assert client.most <= max(window, 2)
    client.spoilt.add("3")
    assert durable.count_fetched(client, bodies, window) == 24


def test_the_file_system_of_a_directory_is_named():
    assert file_system(Path("/proc")) == "proc"
    assert sync_time(ROOT / "tests") > 0


def test_a_name_that_is_no_systems_is_refused_in_one_line():
    ran = compare("--only", "abacus")
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1] == "bench.peers: error: argument --only: there is no system 'abacus'"


def test_what_a_process_leaves_behind_ends_with_its_stage():
    ran = subprocess.run([sys.executable, "-c", END_A_STAGE], **CAPTURED)
    assert ran.returncode == 0, ran.stderr
    assert not Path(f"/proc/{int(ran.stdout)}").exists()


def test_a_process_that_has_ended_is_no_longer_sent_anything():
    with Stage() as stage:
        process = stage.start("-c", "raise SystemExit(3)")
        for use in (process.line, process.go):
            with pytest.raises(StageError, match="ended with status 3"):
                use()


def test_a_process_is_found_whatever_its_name():
    rename = "open('/proc/self/comm', 'wb').write(b'gr\\xc3) S 1'); print(flush=True); input()"
    with Stage() as stage:
        process = stage.start("-c", rename)
        process.line()
        assert process.id in descendants(os.getpid())


def test_a_measurement_whose_time_is_over_at_once_has_one_task():
    answers: list[dict[str, Any]] = []

    def answer(**facts: Any) -> None:
        answers.append(facts)

    link = Link(submit=lambda body: body, result=lambda body, _: body)
    driver.rate(link, answer, size=64, window=10, seconds=0)
    driver.round_trips(link, answer, size=64, seconds=0, most=10)
    assert (answers[0]["tasks"], answers[0]["right"]) == (1, 1)
    assert len(answers[1]["times"]) == 1


@pytest.mark.parametrize("table", [report.short_table, report.short_durable_table])
def test_the_comparison_has_the_figures_that_were_measured(table):
    assert table(report.read(RESULTS), NAMES) in (ROOT / "docs" / "comparison.md").read_text()


def test_the_table_of_a_document_is_replaced_and_what_stands_around_it_stays(tmp_path):
    table = report.short_table(report.read(RESULTS), NAMES)
    headings, ruler, *rows = table.splitlines()
    document = tmp_path / "document.md"
    document.write_text(f"Before.\n\n{headings}\n{ruler}\n| old | figures |\n\nAfter.\n")
    report.update_table(document, table)
    assert document.read_text() == f"Before.\n\n{table}\n\nAfter.\n"
    assert rows


def test_the_table_is_what_the_figures_say():
    assert report.to_markdown(report.read(RESULTS), NAMES) == (RESULTS / "peers.md").read_text()
