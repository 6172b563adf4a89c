"""Anything whatever at the control socket: it is counted, answered if it can be, and the broker goes on."""

import json
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, Peers, Running
from helpers import Program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_support import working
from stored_support import StoredCore

from zmqbroker import Client
from zmqbroker.broker.control import Control
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.questions import RefusedError
from zmqbroker.transport import descriptors
from zmqbroker.transport.control import ControlSocket
from zmqbroker.transport.greeting import GREETING, OPENING, REST
from zmqbroker.wire import EMPTY, MalformedError
from zmqbroker.wire.control import (
    LARGEST_QUESTION,
    answer_message,
    parse_answer,
    parse_question,
    question_message,
)

pytestmark = pytest.mark.once


ASKS = ["status", "queues", "workers", "tasks", "task", "failures", "pause", "resume", "limit", "cancel", "failed"]
FIELDS = ["queue", "state", "order", "worker", "most", "after", "key", "number", "running", "waiting", "reason", "all"]
DEEP = b'{"zmqbroker":1,"ask":' + b"[" * 5000 + b"]" * 5000 + b"}"
HOSTILE = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"status"',
    b"{}",
    b"{" * 10_000,
    b'{"zmqbroker":1,"ask":"status"',  # half of one
    b'{"zmqbroker":true,"ask":"status"}',
    b'{"zmqbroker":1.0,"ask":"status"}',
    b'{"zmqbroker":1,"ask":"status","a":' + b"9" * 15_000 + b"}",
    b'{"zmqbroker":1,"ask":{"a":' * 900 + b"1" + b"}" * 1800,
    b'{"zmqbroker":1,"ask":"' + b"a" * LARGEST_QUESTION + b'"}',
    b'{"zmqbroker":1,"ask":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    DEEP,
]

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["default", "gpu", "running", "slowest", "mine", "", "newest", "*", "[z-a]", "[[]"]),
)
questions = st.fixed_dictionaries({"ask": st.sampled_from(ASKS)}, optional=dict.fromkeys(FIELDS, values))
changes = st.fixed_dictionaries(
    {"ask": st.sampled_from([*ASKS, "retry", "forget"])}, optional=dict.fromkeys(FIELDS, values)
)


@pytest.fixture(scope="module")
def core() -> Dispatcher:
    dispatcher = Dispatcher()
    for number in range(10):
        dispatcher.submit([b"client"], [b"%d" % number], 0.0)
    dispatcher.ready([b"worker"])
    dispatcher.hand_out(0.0)
    return dispatcher


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(question=questions)
def test_a_question_with_any_fields_is_answered_or_refused(core: Dispatcher, question: dict[str, Any]):
    control = Control(core, lambda worker: "", lambda: None)
    try:
        answer = control.answer(question, 1.0)
    except RefusedError:
        return
    message = answer_message([b"asker", b"7", b"ZB1 {}"], answer)
    assert parse_answer(message[1:]) == (b"7", {"zmqbroker": 1, "ok": True, **answer})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stored_core() -> StoredCore:
    core = StoredCore()
    for number in range(10):
        core.leave(f"{number}", b"body", priority=-number)
        if number % 2:
            core.fail_next("no")
    return core


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(question=changes)
def test_a_question_with_any_fields_is_answered_or_refused_by_a_broker_with_a_store(
    stored_core: StoredCore, question: dict[str, Any]
):
    with suppress(RefusedError):
        answer_message([], stored_core.inquire(question.pop("ask"), 1.0, **question))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(message=st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([EMPTY, *HOSTILE])), max_size=6))
def test_whatever_comes_is_a_question_or_is_malformed(message: list[bytes]):
    try:
        envelope, fields = parse_question([b"asker", *message])
    except MalformedError as error:
        envelope, fields = getattr(error, "answer", [b"asker"]), {"zmqbroker": 1}
    assert envelope[0] == b"asker"
    assert fields["zmqbroker"] == 1


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(message=st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"ZB1 {}", EMPTY, *HOSTILE])), max_size=5))
def test_whatever_comes_for_an_answer_is_none(message: list[bytes]):
    with pytest.raises(MalformedError):
        parse_answer(message)


@pytest.fixture
def controlled(start: Callable[..., Running]) -> Running:
    return start(control="tcp://127.0.0.1:*")


@pytest.fixture
def asker(controlled: Running) -> zmq.Socket[bytes]:
    assert controlled.broker.control_address is not None
    return controlled.open(zmq.DEALER, controlled.broker.control_address)


def is_alive(asker: "zmq.Socket[bytes]") -> bool:
    """Tell whether the next answer but errors is that to a question that is asked now."""
    asker.send_multipart(question_message(b"last", "status"))
    while True:
        message = asker.recv_multipart()
        if message[0] == b"last":
            return parse_answer(message)[1]["state"] == "serving"
        assert json.loads(message[-1])["ok"] is False


@pytest.mark.parametrize("question", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_question_is_counted_and_told_why(controlled: Running, asker: "zmq.Socket[bytes]", question: bytes):
    asker.send_multipart([b"1", EMPTY, question])
    told = json.loads(asker.recv_multipart()[-1])
    assert (told["ok"], type(told["error"])) == (False, str)
    assert is_alive(asker)
    assert controlled.count("malformed") == 1


def test_messages_that_are_no_questions_are_counted(controlled: Running, asker: "zmq.Socket[bytes]"):
    for message in (
        [b"no empty frame"],
        [EMPTY],
        [EMPTY, EMPTY, EMPTY],
        [b"x"] * 2000,
        [b"x" * 60_000, b"x" * 60_000, EMPTY, b"{}"],
    ):
        asker.send_multipart(message)
        assert is_alive(asker)
    assert controlled.count("malformed") == 5


def test_a_question_that_is_far_too_large_cuts_its_sender_off_and_nobody_else(controlled: Running):
    address = controlled.broker.control_address
    assert address is not None
    with Peers() as others:
        others.open(zmq.DEALER, address).send_multipart([EMPTY, b"x" * 3_000_000])
        assert is_alive(controlled.open(zmq.DEALER, address))


def test_random_bytes_and_fields_leave_the_broker_alive(controlled: Running, asker: "zmq.Socket[bytes]"):
    chance = random.Random(14)
    wrong = [None, True, -1, 0, 7, 10**30, 0.5, "", "default", "a b", [], {}, [[1]]]
    for _ in range(300):
        fields = {name: chance.choice(wrong) for name in chance.sample(FIELDS, 3)} | {"ask": chance.choice(ASKS)}
        asker.send_multipart([EMPTY, json.dumps({"zmqbroker": 1} | fields).encode()])
        assert json.loads(asker.recv_multipart()[-1])["zmqbroker"] == 1
    assert is_alive(asker)


# Askers that do not read

ASKERS = 10_000
INSISTENT = 100  # of them, that ask more than is kept for who does not read the answers
SPARE = 1000  # descriptors, for all else
LONG_WAIT = 240.0  # seconds; the answer to the last question comes after those to all others


def commands(*messages: list[bytes]) -> bytes:
    """Return what a DEALER says by ZMTP 3 (RFC 23 of ZeroMQ) after the greeting: what it is, and short messages."""
    about = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
    said = [bytes([4, len(about)]), about]
    for message in messages:
        *others, last = message
        said += [b"\1" + bytes([len(frame)]) + frame for frame in others]
        said.append(b"\0" + bytes([len(last)]) + last)
    return b"".join(said)


def ask_and_do_not_read(address: str, questions: bytes) -> socket.socket:
    """Return a connection by which questions were asked, and whose answers nobody reads."""
    host, port = address.removeprefix("tcp://").split(":")
    asker = socket.socket()
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asker.settimeout(LONG_WAIT)
    asker.connect((host, int(port)))
    asker.sendall(OPENING + REST)
    greeting = b""
    while len(greeting) < GREETING:
        greeting += asker.recv(GREETING - len(greeting))
    asker.sendall(questions)
    return asker


@pytest.mark.slow
@pytest.mark.skipif(descriptors.raise_limit() < ASKERS + SPARE, reason="there are not enough descriptors")
def test_ten_thousand_askers_that_do_not_read_hold_up_nobody(start_program: Callable[..., Program]):
    """Each is a connection that speaks for itself, in another process than the broker: so descriptors suffice."""
    broker = start_program("broker.py", "--control", LOOPBACK, *[LOOPBACK] * 3)
    requests, ready, _, address = (
        broker.wait_for(rf"^{name} +(\S+)$")[1] for name in ("requests", "ready", "results", "control")
    )
    question = question_message(b"1", "status")
    once, often = commands(question), commands(*[question] * 60)
    with ExitStack() as stack:
        for number in range(ASKERS):
            said = often if number < INSISTENT else once
            stack.enter_context(closing(ask_and_do_not_read(address, said)))
        with Client(requests) as client, working(ready, bytes.upper):
            assert client.call(b"task", LONG_WAIT) == b"TASK"
        with ControlSocket(address, LONG_WAIT) as control:
            status = control.ask("status")
    assert status["sockets"]["control"]["messages"] >= ASKERS
    assert (status["totals"]["done"], status["totals"]["malformed"]) == (1, 0)
    assert broker.end() == 0
    assert "Traceback" not in broker.output
