"""Chunks: many bodies as one task, as text and between Client and Worker."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from conftest import PlainWorker, Running
from helpers import PATIENCE
from hypothesis import given
from hypothesis import strategies as st
from library_support import echo, working

from zmqbroker import Client, Reject, TaskFailed
from zmqbroker.wire import chunks
from zmqbroker.wire.chunks import Failure

BODIES = st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=3), max_size=5)
FAILURES = st.builds(Failure, st.text(max_size=20), st.just(False))


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.addresses.requests) as client:
        yield client


def work(running: Running, handler: Callable[[Any], Any]) -> Any:
    return working(running.addresses.ready, handler)


@given(BODIES)
def test_bodies_come_out_as_they_went_in(bodies: list[list[bytes]]):
    packed = chunks.pack(bodies)
    assert chunks.is_chunk(packed)
    assert chunks.unpack(packed) == bodies
    assert chunks.unpack([zmq.Frame(bytes(frame)) for frame in packed]) == bodies


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=3) | FAILURES, max_size=5))
def test_results_and_failures_come_out_as_they_went_in(outcomes: list[Any]):
    assert chunks.unpack_results(chunks.pack_results(outcomes)) == outcomes


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[" * 100_000, b"[2]", b"[-1, 2]", b'["x"]', b"[1.0]", b"[true]", b'[{"reason": "x"}, 1]', b"[[[1]]]"],
)
def test_sizes_that_are_not_right_are_an_error(text: bytes):
    with pytest.raises(ValueError, match="a chunk"):
        chunks.unpack([chunks.CHUNK + text, b"x"])


@pytest.mark.parametrize("text", [b"0", b"{}", b"null", b'""'])
def test_sizes_that_are_no_list_are_an_error(text: bytes):
    with pytest.raises(ValueError, match="a chunk whose sizes are no list"):
        chunks.unpack([chunks.CHUNK + text, b""])


@given(st.binary(max_size=60), st.binary(max_size=10))
def test_whatever_follows_the_mark_is_bodies_or_an_error(text: bytes, content: bytes):
    try:
        bodies = chunks.unpack([chunks.CHUNK + text, content])
    except ValueError:
        return
    assert b"".join(itertools.chain(*bodies)) == content


@pytest.mark.parametrize("body", [[b"x"], [b"ZB1 chunk [1]"], [b"x", b"y"], [b"ZB1 chunk [1]", b"x", b"y"]])
def test_another_body_is_no_chunk(body: list[bytes]):
    assert not chunks.is_chunk(body)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("size", [2, 7, 1000])
def test_map_in_chunks_yields_what_map_yields(client: Client, running: Running, size: int, ordered: bool):
    bodies: list[Any] = [b"", b"x", [b"a", b"b"], [b"c"], [b"", b""], *(b"%d" % number for number in range(100))]
    with work(running, echo):
        results = list(client.map(bodies, chunk=size, ordered=ordered))
    assert results == bodies if ordered else sorted(map(str, results)) == sorted(map(str, bodies))
    assert running.count("accepted") == -(-len(bodies) // size)


def test_map_in_chunks_takes_an_endless_iterable_and_keeps_within_its_window(client: Client, running: Running):
    taken = itertools.count()
    with work(running, echo):
        results = client.map((b"%d" % number for number in taken), chunk=10, window=3)
        assert [next(results) for _ in range(100)] == [b"%d" % number for number in range(100)]
    assert next(taken) <= 100 + 4 * 10


def test_a_body_that_fails_is_reported_alone(client: Client, running: Running):
    def divide(body: bytes) -> bytes:
        if body == b"3":
            raise Reject("no three")
        return b"%d" % (12 // int(body))

    with work(running, divide):
        outcomes = list(client.map([b"1", b"0", b"2", b"3", b"4"], chunk=5, return_failures=True))
    assert [str(outcome) for outcome in outcomes] == [
        "b'12'",
        "ZeroDivisionError: integer division or modulo by zero",
        "b'6'",
        "no three",
        "b'3'",
    ]
    assert {outcome.status for outcome in outcomes if isinstance(outcome, TaskFailed)} == {"failed"}
    assert running.count("attempts") == 1


def test_a_handler_may_use_its_buffer_again_for_the_next_body(client: Client, running: Running):
    buffer = bytearray(1)

    def copy(body: bytes) -> bytearray:
        buffer[:] = body
        return buffer

    with work(running, copy):
        assert list(client.map([b"1", b"23", b"4"], chunk=3)) == [b"1", b"23", b"4"]


def test_a_result_that_cannot_be_sent_fails_alone(client: Client, running: Running):
    def release_first(body: bytes) -> memoryview:
        view = memoryview(body)
        if body == b"1":
            view.release()
        return view

    with work(running, release_first):
        outcomes = list(client.map([b"1", b"2"], chunk=2, return_failures=True))
    assert "released memoryview" in outcomes[0].reason
    assert outcomes[1] == b"2"


def test_a_chunk_that_fails_as_a_whole_fails_each_of_its_bodies(client: Client, running: Running):
    taken: list[list[bytes]] = []

    def reject_twice(worker: PlainWorker) -> None:
        for _ in range(2):
            attempt_id, body = worker.take()
            taken.append(body)
            worker.say(b"reject", attempt_id, b"no")

    thread = threading.Thread(target=reject_twice, args=[running.worker()], daemon=True)
    thread.start()
    outcomes = list(client.map([b"1", b"2", b"3"], chunk=2, return_failures=True))
    thread.join(PATIENCE)
    assert [outcome.reason for outcome in outcomes] == ["no"] * 3
    assert [chunks.unpack(body) for body in taken] == [[[b"1"], [b"2"]], [[b"3"]]]


@pytest.mark.parametrize("change", [list, lambda body: [frame.upper() for frame in body], lambda _: [b""]])
def test_a_worker_that_does_not_understand_chunks_fails_them(
    client: Client, running: Running, change: Callable[[list[bytes]], list[bytes]]
):
    def work_plainly(worker: PlainWorker) -> None:
        attempt_id, body = worker.take()
        worker.reply(attempt_id, *change(body))

    thread = threading.Thread(target=work_plainly, args=[running.worker()], daemon=True)
    thread.start()
    outcomes = list(client.map([b"a", b"b"], chunk=2, return_failures=True))
    thread.join(PATIENCE)
    assert [outcome.reason for outcome in outcomes] == ["the worker does not understand chunks"] * 2


def test_a_malformed_chunk_is_rejected_and_the_worker_lives_on(client: Client, running: Running):
    with work(running, echo):
        with pytest.raises(TaskFailed, match="a chunk whose sizes"):
            client.call([b"ZB1 chunk [5]", b"x"])
        assert client.call(b"still there?") == b"still there?"


def test_a_body_of_the_wrong_type_is_refused_also_in_a_chunk(client: Client):
    with pytest.raises(TypeError, match="a body is bytes"):
        list(client.map([b"x", "y"], chunk=2))
