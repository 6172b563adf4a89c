"""Anything whatever as a question of ZAP: each is answered once, and nobody comes in by one who is not to."""

from collections.abc import Iterator

import pytest
import zmq
from conftest import PATIENCE_MS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from zmqbroker.transport.zap import ADDRESS, Newcomer, answer_one, open_zap, parse_question

pytestmark = pytest.mark.once


KNOWN = b"known key, which has 32 bytes ..."[:32]
GOOD = [b"1.0", b"1", b"requests", b"127.0.0.1", b"", b"CURVE", KNOWN]


@pytest.fixture(scope="module")
def pair() -> "Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]":
    """Return who answers, and who asks whatever comes to its mind."""
    with zmq.Context() as context, open_zap(context) as zap, context.socket(zmq.DEALER) as asker:
        asker.linger, asker.rcvtimeo = 0, PATIENCE_MS
        asker.connect(ADDRESS)
        yield zap, asker


def questions() -> "st.SearchStrategy[list[bytes]]":
    """Have one that is right, but for a frame, or any frames."""
    frame = st.one_of(st.binary(max_size=300), st.sampled_from(GOOD))
    nearly = st.builds(lambda at, other: [*GOOD[:at], *other, *GOOD[at + 1 :]], st.integers(0, 7), st.lists(frame))
    return st.one_of(st.just(GOOD), nearly, st.lists(frame, min_size=1, max_size=12))


@given(question=questions(), is_known=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_question_is_answered_once_and_lets_in_whom_it_is_about_or_nobody(pair, question, is_known):
    zap, asker = pair
    asked: list[Newcomer] = []
    asker.send_multipart([b"", *question])
    zap.poll(PATIENCE_MS)
    assert answer_one(zap, lambda newcomer: bool(asked.append(newcomer)) or is_known)
    empty, version, number, status, _, user, metadata = asker.recv_multipart()
    assert (empty, version, metadata) == (b"", b"1.0", b"")
    assert number == (question[1] if len(question) > 1 else b"")
    assert len(asked) == (parse_question(question) is not None)
    assert status == (b"200" if asked and is_known else b"400")
    assert user == (z85.encode(question[6]) if status == b"200" else b"")
    assert not answer_one(zap, lambda newcomer: True)
