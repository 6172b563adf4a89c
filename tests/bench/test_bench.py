"""The benchmark, with numbers so small that only its working is tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.web import missing

ROOT = Path(__file__).resolve().parents[2]
BENCH = [sys.executable, "-m", "bench"]
MEASURED = (
    "window",
    "strict",
    "latency",
    "control",
    "memory",
    "map-slots",
    "call",
)  # map and futures are like map-slots
TINY = ["--tasks", "200", "--pairs", "1", "--peers", "2", "--waiting", "1500"]


@pytest.mark.slow
def test_the_benchmark_prints_every_row_and_writes_the_same_figures(tmp_path):
    figures = tmp_path / "figures.json"
    only = [word for name in MEASURED for word in ("--only", name)]
    run = subprocess.run(
        [*BENCH, *TINY, *only, "--json", figures], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
    written = json.loads(figures.read_text())
    assert written["facts"]["libzmq"] in run.stdout
    rows = [line.strip() for line in run.stdout.splitlines() if line.startswith("  ")]
    for table in written["tables"].values():
        assert table["title"] in run.stdout
        assert len(table["runs"]) == 1
        for name, medians in table["medians"].items():
            assert rows.pop(0).startswith(name)
            assert all(value is None or value >= 0 for value in medians.values())
    assert rows == []
    assert written["tables"]["window"]["medians"]["tasks/s"]["ratio"] > 0
    assert written["tables"]["strict"]["medians"]["tasks/s"]["zmq.proxy"] > 0
    assert written["tables"]["latency"]["medians"]["p99, us"]["broker"] > 0
    assert written["tables"]["control"]["medians"]["p99, us"]["5 askers"] > 0
    assert written["tables"]["memory"]["medians"]["tasks/s meanwhile"]["1,500"] > 0


@pytest.mark.slow
def test_the_benchmark_of_the_page_is_looked_at_by_real_browsers(tmp_path):
    if lack := missing():
        pytest.skip(lack)
    figures = tmp_path / "figures.json"
    run = subprocess.run(
        [*BENCH, *TINY, "--only", "web", "--json", figures], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert (run.returncode, run.stderr) == (0, "")
    medians = json.loads(figures.read_text())["tables"]["web"]["medians"]
    assert medians["tasks/s"]["ratio"] > 0
    assert medians["answers/s to onlookers"]["alone"] is None


def test_a_number_out_of_bounds_is_refused_in_one_line():
    run = subprocess.run([*BENCH, "--tasks", "1"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == "bench: error: argument --tasks: '1' is no whole number from 2 up"
