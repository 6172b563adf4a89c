"""Frames that nobody meant: every parser on its own, then whole sequences on the three sockets of a live broker.

The examples are the same in each run, so that a change is judged by what it changes: what goes wrong between live
sockets depends on timing as well, and new examples each time would blame whoever comes along. To look for more, new
examples each time and so many times as many: `ZMQBROKER_FUZZ=50 pytest tests/fuzz`. What was found has a test
with a name of its own, below.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, PATIENCE_MS, Peers, PlainWorker, Running
from core_support import entries, places, ranks
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from zmqbroker import Broker, wire
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.kept import MOST_BYTES, KeptReplies
from zmqbroker.broker.queues import STALE_KEPT, Queue
from zmqbroker.broker.task import Task
from zmqbroker.transport.messages import LARGE_FRAME
from zmqbroker.wire import (
    EMPTY,
    HEADER,
    LARGEST_COUNT,
    LARGEST_ENVELOPE,
    LONGEST_ID,
    LONGEST_KEY,
    LONGEST_REASON,
    LONGEST_SPAN,
    MOST_FRAMES,
    Announce,
    Header,
)
from zmqbroker.wire.announced import COUNTED, NAMED, OUTCOMES, announce_message
from zmqbroker.wire.requests import LARGEST_FACTOR, LONGEST_GROUP

pytestmark = pytest.mark.once


FACTOR = int(os.environ.get("ZMQBROKER_FUZZ", "1"))
VERBS = [wire.FAIL, wire.REJECT, wire.RELEASE, wire.TOUCH]


def examples(number: int) -> settings:
    return settings(
        max_examples=number * FACTOR,
        deadline=None,
        derandomize=FACTOR == 1,
        database=None,
        phases=[Phase.generate] if FACTOR == 1 else [Phase.generate, Phase.shrink],  # which takes minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# Frames

NUMBERS = ["0", "-0", "1", "-1", "1.0", "0.01", "1e9", "1e400", "5e-324", "1000000001", "9" * 4000, "NaN", "-Infinity"]
VALUES = st.one_of(
    st.sampled_from([*NUMBERS, "null", "true", "false", "{}", '"k"', '""', r'"\ud800"', '"\u202e\U0001f600"', '"']),
    st.integers(1, 2000).map(lambda depth: "[" * depth + "]" * depth),
    st.integers(1, 700).map(lambda depth: '{"a":' * depth + "1" + "}" * depth),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=LONGEST_KEY + 1),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ).map(json.dumps),
)
NAMES = st.sampled_from([*map(json.dumps, wire.FIELDS), '"Key"', '""', r'"k\u0065y"', r'"\udfff"', "key", "1"])
OBJECTS = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(  # a name may come twice
    lambda pairs: ("{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}").encode(errors="surrogatepass")
)
SPANS = st.floats(0, LONGEST_SPAN) | st.integers(0, int(LONGEST_SPAN))
GOOD_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "key": st.text(min_size=1, max_size=LONGEST_KEY),
        "timeout": SPANS,
        "tries": st.integers(0, LARGEST_COUNT),
        "delay": SPANS,
        "priority": st.integers(-LARGEST_COUNT, LARGEST_COUNT),
        "cancel": st.just(False),
        "id": st.text(max_size=LONGEST_ID),
        "progress": st.booleans(),
        "worker": st.booleans(),
        "queue": st.from_regex(r"[A-Za-z0-9._/-]{1,128}", fullmatch=True),
        "group": st.text(min_size=1, max_size=LONGEST_GROUP),
        "expires": SPANS,
        "retry_delay": SPANS,
        "retry_factor": st.floats(1, LARGEST_FACTOR) | st.integers(1, LARGEST_FACTOR),
        "retry_most": SPANS,
    },
).filter(lambda fields: fields.get("expires", math.inf) > fields.get("delay", 0))
HEADERS = st.one_of(
    OBJECTS.map(HEADER.__add__),
    GOOD_FIELDS.map(lambda fields: HEADER + json.dumps(fields).encode()),
    GOOD_FIELDS.map(lambda fields: HEADER + json.dumps(fields, ensure_ascii=False).encode(errors="surrogatepass")),
    st.tuples(OBJECTS, st.integers(0, 60)).map(lambda drawn: (HEADER + drawn[0])[: drawn[1]]),  # cut off
    st.binary(max_size=20).map(HEADER.__add__),
)
PIECES = st.one_of(
    st.just(EMPTY),
    st.just(EMPTY),
    st.sampled_from([*VERBS, b"ready", HEADER, HEADER + b"{}", b"nan", b"1_0", b" 2 ", b"1e-320", b"\xff" * 5000]),
    st.binary(max_size=30),
    HEADERS,
)
LARGE = st.sampled_from([b"\0", b"ZB1 {}", b"fail", b"5 "]).flatmap(
    lambda start: st.integers(LARGE_FRAME, LARGE_FRAME + 2).map(lambda size: start.ljust(size))
)
MESSAGES = st.lists(PIECES | LARGE, min_size=1, max_size=7)  # ZeroMQ knows no message without frames


def as_received(message: list[bytes]) -> wire.Frames:
    """Return the frames as the broker has them: the large ones are not copied into bytes."""
    return [zmq.Frame(frame) if len(frame) >= LARGE_FRAME else frame for frame in message]


def contents(frames: wire.Frames) -> list[bytes]:
    return [bytes(memoryview(frame)) for frame in frames]  # type: ignore[arg-type]


# The parsers: only MalformedError comes out, and what is accepted is well-formed


def parsed_or_error(message: wire.Frames) -> tuple[wire.Frames, wire.Frames, Header | None] | wire.MalformedError:
    try:
        return wire.parse_request(message)
    except wire.MalformedError as error:
        return error


def assert_in_range(header: Header) -> None:
    assert header.key is None or (type(header.key) is str and 1 <= len(header.key) <= LONGEST_KEY)
    for span in (header.timeout, header.delay, header.expires, header.retry_delay, header.retry_most):
        assert span is None or (type(span) in (int, float) and math.isfinite(span) and 0 <= span <= LONGEST_SPAN)
    assert header.tries is None or (type(header.tries) is int and 0 <= header.tries <= LARGEST_COUNT)
    assert type(header.priority) is int
    assert abs(header.priority) <= LARGEST_COUNT
    assert type(header.cancel) is bool
    assert not header.cancel or header.key is not None
    assert header.queue is None or re.fullmatch(r"[A-Za-z0-9._/-]{1,128}", header.queue)
    assert header.group is None or (type(header.group) is str and 1 <= len(header.group) <= LONGEST_GROUP)
    assert header.expires is None or header.expires > header.delay
    assert header.retry_factor is None or 1 <= header.retry_factor <= LARGEST_FACTOR


@examples(60)
@given(MESSAGES, st.binary(min_size=1, max_size=9))
def test_any_request_is_partitioned_or_malformed(message: list[bytes], routing_id: bytes):
    message = [routing_id, *message]
    request = parsed_or_error(as_received(message))
    if isinstance(request, wire.MalformedError):
        told = contents(request.envelope)
        assert message[: len(told)] == told
        assert told[0] == routing_id
        if request.header is not None:
            assert_in_range(request.header)
        return
    envelope, body, header = request
    empty = message.index(EMPTY)
    assert contents(body) == message[empty + 1 :]
    assert body
    assert contents(envelope) == message[: empty if header is None else empty - 1]
    if header is not None:
        assert message[empty - 1].startswith(HEADER)
        assert_in_range(header)


@examples(200)
@given(HEADERS, st.lists(PIECES, min_size=1, max_size=2))
def test_any_header_is_in_range_or_malformed(header: bytes, body: list[bytes]):
    request = parsed_or_error([b"id", header, EMPTY, *body])
    if isinstance(request, wire.MalformedError):
        assert request.envelope == [b"id"]
    elif request[2] is not None:
        assert_in_range(request[2])
    else:
        assert not header.startswith(HEADER)


@examples(100)
@given(GOOD_FIELDS, MESSAGES)
def test_a_request_comes_out_as_it_went_in(fields: dict[str, Any], body: list[bytes]):
    fields.setdefault("key", "k")
    others = {name: value for name, value in fields.items() if name != "key"}
    message = [b"id", *wire.request_message(as_received(body), fields["key"], wire.more_fields(others))]
    envelope, parsed_body, header = wire.parse_request(message)
    assert (envelope, contents(parsed_body), header) == ([b"id"], body, Header(**fields))


@examples(100)
@given(MESSAGES)
def test_any_ready_message_has_an_envelope_or_is_malformed(message: list[bytes]):
    try:
        envelope = contents(wire.parse_ready(as_received(message)))
    except wire.MalformedError:
        envelope = message[: message.index(EMPTY)] if EMPTY in message else []
        assert not envelope or sum(map(len, envelope[1:])) > LARGEST_ENVELOPE
        return
    assert [*envelope, EMPTY] == message[: len(envelope) + 1]
    assert EMPTY not in envelope


@examples(150)
@given(MESSAGES | st.tuples(st.just(EMPTY), st.sampled_from(VERBS), PIECES | LARGE, PIECES | LARGE).map(list))
def test_any_result_or_verb_is_one_of_the_two_or_malformed(message: list[bytes]):
    frames = as_received(message)
    if not wire.is_verb(frames):
        assert message[0]
        assert len(message) > 1
        return
    try:
        verb = wire.parse_verb(frames)
    except wire.MalformedError:
        assert message[0] == EMPTY
        return
    assert verb.name in VERBS
    assert contents([verb.attempt_id])[0] in message[0::2]
    assert len(verb.reason) <= LONGEST_REASON
    verb.reason.encode()
    assert verb.seconds is None or (verb.name == wire.TOUCH and 0 < verb.seconds <= LONGEST_SPAN)


@examples(100)
@given(st.sampled_from(VERBS), st.binary(max_size=30), st.text(max_size=LONGEST_REASON + 1), SPANS)
def test_a_verb_comes_out_as_it_went_in(name: bytes, attempt_id: bytes, reason: str, seconds: float):
    argument = "" if name == wire.RELEASE else str(seconds or 1) if name == wire.TOUCH else reason
    verb = wire.parse_verb([EMPTY, name, attempt_id, *([argument.encode(errors="replace")] if argument else [])])
    assert (verb.name, verb.attempt_id) == (name, attempt_id)
    assert verb.seconds == (None if name != wire.TOUCH else seconds or 1)
    kept = reason[:LONGEST_REASON].encode(errors="replace").decode()
    assert verb.reason == (kept if name in (wire.FAIL, wire.REJECT) else "")


@examples(100)
@given(MESSAGES | st.tuples(HEADERS, st.just(EMPTY), PIECES).map(list))
def test_any_reply_is_read_or_malformed(message: list[bytes]):
    try:
        reply = wire.parse_reply(as_received(message))
    except wire.MalformedError:
        return
    assert contents(reply.body) == message[2:]
    assert message[1] == EMPTY


STATUSES = st.sampled_from([wire.DONE, wire.FAILED, wire.CANCELLED, wire.INVALID, wire.UNAVAILABLE, wire.PROGRESS])
NAMES_OR_NONE = st.none() | st.text(min_size=1, max_size=50)


@examples(100)
@given(
    st.tuples(
        NAMES_OR_NONE, STATUSES, st.integers(0), st.text(max_size=200), st.none() | st.integers(1), NAMES_OR_NONE
    ),
    MESSAGES,
)
def test_a_reply_comes_out_as_it_went_in(
    fields: tuple[str | None, str, int, str, int | None, str | None], body: list[bytes]
):
    key, status, attempts, reason, number, id = fields
    header = wire.reply_header(*fields)
    reply = wire.parse_reply(wire.reply_message([header], as_received(body)))
    assert reply[:3] == (key, status, attempts)
    assert (reply.number, reply.id) == (number, id)
    assert reply.reason == ("" if status in (wire.DONE, wire.PROGRESS) else reason)
    assert contents(reply.body) == body


# Sequences of frames on live sockets

HOSTILE_FRAMES = st.one_of(
    st.just(EMPTY), st.sampled_from([*VERBS, b"ready", HEADER, b"\0" * LARGE_FRAME]), st.binary(max_size=30), HEADERS
)
LIVE_FIELDS = st.fixed_dictionaries(  # such as are settled soon once somebody works
    {"key": st.sampled_from(["k", "k", "l", "l", ""])},  # the empty one stands for none
    optional={
        "timeout": st.sampled_from([0, 0.005, 0.02, 1e9]),
        "tries": st.sampled_from([0, 1, 2]),
        "delay": st.sampled_from([0, 0.005]),
        "priority": st.integers(-2, 2),
        "queue": st.just("default"),
        "group": st.sampled_from(["a", "b"]),
        "expires": st.sampled_from([0.01, 0.03, 1e9]),
        "retry_delay": st.sampled_from([0, 0.005]),
        "retry_factor": st.sampled_from([1, 1000]),
        "retry_most": st.sampled_from([0, 0.01]),
    },
)
CANCELS = st.sampled_from(["k", "l", "m"]).map(lambda key: {"key": key, "cancel": True})


@dataclass
class Request:
    """A request by one of two connections."""

    client: int
    fields: dict[str, Any] | None
    frames: list[bytes]  # after the correlation frame and, if there are fields, before their header


@dataclass
class Ready:
    """A ready message."""

    frames: list[bytes]


@dataclass
class Answer:
    """A message to the results socket, about an attempt that was handed out if there is one."""

    verb: bytes | None  # None: a result
    which: int  # of the attempt ids so far
    cut: int | None  # bytes that are left of it; more than there are: some are added
    rest: list[bytes]
    times: int


@dataclass
class Announced:
    """An announce, by the worker's connection, that names so many of the attempts so far."""

    named: int
    serial: bool


@dataclass
class Say:
    """A word by the worker's connection, announced or not: an outcome, or what is asked for."""

    verb: bytes
    asks: int
    which: int  # of the attempt ids so far
    rest: list[bytes]


@dataclass
class Noise:
    """Any frames to the results socket."""

    frames: list[bytes]


@dataclass
class Look:
    """See what tasks have come."""


@dataclass
class Drop:
    """The worker's connections drop, and come up again."""


Step = Request | Ready | Answer | Announced | Say | Noise | Look | Drop
SOME_FRAMES = st.lists(HOSTILE_FRAMES, max_size=4)
BODIES = st.lists(HOSTILE_FRAMES, min_size=1, max_size=2)
REQUESTS = st.builds(Request, st.integers(0, 1), st.none() | LIVE_FIELDS | LIVE_FIELDS | CANCELS, SOME_FRAMES)
PROPER_READY = st.builds(Ready, BODIES.map(lambda body: [b"", *body]))
ANSWERS = st.builds(
    Answer,
    st.sampled_from([None, None, *VERBS, b"explode"]),
    st.integers(0, 30),
    st.sampled_from([None, None, None, 0, 8, 16, 23, 25]),
    st.lists(HOSTILE_FRAMES | st.sampled_from([b"0.01", b"1e9"]), max_size=2),
    st.integers(1, 2),
)
STARTS = st.sampled_from(  # without which a short sequence has no tasks, or no attempts
    [
        [],
        [Request(0, {"key": "k"}, []), Request(1, {"key": "k", "cancel": True}, [])],
        [
            Request(0, {"key": "k"}, []),
            Ready([EMPTY, b"ready"]),
            Ready([EMPTY]),
            Request(1, None, [EMPTY, b"x"]),
            Look(),
        ],
        [
            Announced(0, True),
            Request(0, {"key": "k"}, []),
            Request(1, None, [EMPTY, b"x"]),
            Say(b"ready", 3, 0, []),
            Look(),
        ],
    ]
)
SAYINGS = st.builds(
    Say,
    st.sampled_from([*OUTCOMES, *COUNTED, *NAMED, b"explode"]),
    st.sampled_from([0, 1, 2, 64, 65]),
    st.integers(0, 30),
    st.lists(HOSTILE_FRAMES, max_size=2),
)
ANY_STEPS = st.lists(
    st.one_of(
        REQUESTS,
        REQUESTS,
        PROPER_READY,
        PROPER_READY,
        st.builds(Ready, st.lists(HOSTILE_FRAMES, min_size=1, max_size=4)),
        ANSWERS,
        ANSWERS,
        SAYINGS,
        SAYINGS,
        st.builds(Announced, st.integers(0, 3), st.booleans()),
        st.builds(Noise, st.lists(HOSTILE_FRAMES, min_size=1, max_size=4)),
        st.builds(Look),
        st.builds(Drop),
    ),
    min_size=1,
    max_size=30,
)
STEPS = st.builds(list.__add__, STARTS, ANY_STEPS)
MOST_PROBES = 100
LONGEST_DELAY = 0.1  # seconds; an example that has to wait longer would not end
MOST_DESCRIPTORS = 100  # of connections that dropped unnoticed: as many as there were at a time
_numbers = count(1)


@dataclass
class Sequence:
    """One example: hostile peers of a live broker, and what they are owed."""

    running: Running
    peers: Peers
    number: int = field(default_factory=lambda: next(_numbers))
    owed: dict[bytes, Header | None] = field(default_factory=dict)  # by correlation frame
    owed_plain: Counter[int] = field(default_factory=Counter)  # failures without an envelope, by client
    replies: Counter[bytes] = field(default_factory=Counter)
    attempt_ids: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        addresses = self.running.addresses
        self.clients = [self.peers.open(zmq.DEALER, addresses.requests) for _ in range(2)]
        self.joined = self.running.count("joined")
        self.come()

    def come(self) -> None:
        addresses = self.running.addresses
        self.worker = PlainWorker(
            self.peers.open(zmq.DEALER, addresses.ready), self.peers.open(zmq.PUSH, addresses.results, linger=1000)
        )

    def play(self, step: Step) -> None:
        match step:
            case Request():
                self.request(step)
            case Ready():
                self.worker.ask.send_multipart(step.frames)
            case Noise():
                self.worker.answer.send_multipart(step.frames)
            case Answer():
                for _ in range(step.times):
                    self.answer(step)
            case Announced():
                named = self.attempt_ids[-step.named :] if step.named else []
                self.worker.ask.send_multipart(announce_message(Announce(serial=step.serial), "test", named))
            case Say():
                self.say(step)
            case Look():
                self.look(20)
            case Drop():
                self.worker.vanish()
                self.come()

    def request(self, step: Request) -> None:
        correlation = b"%d-%d" % (self.number, len(self.owed) + self.owed_plain.total())
        message = [correlation, *step.frames]
        if step.fields is not None:  # keys of this example only: replies to them are kept
            fields = (
                step.fields | {"key": f"{self.number}-{step.fields['key']}"} if "key" in step.fields else step.fields
            )
            message = [correlation, HEADER + json.dumps(fields).encode(), EMPTY, *(step.frames or [b"body"])]
        request = parsed_or_error([b"id", *message])
        header = request.header if isinstance(request, wire.MalformedError) else request[2]
        if header is not None and header.delay > LONGEST_DELAY:
            return
        self.clients[step.client].send_multipart(message)
        if EMPTY in message:
            self.owed[correlation] = header
        else:
            self.owed_plain[step.client] += 1

    def answer(self, step: Answer) -> None:
        attempt_ids = self.attempt_ids or [b"none yet"]
        attempt_id = attempt_ids[step.which % len(attempt_ids)]
        if step.cut is not None:
            attempt_id = attempt_id[: step.cut].ljust(step.cut, b"x")
        start = [attempt_id] if step.verb is None else [EMPTY, step.verb, attempt_id]
        self.worker.answer.send_multipart([*start, *step.rest])

    def say(self, step: Say) -> None:
        attempt_id = self.attempt_ids[step.which % len(self.attempt_ids)] if self.attempt_ids else b"none yet"
        words = [step.verb] + [b"%d" % step.asks] * (step.verb not in NAMED) + [attempt_id] * (step.verb not in COUNTED)
        self.worker.ask.send_multipart([EMPTY, HEADER + b" ".join(words), *step.rest])

    def look(self, wait_ms: int) -> None:
        while self.worker.ask.poll(wait_ms):
            message = self.worker.ask.recv_multipart()
            rest = message[message.index(EMPTY) + 1 :]
            if len(rest) > 1:  # else a welcome, or what is told of an attempt
                self.attempt_ids.append(rest[0])
            wait_ms = 0

    def settle(self) -> None:
        """Have a proper worker do what is left, until all that is owed must have come."""
        self.look(0)
        with Peers() as peers:
            addresses = self.running.addresses
            worker = PlainWorker(
                peers.open(zmq.DEALER, addresses.ready), peers.open(zmq.PUSH, addresses.results, linger=1000)
            )
            for client in self.clients:
                client.send_multipart([b"all before this was read", EMPTY])
            self.worker.vanish()  # what it has is lost
            for _ in range(5):
                worker.ready()
            silent = [client for client in self.clients if not self.hears_all_before(client, worker)]
            assert not silent, "a request without a body had no reply"
            for _ in range(PATIENCE_MS // 5):
                if not self.running.broker._dispatcher.unsettled:
                    break
                self.work(worker, 5)
                for attempt_id in self.attempt_ids:  # it may have been told that it had 30 years
                    worker.reply(attempt_id, b"late")
            assert not self.running.broker._dispatcher.unsettled, f"left unsettled: {self.running.broker.counters()}"

    def work(self, worker: PlainWorker, wait_ms: int) -> None:
        while worker.has_task(wait_ms):
            attempt_id, body = worker.receive()
            worker.reply(attempt_id, *body)
            worker.ready()
            wait_ms = 0

    def hears_all_before(self, client: "zmq.Socket[bytes]", worker: PlainWorker) -> bool:
        for _ in range(PATIENCE_MS // 5):
            assert self.running.thread.is_alive(), "the broker has ended"
            self.work(worker, 0)
            while client.poll(5):
                if self.hear(client) == b"all before this was read":
                    return True
        return False

    def hear(self, client: "zmq.Socket[bytes]") -> bytes:
        message = client.recv_multipart()
        if message == [EMPTY, EMPTY]:
            self.owed_plain[self.clients.index(client)] -= 1
        elif message[0] != b"all before this was read":
            self.replies[message[0]] += 1
        return message[0]

    def check_replies(self) -> None:
        """Every request has one reply, save for those whose reply another request with their key took over."""
        for client in self.clients:  # another round trip, after which all replies that were sent are here
            client.send_multipart([b"all before this was read", EMPTY])
            while self.hear(client) != b"all before this was read":
                pass
        assert not +self.owed_plain
        assert not -self.owed_plain
        assert set(self.replies) <= set(self.owed)
        assert max(self.replies.values(), default=0) <= 1, "replied twice"
        unanswered = [header for correlation, header in self.owed.items() if not self.replies[correlation]]
        assert all(header is not None and header.key is not None and not header.cancel for header in unanswered)
        assert len(unanswered) <= self.running.count("joined") - self.joined


def assert_nothing_is_left(running: Running) -> None:
    """Everything has settled and everybody has left: the broker holds nothing for them.

    A worker that left before its ready message was read is found gone by the next task.
    """
    dispatcher = running.broker._dispatcher
    for _ in range(MOST_PROBES):
        assert_a_task_goes_through(running)
        if not running.count("idle"):
            break
    assert not running.count("idle")
    assert len(running.broker._sockets.workers) <= MOST_DESCRIPTORS
    counters = dispatcher.counters
    assert counters.accepted == counters.done + counters.failed + counters.cancelled + counters.expired
    assert (dispatcher.waiting, dispatcher.delayed, dispatcher.running) == (0, 0, 0)
    assert not len(dispatcher.ledger)
    assert not dispatcher._by_name
    running.wait_until(lambda: not dispatcher.settled)  # cleared when all of a turn were sent
    assert all(isinstance(thing, Queue) for thing in dispatcher._timers)
    assert len(dispatcher._timers._heap) <= STALE_KEPT
    running.wait_until(lambda: not dispatcher._workers._workers)  # known until their connections are seen to drop
    assert max(places(dispatcher), entries(dispatcher), ranks(dispatcher)) <= STALE_KEPT


def assert_a_task_goes_through(running: Running) -> None:
    with Peers() as peers:
        client = peers.open(zmq.REQ, running.addresses.requests)
        worker = PlainWorker(
            peers.open(zmq.REQ, running.addresses.ready), peers.open(zmq.PUSH, running.addresses.results)
        )
        client.send(b"still there?")
        worker.echo()
        assert client.recv_multipart() == [b"still there?"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """Return the broker that all sequences go to."""
    running = Running(timeout=0.02, tries=2)
    yield running
    running.finish()


@examples(100)
@given(steps=STEPS)
def test_whatever_comes_the_broker_goes_on_and_replies_once(shared: Running, steps: list[Step]):
    with Peers() as peers:
        sequence = Sequence(shared, peers)
        for step in steps:
            sequence.play(step)
        sequence.settle()
        sequence.check_replies()
    assert_nothing_is_left(shared)


# What was found


@pytest.fixture
def few_skipped(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many frames of a message that is too long are skipped in one turn: not so many as usual."""
    monkeypatch.setattr("zmqbroker.transport.messages.MOST_SKIPPED", 500)
    return 500


@pytest.fixture
def still() -> Iterator[tuple[Broker, Peers]]:
    """Return a broker whose turns the test takes itself, so that what has come is read in one."""
    with Peers() as peers, Broker(LOOPBACK, LOOPBACK, LOOPBACK, context=peers.context) as broker:
        yield broker, peers


def take_turns(broker: Broker, awaited: "zmq.Socket[bytes]") -> None:
    for _ in range(PATIENCE_MS):
        broker._loop._wait = (
            0.0  # what it would wait for may have come in the turn before, and its answer be on its way
        )
        broker._loop.turn()
        if awaited.poll(1):
            return
    raise AssertionError("waited in vain")


def test_a_request_that_joins_a_reply_not_yet_sent_does_not_take_it_from_the_first(still: tuple[Broker, Peers]):
    broker, peers = still
    first, second = (peers.open(zmq.DEALER, broker.addresses.requests) for _ in range(2))
    worker = peers.open(zmq.DEALER, broker.addresses.ready)
    results = peers.open(zmq.PUSH, broker.addresses.results)
    first.send_multipart([b"1", HEADER + b'{"key": "k"}', EMPTY, b"task"])
    worker.send_multipart([EMPTY, b"ready"])
    take_turns(broker, worker)
    results.send_multipart([worker.recv_multipart()[1], b"result"])
    second.send_multipart([b"2", HEADER + b'{"key": "k"}', EMPTY, b"task"])
    for readable in (broker._sockets.results, broker._sockets.requests):
        assert readable.poll(PATIENCE_MS)
    take_turns(broker, second)
    second.send_multipart([b"3", EMPTY])  # answered after all that was decided before
    replies = [second.recv_multipart()[0]]
    take_turns(broker, second)
    replies.append(second.recv_multipart()[0])
    assert replies == [b"2", b"3"], "the second client has two replies to one request"
    assert first.poll(PATIENCE_MS)
    assert first.recv_multipart()[0] == b"1"


def test_each_of_several_requests_for_a_kept_reply_gets_it_once():
    dispatcher = Dispatcher()
    dispatcher.submit([b"first"], [b"task"], 0.0, Header(key="k"))
    dispatcher.ready([b"worker"])
    pair = dispatcher.hand_out(0.0)
    assert pair is not None
    dispatcher.result(pair[1].attempt_id, [b"result"], 0.0)
    dispatcher.settled.clear()  # sent
    for name in (b"second", b"third"):
        dispatcher.submit([name], [b"task"], 0.0, Header(key="k"))
    assert [task.envelope for task in dispatcher.settled] == [[b"second"], [b"third"]]


@pytest.mark.parametrize("reason", ["\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{GRINNING FACE}", '"'])
def test_the_longest_reason_can_be_read_whatever_its_characters(reason: str):
    key = "\N{GRINNING FACE}" * LONGEST_KEY
    header = wire.reply_header(key, wire.FAILED, 3, reason * LONGEST_REASON)
    reply = wire.parse_reply([header, EMPTY, EMPTY])
    assert (reply.key, reply.status) == (key, wire.FAILED)


@pytest.mark.parametrize(
    "fields",
    [
        b'{"key": [1], "status": "done", "attempts": 1}',
        b'{"status": 5, "attempts": 1}',
        b'{"status": "done", "attempts": {}}',
        b'{"status": "failed", "attempts": 1, "reason": null}',
    ],
)
def test_a_reply_whose_fields_have_other_types_is_malformed(fields: bytes):
    with pytest.raises(wire.MalformedError):
        wire.parse_reply([HEADER + fields, EMPTY, EMPTY])


def test_priorities_that_rise_leave_no_empty_lines_behind():
    dispatcher = Dispatcher()
    for number in range(2 * STALE_KEPT):  # a time as priority, say: the newest first
        dispatcher.submit([b"client"], [b"task"], 0.0, Header(priority=number))
        dispatcher.ready([b"worker"])
        pair = dispatcher.hand_out(0.0)
        assert pair is not None
        dispatcher.result(pair[1].attempt_id, [b"result"], 0.0)
        dispatcher.settled.clear()
    assert dispatcher.unsettled == 0
    assert ranks(dispatcher) <= STALE_KEPT


def test_the_envelopes_of_kept_replies_are_not_kept():
    dispatcher = Dispatcher()
    envelope_frame = zmq.Frame(bytes(LARGE_FRAME))
    dispatcher.submit([b"client", envelope_frame], [b"task"], 0.0, Header(key="k"))
    dispatcher.submit([b"client"], [EMPTY], 0.0, Header(key="k", cancel=True))
    dispatcher.settled.clear()
    (kept,) = dispatcher._kept._kept.values()
    assert envelope_frame not in kept


def test_frames_of_kept_replies_count_however_small():
    kept = KeptReplies()
    for number in range(100):
        kept.add(str(number), Task([b"client"], [EMPTY] * 20_000, Queue("default")), 0.0)
    assert len(kept) < 100


def test_a_reply_too_large_to_be_kept_does_not_push_out_the_others():
    kept = KeptReplies()
    small, large = (Task([b"client"], body, Queue("default")) for body in ([b"result"], [bytes(MOST_BYTES + 1)]))
    kept.add("small", small, 0.0)
    kept.add("large", large, 0.0)
    assert kept.take("large", b"another connection", 1.0) is None
    reply = kept.take("small", b"another connection", 1.0)
    assert reply is not None
    assert reply.body == [b"result"]


def test_a_cancel_by_the_same_large_envelope_is_answered_once():
    dispatcher = Dispatcher()
    for cancel in (False, True):
        envelope = [b"client", zmq.Frame(bytes(LARGE_FRAME))]
        dispatcher.submit(envelope, [b"task"], 0.0, Header(key="k", cancel=cancel))
    assert len(dispatcher.settled) == 1


def test_a_result_for_an_attempt_that_never_was_does_not_count():
    dispatcher = Dispatcher()
    dispatcher.submit([b"client"], [b"task"], 0.0)
    dispatcher.ready([b"worker"])
    pair = dispatcher.hand_out(0.0)
    assert pair is not None
    attempt_id = pair[1].attempt_id
    dispatcher.result(attempt_id[:-1] + bytes([attempt_id[-1] + 1]), [b"result"], 0.0)
    assert dispatcher.unsettled == 1


@pytest.mark.parametrize("header", [[], [HEADER + b'{"key": "k"}']], ids=["plain", "header"])
def test_a_request_whose_envelope_is_too_large_is_refused(still: tuple[Broker, Peers], header: list[bytes]):
    broker, peers = still
    client = peers.open(zmq.DEALER, broker.addresses.requests)
    frames = [bytes(LARGEST_ENVELOPE), b"x"]
    client.send_multipart([*frames, *header, EMPTY, b"task"])
    take_turns(broker, client)
    reply = client.recv_multipart()
    assert reply[:2] == frames
    if header:
        assert wire.parse_reply(reply[2:])[:2] == ("k", wire.INVALID)
    else:
        assert reply[2:] == [EMPTY, EMPTY]
    assert (broker.counters()["accepted"], broker.counters()["malformed"]) == (0, 1)


def test_a_ready_message_whose_envelope_is_too_large_is_ignored(still: tuple[Broker, Peers]):
    broker, peers = still
    worker, client = (
        peers.open(zmq.DEALER, address) for address in (broker.addresses.ready, broker.addresses.requests)
    )
    worker.send_multipart([bytes(LARGEST_ENVELOPE + 1), EMPTY])
    assert broker._sockets.ready.poll(PATIENCE_MS)
    client.send(b"malformed, so answered at once")
    take_turns(broker, client)
    assert (broker.counters()["idle"], broker.counters()["malformed"]) == (0, 2)


@pytest.mark.parametrize(
    ("start", "answer"),
    [
        ([EMPTY], [EMPTY, EMPTY]),
        ([b"1", EMPTY], [b"1", EMPTY, EMPTY]),
        ([b"x"], [EMPTY, EMPTY]),
        ([b"1", HEADER + b'{"key": "k"}', EMPTY], [b"1", None, EMPTY, EMPTY]),
    ],
)
def test_a_request_of_too_many_frames_is_refused(
    still: tuple[Broker, Peers], start: list[bytes], answer: list[bytes | None]
):
    broker, peers = still
    client = peers.open(zmq.DEALER, broker.addresses.requests)
    client.send_multipart(start + [b"x"] * MOST_FRAMES)
    client.send_multipart([EMPTY, b"task"])
    take_turns(broker, client)
    reply = client.recv_multipart()
    if None in answer:
        read = wire.parse_reply(reply[1:])
        assert (read.key, read.status, read.attempts) == ("k", wire.INVALID, 0)
        assert str(MOST_FRAMES) in read.reason
    else:
        assert reply == answer
    worker = peers.open(zmq.DEALER, broker.addresses.ready)
    worker.send_multipart([EMPTY])
    take_turns(broker, worker)
    assert worker.recv_multipart()[2:] == [b"task"], "the rest of the message was taken for another one"


def test_a_request_of_as_many_frames_as_may_be_is_a_task_like_any_other(still: tuple[Broker, Peers]):
    broker, peers = still
    client, worker = (
        peers.open(zmq.DEALER, address) for address in (broker.addresses.requests, broker.addresses.ready)
    )
    body = [b"%d" % number for number in range(MOST_FRAMES - 1)]
    for _ in range(2):
        client.send_multipart([EMPTY, *body])
        worker.send_multipart([EMPTY])
    for _ in range(2):
        take_turns(broker, worker)
        assert worker.recv_multipart()[2:] == body


def test_a_result_of_too_many_frames_loses_the_attempt(still: tuple[Broker, Peers]):
    broker, peers = still
    client, worker = (
        peers.open(zmq.DEALER, address) for address in (broker.addresses.requests, broker.addresses.ready)
    )
    results = peers.open(zmq.PUSH, broker.addresses.results)
    client.send_multipart([EMPTY, b"task"])
    worker.send_multipart([EMPTY])
    worker.send_multipart([EMPTY])
    take_turns(broker, worker)
    results.send_multipart([worker.recv_multipart()[1]] + [b"x"] * MOST_FRAMES)
    take_turns(broker, worker)
    results.send_multipart([worker.recv_multipart()[1], b"result"])
    take_turns(broker, client)
    assert client.recv_multipart() == [EMPTY, b"result"]
    assert (broker.counters()["retried"], broker.counters()["malformed"]) == (1, 0)


@pytest.mark.parametrize("start", [[EMPTY], [EMPTY, wire.RELEASE, b"attempt"]], ids=["ready", "verb"])
def test_what_else_has_too_many_frames_is_ignored(still: tuple[Broker, Peers], start: list[bytes]):
    broker, peers = still
    address, receiving = (
        (broker.addresses.ready, broker._sockets.ready)
        if len(start) == 1
        else (broker.addresses.results, broker._sockets.results)
    )
    sender = peers.open(zmq.DEALER if len(start) == 1 else zmq.PUSH, address)
    sender.send_multipart(start + [b"x"] * MOST_FRAMES)
    assert receiving.poll(PATIENCE_MS)
    client = peers.open(zmq.DEALER, broker.addresses.requests)
    client.send(b"malformed, so answered at once")
    take_turns(broker, client)
    assert (broker.counters()["idle"], broker.counters()["malformed"]) == (0, 2)


def test_others_are_served_while_a_message_of_very_many_frames_is_skipped(
    still: tuple[Broker, Peers], few_skipped: int
):
    broker, peers = still
    client, other = (peers.open(zmq.DEALER, broker.addresses.requests) for _ in range(2))
    results = peers.open(zmq.PUSH, broker.addresses.results)
    results.send_multipart([EMPTY] * (20 * few_skipped))
    client.send_multipart([b"x"] * (20 * few_skipped))
    for receiving in (broker._sockets.results, broker._sockets.requests):
        assert receiving.poll(PATIENCE_MS)
    broker._loop.turn()
    assert broker._loop._receiver._requests_in._is_skipping
    turns = 1
    while broker._loop._receiver._results_in._is_skipping or broker._loop._receiver._requests_in._is_skipping:
        broker._loop.turn()
        turns += 1
    assert turns > 10
    assert client.recv_multipart() == [EMPTY, EMPTY]
    assert broker.counters()["malformed"] == 2
    other.send(b"malformed, so answered at once")
    take_turns(broker, other)


def test_a_peer_that_leaves_while_its_message_is_skipped_leaves_nothing_behind(
    still: tuple[Broker, Peers], few_skipped: int
):
    broker, peers = still
    with Peers() as elsewhere:
        client = elsewhere.open(zmq.DEALER, broker.addresses.requests, routing_id=b"me")
        client.send_multipart([b"x"] * (20 * few_skipped))
        take_turns(broker, client)
    again = peers.open(zmq.DEALER, broker.addresses.requests, routing_id=b"me")
    again.send(b"malformed, so answered at once")
    take_turns(broker, again)
    assert not broker._loop._receiver._requests_in._is_skipping
    assert broker.counters()["malformed"] == 2
