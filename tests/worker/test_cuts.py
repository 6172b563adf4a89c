"""Connections that are cut at any message: a worker's tasks are neither lost nor replied to twice."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from conftest import Running
from helpers import PATIENCE
from library_support import Proxy, working

from zmqbroker import Client

Start = Callable[..., Running]

TASKS = [b"%d" % number for number in range(60)]


class Cutter:
    """Cuts the connections of a proxy at each so many calls of a handler, before or after it."""

    def __init__(self, proxy: Proxy, every: int, when: str) -> None:
        self._proxy = proxy
        self._every = every
        self._when = when
        self._lock = threading.Lock()
        self.calls = 0
        self.runs: Counter[bytes] = Counter()

    def __call__(self, body: bytes) -> bytes:
        with self._lock:
            self.calls += 1
            is_turn = self.calls % self._every == 0
            self.runs[body] += 1
        if is_turn and self._when == "at the beginning":
            self._proxy.cut()
        if is_turn and self._when == "from beside":
            threading.Thread(target=self._proxy.cut).start()
        return body


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at the beginning", "from beside"])
@pytest.mark.parametrize("slots", [1, 3, None])
def test_a_worker_that_is_cut_off_again_and_again_does_all_tasks(start: Start, when: str, slots: int | None):
    running = start(tries=0)
    with Proxy(running.addresses.ready) as proxy:
        cutter = Cutter(proxy, 7, when)
        with working(proxy.address, cutter, slots=slots), Client(running.addresses.requests) as client:
            futures = [client.submit(task) for task in TASKS]
            assert [future.result(2 * PATIENCE) for future in futures] == TASKS
        assert proxy.connections > 1
    assert set(cutter.runs) == set(TASKS)


@pytest.mark.parametrize("slots", [1, None])
def test_connections_that_are_cut_after_ever_more_bytes_lose_no_task(
    start: Start, slots: int | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zmqbroker.worker.line.PAUSE", 0.01)
    running = start(tries=0)
    with (
        Proxy(running.addresses.ready, lambda number: 50 + 37 * number) as proxy,  # from the greeting of ZeroMQ on
        working(proxy.address, bytes.upper, slots=slots),
        Client(running.addresses.requests) as client,
    ):
        futures = [client.submit(b"%d a" % number) for number in range(30)]
        assert [future.result(4 * PATIENCE) for future in futures] == [b"%d A" % number for number in range(30)]


def test_a_long_task_is_run_once_though_its_connection_is_cut(start: Start):
    running = start()
    begun, may_end = threading.Event(), threading.Event()
    runs: Counter[bytes] = Counter()

    def handle(body: bytes) -> bytes:
        runs[body] += 1
        begun.set()
        assert may_end.wait(PATIENCE)
        return body

    with (
        Proxy(running.addresses.ready) as proxy,
        Client(running.addresses.requests) as client,
        working(proxy.address, handle),
    ):
        future = client.submit(b"long")
        assert begun.wait(PATIENCE)
        for connections in (2, 3):
            proxy.cut()
            proxy.wait_for(connections)
        may_end.set()
        assert future.result(PATIENCE) == b"long"
    assert runs == {b"long": 1}
