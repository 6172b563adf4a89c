"""What a `map` decides, in any order in which replies come: no socket, no thread, no loop."""

from itertools import count, islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqbroker.client.mapping import MOST_AT_ONCE, Mapping, Sender, Task, tasks_for
from zmqbroker.client.request import Request
from zmqbroker.wire import DONE, FAILED, Reply, chunks


class Ready:
    """A source whose tasks come as the test says: it sees how many were taken and are finished."""

    def __init__(self, total: int, come: int, chunk: int = 1) -> None:
        self.has_ended = False
        self.come = come
        self.finished = 0
        self._left = tasks_for((b"%d" % number for number in range(total)), False, chunk)

    def take(self, most: int, finished: int) -> list[Task]:
        self.finished = finished
        taken = list(islice(self._left, min(most, self.come)))
        self.has_ended = len(taken) < min(most, self.come)
        self.come -= len(taken)
        return taken


class Broker:
    """What a mapping sends to, and what is outstanding there."""

    def __init__(self) -> None:
        self.keys = map(str, count())
        self.outstanding: dict[str, Request] = {}
        self.cancelled: list[str] = []
        self.largest = 0  # number of tasks that were sent together
        self.sender = Sender(self.request, self.send, self.cancelled.append, lambda: None)

    def request(self, body: Any, settle: Any) -> Request:
        return Request(next(self.keys), body, "", settle)

    def send(self, requests: list[Request]) -> None:
        self.largest = max(self.largest, len(requests))
        self.outstanding |= {request.key: request for request in requests}

    def reply(self, index: int) -> Reply:
        """Settle one of those outstanding."""
        request = self.outstanding.pop(list(self.outstanding)[index % len(self.outstanding)])
        return Reply(request.key, DONE, 1, "", request.body)


def ignore(replies: list[Reply]) -> None:
    raise AssertionError(f"{replies} were to be given to the mapping by the test")


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.booleans(), st.integers())
def test_each_body_has_its_outcome_once_in_order_and_within_the_window(
    total: int, window: int, ordered: bool, seed: int
):
    source, broker, random = Ready(total, come=0), Broker(), Random(seed)
    mapping = Mapping(broker.sender, source, window, ordered, ignore)
    found: list[int] = []
    while True:
        source.come += random.randrange(8)
        while mapping.send():
            assert len(broker.outstanding) <= window
        if mapping.is_over:
            break
        if broker.outstanding:
            for outcomes in mapping.take_in(broker.reply(random.randrange(window))):
                found += map(int, outcomes)
                mapping.finish()
        sent = len(found) + len(broker.outstanding)
        assert sent <= len(found) + window
        assert source.finished <= len(found)
    assert (found if ordered else sorted(found)) == list(range(total))
    mapping.cancel()
    assert broker.cancelled == []


@pytest.mark.parametrize("ordered", [True, False])
def test_a_blocked_head_holds_back_what_is_ordered_alone(ordered: bool):
    source, broker = Ready(100, come=100), Broker()
    mapping = Mapping(broker.sender, source, 4, ordered, ignore)
    while mapping.send():
        pass
    yielded = [outcomes for _ in range(3) for outcomes in mapping.take_in(broker.reply(1))]
    assert yielded == ([] if ordered else [[b"1"], [b"2"], [b"3"]])
    assert list(mapping.take_in(broker.reply(0))) == ([[b"%d" % n] for n in range(4)] if ordered else [[b"0"]])


def test_a_part_of_the_window_is_sent_at_a_time_and_only_when_there_is_room_for_one():
    source, broker = Ready(10_000, come=10_000), Broker()
    mapping = Mapping(broker.sender, source, 1000, True, ignore)
    while mapping.send():
        pass
    assert (len(broker.outstanding), broker.largest) == (1000, MOST_AT_ONCE)
    for done in range(1, MOST_AT_ONCE + 1):
        mapping.take_in(broker.reply(0))
        mapping.finish()
        assert len(broker.outstanding) == (1000 - done if done < MOST_AT_ONCE else 1000)


def test_what_has_no_reply_when_it_is_left_is_cancelled():
    source, broker = Ready(3, come=3), Broker()
    mapping = Mapping(broker.sender, source, 3, True, ignore)
    while mapping.send():
        pass
    mapping.take_in(broker.reply(1))
    mapping.cancel()
    assert broker.cancelled == ["0", "2"]


def test_a_chunk_has_an_outcome_for_each_body_whatever_became_of_it():
    source, broker = Ready(6, come=2, chunk=3), Broker()
    mapping = Mapping(broker.sender, source, 1, True, ignore)
    assert mapping.send()
    done = broker.reply(0)._replace(body=chunks.pack_results([[b"A"], [b"B"], chunks.Failure("no c")]))
    ((first, second, failure),) = mapping.take_in(done)
    assert (first, second, failure.reason) == (b"A", b"B", "no c")
    mapping.finish()
    lost = broker.reply(0)._replace(status=FAILED, reason="lost")
    assert [str(outcome) for (*outcomes,) in mapping.take_in(lost) for outcome in outcomes] == ["lost"] * 3
