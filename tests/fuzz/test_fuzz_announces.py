"""Random announces: they are taken with what they say, or malformed."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqbroker.wire import EMPTY, HEADER, Announce, MalformedError, announced
from zmqbroker.wire.names import MOST_QUEUES, is_queue

pytestmark = pytest.mark.once


NAMES = st.from_regex(r"[A-Za-z0-9._/-]{1,128}", fullmatch=True)
WRONG = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=130), st.lists(st.none()))
QUEUES = st.one_of(
    st.lists(NAMES, min_size=1, max_size=MOST_QUEUES),
    st.lists(NAMES | WRONG, max_size=3),
    st.lists(st.just("queue"), max_size=MOST_QUEUES + 2),
    st.dictionaries(NAMES, NAMES, max_size=2),
    WRONG,
)
FIELDS = st.fixed_dictionaries(
    {"role": st.just("worker"), "protocol": st.just(announced.PROTOCOL)},
    optional={
        "queues": QUEUES,
        "label": st.text(max_size=9) | WRONG,
        "pid": st.integers() | WRONG,
        "serial": st.booleans() | WRONG,
        "headers": st.booleans() | WRONG,
        "something else": WRONG,
    },
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(FIELDS)
def test_any_announce_is_taken_as_it_says_or_malformed(fields: dict[str, Any]):
    try:
        announce, attempt_ids = announced.parse_announce([b"id", HEADER + json.dumps(fields).encode(), EMPTY])
    except MalformedError:
        return
    assert attempt_ids == []
    assert 1 <= len(announce.queues) <= MOST_QUEUES
    assert all(map(is_queue, announce.queues))
    assert list(announce.queues) == list(dict.fromkeys(fields.get("queues", ["default"])))
    for name, value in announce._asdict().items():
        assert name == "queues" or value == fields.get(name, getattr(Announce(), name))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(NAMES, min_size=1, max_size=MOST_QUEUES))
def test_the_queues_of_an_announce_come_out_as_they_went_in_each_once(queues: list[str]):
    message = announced.announce_message(Announce(queues=tuple(queues)), "1.0", [])
    announce, _ = announced.parse_announce([b"id", *message])
    assert announce.queues == tuple(dict.fromkeys(queues))
