"""Waiting for a reply ends at its instant, whenever that comes."""

import threading
from math import inf
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from zmqbroker.client.asking import Arrival, ask
from zmqbroker.client.request import Request
from zmqbroker.wire import DONE, Reply

PATIENCE = 20.0  # seconds
REPLY = Reply("key", DONE, 1, "", [b"result"])


@pytest.mark.parametrize("left", [0.0, 1e-6, 2e-6, 5e-6, 2e-5])
def test_who_has_hardly_any_time_left_waits_no_longer(left: float):
    link: Any = SimpleNamespace(call=lambda *_: None, check_can_wait=lambda: None)
    found = []

    def wait_often() -> None:
        for _ in range(2000):
            found.append(ask(link, Request("key", [b"task"], "", None), monotonic() + left, lambda name: True))

    waiting = threading.Thread(target=wait_often, daemon=True)
    waiting.start()
    waiting.join(PATIENCE)
    assert not waiting.is_alive(), "it waits for ever"
    assert found == [None] * 2000


def test_a_reply_that_comes_just_when_the_time_is_over_is_had():
    arrival = Arrival()
    assert arrival.get(monotonic()) is None
    arrival.put([REPLY])
    assert arrival.get(inf) is REPLY
