"""Search in all queues and workers: the order in which they come."""

from typing import Any

from zmqbroker.web.searching import search

NOTHING: dict[str, Any] = {"label": None, "host": "h", "owner": None, "address": "", "queues": [], "failed": 0}


def test_workers_that_are_held_back_come_first_then_those_that_are_at_a_task_for_the_longest():
    workers = [
        NOTHING | {"pid": pid, "since": since, "held_back": held_back}
        for pid, since, held_back in ((1, None, None), (2, 3.0, None), (3, None, 5.0), (4, 60.0, None))
    ]
    assert [worker["pid"] for worker in search("workers", workers, {})["workers"]] == [3, 4, 2, 1]
