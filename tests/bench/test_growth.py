"""The growth benchmark, with numbers so small that only its working is tested."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GROWTH = [sys.executable, "-m", "bench.growth"]
TINY = ["--runs", "1", "--tasks", "50", "--most", "16"]
FEW = [
    f"--only={name}" for name in ("workers", "waiting", "queues", "groups", "lists", "bodies")
]  # others are like these


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    directory = tmp_path_factory.mktemp("growth")
    run = subprocess.run(
        [*GROWTH, *TINY, *FEW, "--directory", directory], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (run.returncode, run.stderr) == (0, "")
    return directory, run.stdout


def test_each_series_is_in_the_markdown_and_in_the_json(measured):
    directory, _ = measured
    results = json.loads((directory / "growth.json").read_text())
    text = (directory / "growth.md").read_text()
    assert {name: [point["number"] for point in series["points"]] for name, series in results.items()} == {
        "workers": [1, 10],
        "waiting": [0],
        "queues": [1, 10],
        "groups": [1, 10],
        "lists": [1, 3, 10],
        "bodies": [16],
    }
    for series in results.values():
        assert f"## {series['title']}" in text
        assert series["facts"]["command"] in text
        assert all(value >= 0 for point in series["points"] for run in point["runs"] for value in run.values())


def test_every_series_is_drawn_or_it_is_said_why_not(measured):
    directory, printed = measured
    if importlib.util.find_spec("matplotlib") is None:
        assert "no plots: matplotlib is not installed" in printed
        pytest.skip("matplotlib is not installed")
    results = json.loads((directory / "growth.json").read_text())
    drawn = {path.name for path in directory.iterdir()}
    assert {f"growth-{name}.{kind}" for name in results for kind in ("png", "svg")} <= drawn


def test_a_series_that_is_not_measured_again_stays(measured):
    directory, _ = measured
    before = json.loads((directory / "growth.json").read_text())
    again = [*GROWTH, *TINY, "--only", "workers", "--directory", directory]
    assert subprocess.run(again, cwd=ROOT, capture_output=True, timeout=60).returncode == 0
    after = json.loads((directory / "growth.json").read_text())
    assert list(after) == list(before)
    assert [name for name in after if after[name] != before[name]] == ["workers"]
