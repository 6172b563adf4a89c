"""A store that a release has written is opened by this one, with all that it was written for.

`written/` has a store of each release, as its broker left it when it ended: with the result of the task `done`, the
reason why `failed` has failed, and `waiting`, which nobody has begun.
"""

import shutil
from pathlib import Path

import pytest
from conftest import Running
from library_support import working

from zmqbroker import Client, TaskFailed, current_task

WRITTEN = sorted((Path(__file__).parent / "written").glob("*.db"))
WAIT = 30.0  # seconds


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_a_store_that_a_release_has_written_is_opened(path: Path, start, tmp_path: Path):
    shutil.copy(path, tmp_path / "tasks.db")
    running: Running = start(store=str(tmp_path / "tasks.db"), reclaim=0)
    with Client(running.addresses.requests) as client:
        assert client.fetch("done", wait=WAIT) == b"GOOD"
        with pytest.raises(TaskFailed, match="bad input") as failure:
            client.fetch("failed", wait=WAIT)
        assert (failure.value.status, failure.value.attempts) == ("failed", 1)
        found = []

        def handle(body: list[bytes]) -> list[bytes]:
            task = current_task()
            found.append((task.key, task.queue, task.tries, task.timeout))
            return [b"done:", *body]

        with working(running.addresses.ready, handle, queues=["later"]):
            assert client.fetch("waiting", wait=WAIT) == [b"done:", b"two", b"frames"]
        assert found == [("waiting", "later", 2, 9.5)]


def test_there_is_a_store_to_open():
    assert WRITTEN
