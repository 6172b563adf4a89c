"""Python's garbage collector has nothing to find, and does not hold the loop."""

import gc
from types import SimpleNamespace

import pytest
from core_support import Core

from zmqbroker.broker import garbage
from zmqbroker.broker.garbage import FEW, INTERVAL, NEVER, Garbage
from zmqbroker.wire import Announce, Header

BROKER = "zmqbroker.broker"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what is asked of the collector."""
    asked: list[object] = []
    calls = {name: lambda *arguments, name=name: asked.append((name, *arguments)) for name in ("collect", "freeze")}
    calls["set_threshold"] = lambda *arguments: asked.append(arguments)
    monkeypatch.setattr(garbage, "gc", SimpleNamespace(**calls))
    return asked


def test_full_collections_are_made_seldom_and_while_there_are_few_tasks(fake: list[object]):
    collector = Garbage(0.0)
    assert [*fake[:2], fake[2][1:]] == [("collect",), ("freeze",), (NEVER, NEVER)]  # type: ignore[index]
    fake.clear()
    for tasks, now in ((0, INTERVAL - 1), (FEW + 1, INTERVAL), (FEW, INTERVAL + 1), (0, 2 * INTERVAL)):
        collector.collect_if_due(tasks, now)
    assert fake == [("collect",)]
    collector.collect_if_due(0, 2 * INTERVAL + 1)
    assert fake == [("collect",)] * 2


@pytest.mark.parametrize(
    "announce", [None, Announce(label="x", host="h", pid=7, serial=True)], ids=["plain", "announced"]
)
@pytest.mark.parametrize("outcome", ["done", "fail", "none"])
def test_what_the_broker_forgets_leaves_no_cycles(announce: Announce | None, outcome: str):
    core, now = Core(tries=2, timeout=1.0), 0.0
    gc.collect()
    gc.disable()
    try:
        for number in range(20):
            now += 10.0
            visit(core, b"\0worker %d" % number, announce, outcome, now)
        assert in_cycles() == []
    finally:
        gc.enable()


def in_cycles() -> list[object]:
    """Return what there is of the broker's in cycles that nobody holds; threads of earlier tests may leave others."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [found for found in gc.garbage if str(getattr(found, "__module__", "")).startswith(BROKER)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def visit(core: Core, name: bytes, announce: Announce | None, outcome: str, now: float) -> None:
    """Have a worker come, get four tasks, say an outcome of each, and leave."""
    for number in range(4):
        core.submit([b"client"], [b"task"], now, Header(key=f"{name!r} {number}"))
        if announce is None:
            core.ready([name])
    if announce is not None:
        core.announce(name, announce, [], now)
        core.ask(name, 4)
    attempt_ids = []
    while (pair := core.hand_out(now)) is not None:
        attempt_ids.append(pair[1].attempt_id)
    for attempt_id in attempt_ids if outcome != "none" else ():
        core.answered(name, attempt_id, 0, now)
        if outcome == "done":
            core.result(attempt_id, [b"result"], now)
        else:
            core.fail(attempt_id, "no", now)
    core.lose_worker(name, now)
    core.expire(now + 1.0)
    core.abandon("the end", now + 2.0)
    for news in (core.settled, core.told, core.moves, core.lost, core.failures):
        news.clear()
