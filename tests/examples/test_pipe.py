"""The example with a pipe: names of files go in, a shell script is at work, and its results go on."""

from pathlib import Path

import pytest
from reader_support import Reader, shown

pytest_plugins = ["command_fixtures", "examples_fixtures"]
pytestmark = pytest.mark.slow


@pytest.fixture
def at_work(reader: Reader) -> Reader:
    """Have the broker and the workers started."""
    reader.start("Examples")
    reader.start("A pipe").wait_for("2 processes for sh ")
    return reader


def test_the_results_of_a_script_go_on_through_the_pipe(at_work: Reader):
    ran = at_work.run("A pipe", 1)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert shown("A pipe").fullmatch(ran.stdout), ran.stdout


def test_a_file_that_is_not_there_is_a_line_on_stderr_and_the_pipe_goes_on(at_work: Reader):
    Path("examples/night/sales/gone.csv").symlink_to("nowhere")
    ran = at_work.run("A pipe", 1)
    assert shown("A pipe").fullmatch(ran.stdout), ran.stdout
    assert "gone.csv cannot be read" in ran.stderr
