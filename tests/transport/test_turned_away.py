"""What is said to who has an identity that does not fit, or none: by connections, by control sockets, and when."""

import logging
from collections.abc import Callable
from functools import partial
from math import ceil, inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq
from helpers import PATIENCE, wait_until
from identity_support import Identities, Listener, listening

from zmqbroker.transport.addresses import parse
from zmqbroker.transport.connection import CONNECTED, REFUSED, Connection
from zmqbroker.transport.control import ControlSocket, NoAnswerError
from zmqbroker.transport.destination import Destination, destination
from zmqbroker.transport.greeting import Greeting
from zmqbroker.transport.identity import Credentials, Identity
from zmqbroker.transport.inquiry import Finding, look_at
from zmqbroker.transport.patience import Patience
from zmqbroker.wire.control import ASKER, answer_message

ADDRESS = "tcp://host:4161"
UNKNOWN, WANTS, HAS_NONE = "it is not known", "it wants identities", "it has none"
KEYS = Credentials(Identity(b"m" * 40, b"s" * 40), b"b" * 40)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities.make(tmp_path_factory.mktemp("identities"))


# What is said, and when


def test_who_is_turned_away_is_told_at_once_and_then_at_growing_intervals():
    patience = Patience(ADDRESS, None, now=0.0)
    said, now = [], 1.0
    while len(said) < 8:
        patience.turned_away(UNKNOWN, now)  # at each try
        if (complaint := patience.complaint(now, "")) is not None:
            assert complaint == UNKNOWN
            said.append(now)
        now = patience.next_due(now)
    assert said == [1.0, 11.0, 31.0, 71.0, 151.0, 311.0, 631.0, 1231.0]


def test_nobody_looks_for_a_reason_who_has_just_been_told_it():
    patience = Patience(ADDRESS, None, now=0.0)
    patience.turned_away(UNKNOWN, now=1.0)
    assert not patience.wants_reason(1.0)
    patience.complaint(1.0, "")
    assert not patience.wants_reason(9.9)
    assert patience.wants_reason(10.0)  # whoever it was may be gone by now


def test_who_is_turned_away_calls_again_at_growing_intervals():
    patience = Patience(ADDRESS, None, now=0.0)
    patience.turned_away(UNKNOWN, 0.0)
    patience.complaint(0.0, "")
    assert [round(patience.next_try(0.5) - 0.5, 1) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_mismatch_is_told_when_it_was_found_twice_in_a_row():
    patience = Patience(ADDRESS, None, now=0.0)
    for found, complaint in [(WANTS, None), ("", None), (WANTS, None), (HAS_NONE, None), (WANTS, None), (WANTS, WANTS)]:
        patience.found("", found, now=1.0)
        assert patience.complaint(1.0, "") == complaint
    patience.found("", WANTS, now=2.0)
    assert patience.complaint(2.0, "") is None
    assert patience.complaint(11.0, "") == WANTS


def test_a_kind_of_socket_that_is_wrong_counts_more_than_an_identity():
    patience = Patience(ADDRESS, None, now=0.0, belongs="go elsewhere")
    for _ in range(2):
        patience.found("PULL", HAS_NONE, now=0.0)
    text = f"{ADDRESS} is the wrong address: it is one for results (RESULTS); go elsewhere"
    assert patience.verdict(0.0, "") == text


def test_another_reason_is_told_at_once_too():
    patience = Patience(ADDRESS, None, now=0.0)
    patience.turned_away(UNKNOWN, now=0.0)
    assert patience.complaint(0.0, "") == UNKNOWN
    for _ in range(2):
        patience.found("", HAS_NONE, now=3.0)
    assert patience.complaint(3.0, "") == HAS_NONE
    patience.turned_away(UNKNOWN, now=4.0)
    assert patience.complaint(4.0, "") == UNKNOWN


def test_who_is_turned_away_goes_on_for_the_timeout_and_then_that_is_the_reason():
    patience = Patience(ADDRESS, 20.0, now=0.0)
    patience.turned_away(UNKNOWN, now=1.0)
    assert patience.verdict(19.9, "") is None
    assert patience.verdict(20.0, "connection refused") == UNKNOWN


def test_who_has_got_in_was_not_turned_away():
    patience = Patience(ADDRESS, 20.0, now=0.0)
    patience.turned_away(UNKNOWN, now=1.0)
    patience.answered()
    assert patience.next_due(1.0) == inf
    patience.lost(now=100.0)
    assert patience.complaint(104.9, "") is None
    assert patience.complaint(105.0, "connection refused") == (
        f"nobody answers at {ADDRESS}: is the broker running there? (connection refused)"
    )


def test_where_nobody_is_any_more_nobody_is_said_to_have_turned_us_away():
    patience = Patience(ADDRESS, 20.0, now=0.0)
    patience.turned_away(UNKNOWN, now=1.0)
    patience.complaint(1.0, "")
    patience.found("", "", now=10.0)
    assert "nobody answers" in str(patience.complaint(11.0, "connection refused"))
    assert "nobody has answered" in str(patience.verdict(20.0, "connection refused"))


@pytest.mark.parametrize(
    ("keys", "mechanism", "text"),
    [
        (None, "NULL", ""),
        (None, "", ""),
        (None, "PLAIN", ""),
        (None, "CURVE", f"the broker at {ADDRESS} wants identities: give --identity and --broker-identity"),
        (KEYS, "", ""),
        (KEYS, "NULL", f"the broker at {ADDRESS} has no identity: leave --identity out, or start it with one"),
        (
            KEYS,
            "CURVE",
            f"the broker at {ADDRESS} is not the one of --broker-identity ({'b' * 40}), or that is its RESULTS",
        ),
    ],
)
def test_how_an_identity_does_not_fit_is_told_by_the_mechanism_of_who_listens(
    keys: Credentials | None, mechanism: str, text: str
):
    assert Destination(ADDRESS, credentials=keys).mismatch(mechanism) == text


def test_a_key_that_is_not_known_is_named_so_that_it_can_be_added():
    assert Destination(ADDRESS, credentials=KEYS).unknown == (
        f"the broker at {ADDRESS} does not know this identity ({'m' * 40}), or not in this role: "
        "add it to the file of its authorized"
    )


# Greetings


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
@pytest.mark.parametrize(
    ("is_secured", "greeting"), [(True, Greeting("CURVE", "")), (False, Greeting("NULL", "ROUTER"))]
)
def test_a_greeting_says_whether_there_are_identities(
    identities: Identities, tmp_path: Path, transport: str, is_secured: bool, greeting: Greeting
):
    address = f"ipc://{tmp_path}/r" if transport == "ipc" else "tcp://127.0.0.1:*"
    with listening(identities.broker if is_secured else None, address) as listener:
        finding = look_at(parse(listener.address))
        assert finding.greeting == greeting
        assert finding.reason


# Connections


class Caller:
    """What connects, again and again, as clients and workers do."""

    def __init__(self, broker: Destination, timeout: float | None = None) -> None:
        self.patience = Patience(broker.address, timeout, monotonic())
        self.calls = 0
        self._context: zmq.Context[Any] = zmq.Context()
        self._call: Callable[[], Connection] = partial(Connection, self._context, zmq.DEALER, broker, self.patience)
        self.connection = self._call()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._context.term()

    def go_on_until(self, condition: Callable[[], bool]) -> None:
        until = monotonic() + PATIENCE
        while True:
            now = monotonic()
            due = self.connection.advance(now)
            if condition():
                return
            assert now < until, f"waited in vain: {self.connection.state}, {self.connection.reason}"
            if self.connection.has_ended:
                self.connection.close()
                due = self.patience.next_try(now)
                zmq.zmq_poll([], ceil(1000 * (due - now)))
                self.connection = self._call()
                self.calls += 1
            else:
                waited_for = [(one, zmq.POLLIN) for one in self.connection.waited_for]
                zmq.zmq_poll(waited_for, ceil(1000 * max(0.0, min(due, until) - now)))


def who(identities: Identities, address: str, mine: bool, broker: str = "broker") -> Destination:
    if not mine:
        return Destination(address)
    files = getattr(identities, broker)
    return destination(address, identity=identities.mine.secret, broker_identity=files.public)


def by_name(listener: Listener) -> str:
    return f"tcp://localhost:{listener.address.rpartition(':')[2]}"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(params=["number", "name"])
def address_of(request: pytest.FixtureRequest) -> Callable[[Listener], str]:
    return by_name if request.param == "name" else lambda listener: listener.address


def test_who_is_known_gets_in(identities: Identities, address_of: Callable[[Listener], str]):
    with listening(identities.broker) as listener:
        assert listener.door is not None
        listener.door.known.add(identities.mine.key)
        with Caller(who(identities, address_of(listener), True)) as caller:
            caller.go_on_until(lambda: caller.connection.state == CONNECTED)
            caller.connection.socket.send(b"hello")
            assert listener.socket.recv_multipart()[1:] == [b"hello"]
        assert (caller.calls, listener.door.turned_away) == (0, 0)


def test_who_is_not_known_is_told_once_and_gets_in_as_soon_as_it_is_known(
    identities: Identities,
    address_of: Callable[[Listener], str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    looks: list[object] = []
    monkeypatch.setattr("zmqbroker.transport.connection.look_at", lambda target: looks.append(target) or Finding(""))
    with listening(identities.broker) as listener, Caller(who(identities, address_of(listener), True)) as caller:
        door = listener.door
        assert door is not None
        caller.go_on_until(lambda: door.turned_away > 3)
        assert not looks  # at who has said why
        assert messages(caplog) == [
            f"the broker at {address_of(listener)} does not know this identity ({identities.mine.key}), or not in this "
            "role: add it to the file of its authorized"
        ]
        door.known.add(identities.mine.key)
        caller.go_on_until(lambda: caller.connection.state == CONNECTED)
        assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("mine", "broker", "is_secured", "told"),
    [
        (False, "", True, "wants identities: give --identity and --broker-identity"),
        (True, "broker", False, "has no identity: leave --identity out, or start it with one"),
        (True, "other", True, "is not the one of --broker-identity (KEY), or that is its RESULTS"),
    ],
)
def test_an_identity_that_does_not_fit_is_told(
    identities: Identities,
    address_of: Callable[[Listener], str],
    caplog: pytest.LogCaptureFixture,
    mine: bool,
    broker: str,
    is_secured: bool,
    told: str,
):
    with listening(identities.broker if is_secured else None) as listener:
        address = address_of(listener)
        with Caller(who(identities, address, mine, broker)) as caller:
            caller.go_on_until(lambda: bool(caplog.records))
            assert messages(caplog) == [f"the broker at {address} {told.replace('KEY', identities.other.key)}"]
            assert caller.patience.verdict(monotonic(), "") is None


def test_a_broker_that_is_restarted_with_the_right_keys_is_found(
    identities: Identities, caplog: pytest.LogCaptureFixture
):
    with listening(identities.other) as listener:
        address = listener.address
        caller = Caller(who(identities, address, True))
        caller.go_on_until(lambda: bool(caplog.records))
    with caller, listening(identities.broker, address) as listener:
        assert listener.door is not None
        listener.door.known.add(identities.mine.key)
        caller.go_on_until(lambda: caller.connection.state == CONNECTED)


def test_when_the_broker_is_gone_nobody_is_said_to_have_turned_us_away(
    identities: Identities, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zmqbroker.transport.patience.FIRST_PAUSE", 1.2)
    with listening(identities.broker) as listener:
        caller = Caller(who(identities, listener.address, True))
        caller.go_on_until(lambda: bool(caplog.records))
    with caller:
        caller.go_on_until(lambda: len(caplog.records) == 2)
    assert "does not know this identity" in messages(caplog)[0]
    assert messages(caplog)[1] == (
        f"nobody answers at {listener.address}: is the broker running there? (connection refused)"
    )


def test_one_refusal_of_a_number_ends_the_connection(identities: Identities):
    with listening(identities.broker) as listener, Caller(who(identities, listener.address, True)) as caller:
        caller.go_on_until(lambda: caller.connection.state == REFUSED)
        assert caller.calls == 0


# Control sockets


def asking(identities: Identities, address: str, mine: bool, patience: float, broker: str = "broker") -> ControlSocket:
    files = getattr(identities, broker)
    given = {"identity": identities.mine.secret, "broker_identity": files.public} if mine else {}
    return ControlSocket(address, patience, **given)


def test_who_asks_and_is_known_is_answered(identities: Identities):
    with listening(identities.broker) as listener, asking(identities, listener.address, True, PATIENCE) as control:
        assert listener.door is not None
        listener.door.known.add(identities.mine.key)
        control._socket.send_multipart([b"to be there"])
        asker, _ = listener.socket.recv_multipart()
        listener.socket.send_multipart(answer_message([asker, b"1", ASKER], {"status": "all is well"}))
        assert control.ask("status")["status"] == "all is well"


def test_who_asks_and_is_not_known_is_told_at_once_each_time(identities: Identities):
    with listening(identities.broker) as listener, asking(identities, listener.address, True, PATIENCE) as control:
        began = monotonic()
        for _ in range(2):
            with pytest.raises(NoAnswerError, match="does not know this identity") as told:
                control.ask("status")
            assert identities.mine.key in str(told.value)
        assert monotonic() < began + PATIENCE / 2


@pytest.mark.parametrize(
    ("mine", "broker", "is_secured", "told"),
    [
        (False, "broker", True, "wants identities"),
        (True, "broker", False, "has no identity"),
        (True, "other", True, "is not the one of --broker-identity"),
    ],
)
def test_who_asks_with_an_identity_that_does_not_fit_is_told(
    identities: Identities, tmp_path: Path, mine: bool, broker: str, is_secured: bool, told: str
):
    address = f"ipc://{tmp_path}/control"
    with (
        listening(identities.broker if is_secured else None, address),
        asking(identities, address, mine, PATIENCE, broker) as control,
        pytest.raises(NoAnswerError, match=f"^the broker at {address} {told}"),
    ):
        control.ask("status")


def test_a_broker_that_hangs_is_not_taken_for_another_one(identities: Identities):
    with listening(identities.broker) as listener, asking(identities, listener.address, True, 0.2) as control:
        assert listener.door is not None
        listener.door.known.add(identities.mine.key)
        wait_until(lambda: bool(control._monitor.poll(0)))
        with pytest.raises(NoAnswerError, match=r"^no broker answers at "):
            control.ask("status")
