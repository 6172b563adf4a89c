"""A failing test is reported as what it found itself, whatever its fixtures find at their ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TOP

pytestmark = pytest.mark.once


LONGEST = 120.0  # seconds for a pytest of its own, on a machine however loaded
TESTS = """
import pytest

@pytest.fixture
def fixture():
    yield
    assert False, "the consequence"

def test_one(fixture):
    assert {passes}, "the cause"
"""


def report(directory: Path, passes: bool, *options: str) -> str:
    """Run a test whose fixture fails at its end, with our conftest.py; return what pytest prints."""
    (directory / "pytest.ini").touch()
    (directory / "test_one.py").write_text(TESTS.format(passes=passes))
    command = [sys.executable, "-m", "pytest", "-p", "conftest", *options, "test_one.py"]
    path = os.pathsep.join(map(str, (TOP / "tests", TOP)))
    environment = os.environ | {"PYTHONPATH": path, "PYTEST_ADDOPTS": "", "COLUMNS": "120"}
    environment.pop("CI", None)  # pytest writes other summaries there
    ran = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "in another process"])
def test_what_a_fixture_finds_at_its_end_stands_below_what_the_test_found(tmp_path, options):
    printed = report(tmp_path, False, *options)
    assert "1 failed in " in printed  # and no error
    assert printed.index("AssertionError: the cause") < printed.index("AssertionError: the consequence")
    assert printed.splitlines()[-2].endswith("AssertionError: the cause")


@pytest.mark.slow
def test_what_a_fixture_finds_when_the_test_has_passed_is_an_error(tmp_path):
    printed = report(tmp_path, True)
    assert "1 passed, 1 error in " in printed
    assert printed.splitlines()[-2].endswith("AssertionError: the consequence")
