"""The queues that a worker asks from."""

from typing import Any

import pytest
from conftest import Running
from helpers import PATIENCE
from library_support import NOBODY, echo, working
from worker_support import BareBroker

from zmqbroker import Client, Worker, current_task


@pytest.mark.parametrize(
    ("options", "queues"),
    [
        ({}, ("default",)),
        ({"queues": ["gpu"]}, ("gpu",)),
        ({"queues": ("b", "a", "default", "b")}, ("b", "a", "default")),
        ({"queues": ["q"] * 64}, ("q",)),
    ],
)
def test_a_worker_announces_its_queues_in_order(options: dict[str, Any], queues: tuple[str, ...]):
    with BareBroker() as bare, working(bare.ready, echo, **options):
        _, announce, _ = bare.announced()
        assert announce.queues == queues


@pytest.mark.parametrize(
    ("queues", "error"),
    [
        ("gpu", "queues must be a list of 1 to 64 names, not 'gpu'"),
        (None, "queues must be a list of 1 to 64 names, not None"),
        ([], r"queues must be a list of 1 to 64 names, not \[\]"),
        (["q"] * 65, "queues must be a list of 1 to 64 names, not "),
        (["a b"], "a queue has a name of 1 to 128 of the characters A-Z a-z 0-9 . _ / -, not 'a b'"),
        (["gpu", 1], "a queue has a name of 1 to 128 of the characters A-Z a-z 0-9 . _ / -, not 1"),
    ],
)
def test_what_is_no_list_of_queues_is_refused(queues: Any, error: str):
    with pytest.raises(ValueError, match=f"^{error}"):
        Worker(NOBODY, echo, queues=queues)


def test_a_worker_gets_tasks_of_its_first_queue_first_and_they_tell_their_queue(running: Running):
    done: list[tuple[bytes, str]] = []

    def handle(body: bytes) -> None:
        done.append((body, current_task().queue))

    with Client(running.addresses.requests) as client:
        futures = [client.submit(b"%d" % number, queue=queue) for number, queue in enumerate("cabab")]
        running.wait_for("accepted", 5)
        with working(running.addresses.ready, handle, queues=["b", "a"], slots=1):
            for future in futures[1:]:
                future.result(PATIENCE)
        assert done == [(b"2", "b"), (b"4", "b"), (b"1", "a"), (b"3", "a")]
        assert not futures[0].done()


def test_a_worker_goes_on_with_its_queues_when_the_broker_is_restarted(start: Any):
    running = start()
    with working(running.addresses.ready, echo, queues=["gpu"]):
        for _ in range(2):
            with Client(running.addresses.requests) as client:
                assert client.call(b"task", PATIENCE, queue="gpu") == b"task"
            running.finish()
            running = start(ready=running.addresses.ready)
