"""The example with two kinds of work: one feeds the other, and each has workers of its own."""

import pytest
from reader_support import Reader, shown

pytest_plugins = ["command_fixtures", "examples_fixtures"]
pytestmark = pytest.mark.slow

KINDS = "A GPU and many CPUs"
CPU, GPU, CLIENT = range(3)  # the blocks


def test_what_one_kind_has_read_goes_on_to_be_scored_by_the_other(reader: Reader):
    broker = reader.start("Examples")
    reader.start(KINDS, CPU)
    reader.start(KINDS, GPU)
    ran = reader.run(KINDS, CLIENT)
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert shown(KINDS).fullmatch(ran.stdout), ran.stdout
    broker.end()
    broker.wait_for("^6 tasks done, 0 failed")
