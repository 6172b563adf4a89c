"""What is told the dispatcher in the name of who says it: with a dispatcher that only notes it."""

from types import SimpleNamespace
from typing import Any

import pytest

from zmqbroker.broker.admission import Speaker
from zmqbroker.broker.signed import Signed
from zmqbroker.wire import Announce

ALICE = Speaker("key", "alice", frozenset({"worker"}))
TOLD = {
    "result": (b"1", [b"body"], 0.0),
    "fail": (b"1", "why", 0.0),
    "reject": (b"1", "why", 0.0),
    "release": (b"1", 0.0),
    "touch": (b"1", None, 0.0),
    "progress": (b"1", b"half"),
}


class Noting:
    """A dispatcher."""

    def __init__(self, may_tell: bool) -> None:
        self.counters = None
        self.told: list[tuple[Any, ...]] = []
        self._may_tell = may_tell

    def may_tell(self, attempt_id: bytes, owner: str) -> bool:
        assert (attempt_id, owner) == (b"1", "alice")
        return self._may_tell

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.told.append((name, *arguments))


def signed(may_tell: bool = True, may_work: bool = True) -> tuple[Any, Noting]:
    dispatcher = Noting(may_tell)
    admission = SimpleNamespace(speaker=ALICE, may_work=lambda worker: may_work)
    return Signed(dispatcher, admission), dispatcher  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TOLD)
def test_what_is_said_of_an_attempt_is_told_if_it_may_be(name):
    one, dispatcher = signed()
    getattr(one, name)(*TOLD[name])
    assert dispatcher.told == [(name, *TOLD[name])]


@pytest.mark.parametrize("name", TOLD)
def test_what_is_said_of_an_attempt_of_another_one_is_not_told(name):
    one, dispatcher = signed(may_tell=False)
    getattr(one, name)(*TOLD[name])
    assert dispatcher.told == []


def test_a_result_is_told_with_what_its_worker_asks_for():
    one, dispatcher = signed()
    one.answer(b"w", b"1", 2, [b"body"], 3.0)
    assert dispatcher.told == [("answer", b"w", b"1", 2, [b"body"], 3.0)]


def test_a_worker_asks_for_more_also_with_a_result_that_does_not_count():
    one, dispatcher = signed(may_tell=False)
    one.answer(b"w", b"1", 2, [b"body"], 3.0)
    assert dispatcher.told == [("answered", b"w", b"1", 2, 3.0)]


def test_tasks_and_workers_go_by_the_name_of_who_speaks():
    one, dispatcher = signed()
    one.submit([b"c"], [b"body"], 0.0, None)
    one.ready([b"w"])
    one.announce(b"w", Announce(label="l"), [b"1"], 0.0)
    assert dispatcher.told == [
        ("submit", [b"c"], [b"body"], 0.0, None, "alice"),
        ("ready", [b"w"], "alice"),
        ("announce", b"w", Announce(label="l"), [b"1"], 0.0, "alice"),
    ]


def test_workers_that_are_not_authorized_any_more_are_lost_unless_they_are_already():
    one, dispatcher = signed(may_work=False)
    for worker in (b"a", b"b", b"c"):
        one.ready([worker])
    one.lose_worker(b"b", 1.0)
    dispatcher.told.clear()
    one.turn_out(2.0)
    one.turn_out(3.0)
    assert dispatcher.told == [("lose_worker", b"a", 2.0), ("lose_worker", b"c", 2.0)]
