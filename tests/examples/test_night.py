"""The example with a night's work: it is left, the broker restarts, and what failed is tried again when it can be."""

import signal

import pytest
from reader_support import Reader, shown

pytest_plugins = ["command_fixtures", "examples_fixtures"]
pytestmark = pytest.mark.slow

NIGHT = "A night's work"
BROKER, EVENING, WORKERS, MORNING, AGAIN = range(5)  # the blocks


def test_what_was_left_in_the_evening_is_fetched_in_the_morning_and_what_failed_is_tried_again(reader: Reader):
    broker = reader.start(NIGHT, BROKER)
    ran = reader.run(NIGHT, EVENING)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
    broker.end(signal.SIGKILL)
    reader.start(NIGHT, BROKER)
    reader.start(NIGHT, WORKERS)
    first, second = reader.run(NIGHT, MORNING), reader.run(NIGHT, AGAIN)
    assert (first.stderr, first.returncode) == ("", 1)
    assert shown(NIGHT, 0).fullmatch(first.stdout), first.stdout
    assert (second.stderr, second.returncode) == ("", 0)
    assert shown(NIGHT, 1).fullmatch(second.stdout), second.stdout
