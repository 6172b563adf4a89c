"""Frames that nobody meant, where workers announce themselves: every parser, and that words alone move nothing."""

from collections.abc import Iterator

import pytest
from conftest import LOOPBACK
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import LARGE, MESSAGES, PIECES, as_received, contents, examples

from zmqbroker import Broker
from zmqbroker.wire import EMPTY, HEADER, MalformedError, announced
from zmqbroker.wire.announced import (
    COUNTED,
    DONE,
    MOST_ASKED,
    NAMED,
    OUTCOMES,
    Announce,
    Given,
    Welcome,
    Word,
    announce_message,
    counted_message,
    named_message,
    outcome_message,
    parse_announce,
    parse_told,
    parse_word,
)
from zmqbroker.wire.names import MOST_QUEUES

pytestmark = pytest.mark.once


VERBS = [*OUTCOMES, *COUNTED, *NAMED, b"drop", b"cancel", b"withdrawn", b"explode"]
NUMBERS = st.sampled_from([b"0", b"1", b"64", b"65", b"-1", b"007", b"\xc2\xb2", b"x", b""])
IDS = st.sampled_from([b"", b"x", b" ", b"\0" * 31, b"\0" * 300]) | st.binary(max_size=33)
WORDS = st.tuples(st.sampled_from(VERBS), NUMBERS, IDS, st.integers(1, 3)).map(
    lambda drawn: HEADER + b" ".join(drawn[: drawn[3]])
)
NAMES = ["role", "protocol", "version", "queues", "label", "host", "pid", "serial", "headers", "other"]
VALUES = st.sampled_from(['"worker"', "1", "2", "true", '"text"', '["default"]', "[]", "[1]", "null", "{}", "NaN", "["])
ANNOUNCES = st.dictionaries(st.sampled_from(NAMES), VALUES).map(
    lambda fields: (
        HEADER + b'{"role": "worker", "protocol": 1%s}' % "".join(f', "{k}": {v}' for k, v in fields.items()).encode()
    )
)
SAID = st.one_of(
    st.tuples(WORDS, st.lists(PIECES | LARGE, max_size=2)).map(lambda drawn: [EMPTY, drawn[0], *drawn[1]]),
    st.tuples(ANNOUNCES, st.lists(IDS, max_size=3)).map(lambda drawn: [drawn[0], EMPTY, *drawn[1]]),
    MESSAGES,
)


@examples(100)
@given(WORDS | PIECES | LARGE)
def test_any_frame_is_a_word_or_none_or_malformed(frame: bytes):
    try:
        word = parse_word(as_received([frame])[0])
    except MalformedError:
        return
    if word is None:
        return
    assert 0 <= word.asks <= MOST_ASKED
    assert word.verb in (*OUTCOMES, *COUNTED, *NAMED)
    assert bool(word.attempt_id) == (word.verb not in COUNTED)
    assert frame.endswith(word.attempt_id)


@examples(100)
@given(st.sampled_from(OUTCOMES), st.integers(0, MOST_ASKED), st.binary(min_size=1, max_size=33))
def test_a_word_comes_out_as_it_went_in(verb: bytes, asks: int, attempt_id: bytes):
    assert parse_word(outcome_message(verb, asks, attempt_id, [b"body"])[1]) == Word(verb, asks, attempt_id)
    assert parse_word(counted_message(b"ready", asks)[1]) == Word(b"ready", asks, b"")
    assert parse_word(named_message(b"touch", attempt_id, b"")[1]) == Word(b"touch", 0, attempt_id)


@examples(200)
@given(st.sampled_from(OUTCOMES), st.integers(-1, 99), st.binary(max_size=150), st.sampled_from([b"", b" ", b"0"]))
def test_a_result_that_is_read_in_one_step_is_the_word_that_it_says(verb: bytes, asks: int, id: bytes, more: bytes):
    message = [b"worker", b"", b"ZB1 %s %s%d %s" % (verb, more, asks, id), b"body"]
    done = announced.match_done(message)
    if done is not None:
        assert parse_word(message[2]) == Word(DONE, int(done[0]), done[1])
    else:
        assert verb != DONE or not 0 <= asks <= MOST_ASKED or not 0 < len(id) <= 100 or more


@examples(100)
@given(SAID)
def test_any_announce_is_read_or_malformed(message: list[bytes]):
    received = as_received([b"id", *message])
    if not announced.has_header(received):
        return
    try:
        announce, attempt_ids = parse_announce(received)
    except MalformedError:
        return
    assert 1 <= len(announce.queues) <= MOST_QUEUES
    assert {type(name) for name in announce.queues} == {str}
    assert (type(announce.serial), type(announce.headers), type(announce.pid)) == (bool, bool, int)
    assert announce.name.encode(errors="surrogatepass")
    assert len(attempt_ids) == len(message) - 2
    assert all(attempt_ids)
    again = announce_message(announce, "test", attempt_ids)
    assert parse_announce([b"id", *again]) == (announce._replace(queues=tuple(announce.queues)), attempt_ids)


@examples(100)
@given(SAID)
def test_whatever_a_broker_says_is_read_or_malformed(message: list[bytes]):
    try:
        told = parse_told(as_received(message))
    except MalformedError:
        return
    if isinstance(told, Given):
        assert told.attempt_id
        assert contents(told.body) == message[-len(told.body) :]
        assert isinstance(told.fields, dict)
    elif isinstance(told, Welcome):
        assert isinstance(told.fields, dict)
        assert told.fields.get("role") == "broker" or told.refusal
    else:
        assert told.asks >= 0


@pytest.fixture(scope="module")
def busy() -> Iterator[Broker]:
    """Return a broker that takes no turns, and whose one worker has two tasks."""
    with Broker(LOOPBACK, LOOPBACK, LOOPBACK) as broker:
        dispatcher = broker._dispatcher
        dispatcher.announce(b"\0busy", Announce(serial=True), [], 0.0)
        dispatcher.ask(b"\0busy", 5)
        for number in range(2):
            dispatcher.submit([b"\0client"], [b"%d" % number], 0.0)
            dispatcher.hand_out(0.0)
        dispatcher.expire(1.0)  # the second one waits again, as the first takes long
        yield broker


@pytest.mark.parametrize("has_announced", [False, True])
def test_words_that_nobody_meant_do_nothing_but_be_counted(busy: Broker, has_announced: bool):
    dispatcher, others = busy._dispatcher, iter(range(1 << 30))
    worker = dispatcher._workers.find(b"\0busy")
    assert worker is not None

    @examples(60)
    @given(st.lists(SAID, max_size=4))
    def say(messages: list[list[bytes]]) -> None:
        other = b"\0%d" % next(others)
        before = (*worker.held,), len(worker.slots), dispatcher.running, dispatcher.unsettled
        if has_announced:
            dispatcher.announce(other, Announce(), [], 0.0)
        for message in messages:
            try:
                busy._loop._receiver._take_in(as_received([other, *message]))
            except MalformedError:
                continue
        dispatcher.lose_worker(other, 1.0)
        dispatcher.expire(60.0)
        assert ((*worker.held,), len(worker.slots), dispatcher.running, dispatcher.unsettled) == before
        assert not dispatcher.settled
        assert dispatcher._workers._workers == {b"\0busy": worker}

    say()
