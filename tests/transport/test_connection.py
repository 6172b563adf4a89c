"""Connecting: what is no address, which address of a name is tried, and what is said when nobody answers."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK
from helpers import PATIENCE
from library_support import NOBODY

from zmqbroker.transport import inquiry
from zmqbroker.transport.addresses import parse
from zmqbroker.transport.connection import CONNECTED, LOST, REFUSED, RESOLVING, Connection
from zmqbroker.transport.descriptors import need
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.patience import Patience
from zmqbroker.transport.search import Search

ADDRESS = "tcp://host:4161"


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


@contextmanager
def connecting(context: zmq.Context[Any], address: str) -> Iterator[Connection]:
    connection = Connection(context, zmq.DEALER, Destination(address), Patience(address, None, monotonic()))
    try:
        yield connection
    finally:
        connection.close()


def go_on_until(connection: Connection, condition: Callable[[], bool]) -> None:
    """Do as the owner of a connection does, for a bounded time."""
    until = monotonic() + PATIENCE
    poller = zmq.Poller()
    for waited_for in connection.waited_for:
        poller.register(waited_for, zmq.POLLIN)
    while True:
        now = monotonic()
        due = connection.advance(now)
        if condition():
            return
        assert now < until, f"waited in vain: {connection.state}, {connection.reason}"
        poller.poll(ceil(1000 * max(0.0, min(due, until) - now)))


@contextmanager
def listening(context: zmq.Context[Any], address: str) -> Iterator[str]:
    """Have a ROUTER listen, and yield where."""
    listener = context.socket(zmq.ROUTER)
    listener.ipv6 = "[" in address
    listener.bind(address)
    try:
        yield listener.get_string(zmq.LAST_ENDPOINT)
    finally:
        listener.close(linger=0)


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Have every name resolve to these addresses, at one look after the other; the last holds for all that follow."""
    left = list(answers)

    def resolve(_: object) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr("zmqbroker.transport.name.addresses_of", resolve)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:70000",
        "tcp://127.0.0.1:4161x",
        "tcp://127.0.0.1:4161.5",
        "tcp://127.0.0.1:0x1041",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:+4161",
        "tcp://127.0.0.1: 4161",
        "tcp://127.0.0.1:4161/",
        "tcp://127.0.0.1:٤١٦١",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:" + "9" * 5000,
        "tcp://:4161",
        "tcp://*:4161",
        "tcp://two words:4161",
        "tcp://" + "a" * 64 + ":4161",
        "tcp://[::1:4161",
        "ipc://",
        "ipc://*",
        "inproc://",
    ],
)
def test_what_is_no_address_to_connect_to_is_refused(address: str):
    with pytest.raises(ValueError, match="is no address to connect to"):
        parse(address)


@pytest.mark.parametrize(
    ("address", "numeric"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"),
        ("tcp://127.0.0.1:04161", "tcp://127.0.0.1:4161"),
        ("tcp://[::1]:65535", "tcp://[::1]:65535"),
        ("tcp://::1:4161", "tcp://[::1]:4161"),
        ("tcp://[fe80::1%eth0]:4161", "tcp://[fe80::1%eth0]:4161"),
        ("tcp://10.0.0.1:0;10.0.0.2:4161", "tcp://10.0.0.1:0;10.0.0.2:4161"),
        ("ipc:///tmp/tasks", "ipc:///tmp/tasks"),
        ("ipc://@tasks", "ipc://@tasks"),
        ("inproc://tasks", "inproc://tasks"),
    ],
)
def test_a_number_or_a_path_is_connected_to_as_it_is(address: str, numeric: str):
    assert not parse(address).is_name
    assert parse(address).numeric == numeric


@pytest.mark.parametrize("host", ["localhost", "[localhost]", "a_b.example", "bücher.example", "127.1"])
def test_a_name_is_looked_up(host: str):
    target = parse(f"tcp://{host}:4161")
    assert target.is_name
    assert target.at("::1") == "tcp://[::1]:4161"


# Which address of a name is tried


def test_the_addresses_of_a_name_are_tried_in_turn_those_of_ipv4_first():
    search = Search()
    assert search.is_looking
    search.found(["fd00::1", "10.0.0.1", "10.0.0.2"], now=0.0)
    assert not search.is_looking
    assert search.advance(now=0.0) == "10.0.0.1"
    assert search.advance(now=0.2) is None
    assert search.advance(now=0.25) == "10.0.0.2"
    assert search.advance(now=0.5) == "fd00::1"
    assert search.advance(now=0.75) is None
    assert search.is_looking
    assert search.next_due() == inf


def test_each_round_gives_an_address_twice_the_time_up_to_five_seconds():
    search, now, spans = Search(), 0.0, []
    for _ in range(7):
        search.found(["10.0.0.1"], now)
        assert search.advance(now) == "10.0.0.1"
        spans.append(search.next_due() - now)
        now = search.next_due()
        search.advance(now)
    assert spans == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_name_that_does_not_resolve_is_looked_up_again_after_growing_pauses():
    search, now, pauses = Search(), 0.0, []
    for _ in range(7):
        search.found([], now)
        pauses.append(search.next_due() - now)
        now = search.next_due()
        assert search.advance(now) is None
        assert search.is_looking
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_an_address_that_hangs_up_makes_room_for_the_next_at_once():
    search = Search()
    search.found(["10.0.0.1", "10.0.0.2"], now=0.0)
    search.advance(now=0.0)
    search.taken(now=0.1)
    assert search.next_due() == 5.1
    search.missed(now=0.2)
    assert search.advance(now=0.2) == "10.0.0.2"
    search.missed(now=0.3)
    assert search.next_due() == pytest.approx(0.5)


def test_an_address_that_has_answered_is_kept():
    search = Search()
    search.found(["10.0.0.1", "10.0.0.2"], now=0.0)
    search.advance(now=0.0)
    search.keep()
    assert search.next_due() == inf
    assert search.advance(now=1000.0) is None


# When to complain, and to give up


def test_silence_is_complained_of_after_five_seconds_and_then_at_growing_intervals():
    patience = Patience(ADDRESS, None, now=0.0)
    assert patience.complaint(4.9, "") is None
    assert patience.complaint(5.0, "connection refused") == (
        f"nobody answers at {ADDRESS}: is the broker running there? (connection refused)"
    )
    said, now = [], 5.0
    while len(said) < 8:
        now = patience.next_due(now)
        if patience.complaint(now, ""):
            said.append(now)
    assert said == [15.0, 35.0, 75.0, 155.0, 315.0, 635.0, 1235.0, 1835.0]


def test_who_has_answered_is_not_complained_of_until_it_is_lost_for_five_seconds():
    patience = Patience(ADDRESS, None, now=0.0)
    patience.answered()
    assert patience.next_due(now=1.0) == inf
    assert patience.complaint(1000.0, "") is None
    patience.lost(now=1000.0)
    patience.lost(now=1004.0)  # the next connection has failed too
    assert patience.complaint(1004.9, "") is None
    assert patience.complaint(1005.0, "")


def test_the_reason_is_asked_for_before_the_complaint_is_due():
    patience = Patience(ADDRESS, None, now=0.0)
    assert patience.next_due(now=0.0) == 4.0
    assert not patience.wants_reason(now=3.9)
    assert patience.wants_reason(now=4.0)
    assert patience.next_due(now=4.0) == 5.0


def test_silence_for_the_whole_timeout_is_the_end():
    patience = Patience(ADDRESS, 2.0, now=0.0)
    assert patience.wants_reason(now=1.0)
    assert patience.next_due(now=1.5) == 2.0
    assert patience.verdict(1.9, "") is None
    assert patience.verdict(2.0, "") == f"nobody has answered at {ADDRESS} for 2 s: is the broker running there?"
    patience.answered()
    assert patience.verdict(100.0, "") is None
    patience.lost(now=100.0)
    assert patience.verdict(101.9, "") is None
    assert patience.verdict(102.0, "")


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), "5"])
def test_a_timeout_that_is_no_span_of_time_is_refused(timeout: Any):
    with pytest.raises(ValueError, match="connect_timeout must be seconds, more than 0"):
        Patience(ADDRESS, timeout, now=0.0)


# Connections


def test_a_number_is_connected_to_without_a_thread(context: zmq.Context[Any]):
    before = threading.active_count()
    with listening(context, LOOPBACK) as address, connecting(context, address) as connection:
        assert not connection.can_send
        go_on_until(connection, lambda: connection.state == CONNECTED)
        assert connection.can_send
        assert threading.active_count() == before
        assert connection.advance(monotonic()) == inf


def test_a_connection_knows_when_it_is_lost(context: zmq.Context[Any]):
    with listening(context, LOOPBACK) as address:
        patience = Patience(address, None, monotonic())
        connection = Connection(context, zmq.DEALER, Destination(address), patience)
        go_on_until(connection, lambda: connection.state == CONNECTED)
        assert patience.next_due(monotonic()) == inf
    go_on_until(connection, lambda: connection.state == LOST)
    assert connection.is_lost(monotonic())
    assert patience.next_due(monotonic()) < inf
    connection.close()
    connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_name_is_reached_by_either_kind_of_address(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch, host: str
):
    names(monkeypatch, ["::1", "127.0.0.1"])
    with listening(context, f"tcp://{host}:*") as address:
        port = address.rpartition(":")[2]
        with connecting(context, f"tcp://name:{port}") as connection:
            assert connection.state == RESOLVING
            assert not connection.can_send
            go_on_until(connection, lambda: connection.state == CONNECTED)
            assert connection.can_send
            assert connection.found == host.strip("[]")


def test_a_name_is_looked_up_until_it_resolves_and_to_where_somebody_answers(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
):
    names(monkeypatch, [], ["127.0.0.2"], ["127.0.0.1"])
    with listening(context, LOOPBACK) as address:
        port = address.rpartition(":")[2]
        with connecting(context, f"tcp://name:{port}") as connection:
            go_on_until(connection, lambda: connection.state == CONNECTED)
            assert connection.found == "127.0.0.1"


def test_an_address_of_a_name_where_something_else_listens_is_passed_over(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
):
    names(monkeypatch, ["127.0.0.1", "::1"])
    with listening(context, "tcp://[::1]:*") as address:
        port = address.rpartition(":")[2]
        with socket.create_server(("127.0.0.1", int(port))) as other:
            threading.Thread(target=hang_up, args=(other,), daemon=True).start()
            with connecting(context, f"tcp://name:{port}") as connection:
                go_on_until(connection, lambda: connection.state == CONNECTED)
                assert connection.found == "::1"


def test_a_name_at_which_somebody_hangs_up_is_looked_up_again_and_not_called_by_zeromq_meanwhile(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
):
    looks = []
    monkeypatch.setattr("zmqbroker.transport.name.addresses_of", lambda _: looks.append(1) or ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=hang_up, args=(other,), daemon=True).start()
        with connecting(context, f"tcp://name:{other.getsockname()[1]}") as connection:
            go_on_until(connection, lambda: len(looks) == 4)


def hang_up(listener: socket.socket) -> None:
    """Take every connection, and end it, until the listener is closed."""
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_a_number_at_which_somebody_hangs_up_is_refused(context: zmq.Context[Any]):
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=hang_up, args=(other,), daemon=True).start()
        with connecting(context, f"tcp://127.0.0.1:{other.getsockname()[1]}") as connection:
            go_on_until(connection, lambda: connection.state == REFUSED)
            assert connection.has_ended


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (NOBODY, "connection refused"),
        ("tcp://name.invalid:4161", "the name does not resolve"),
        ("ipc:///nowhere/at/all", "its directory does not exist"),
        ("ipc://@zmqbroker-nobody-is-here", "connection refused"),
    ],
)
def test_the_reason_why_nobody_answers_is_found_out(monkeypatch: pytest.MonkeyPatch, address: str, reason: str):
    def resolve(host: str, *_: object, **__: object) -> object:
        if host == "name.invalid":
            raise socket.gaierror
        return real(host, *_, **__)

    real = socket.getaddrinfo
    monkeypatch.setattr("socket.getaddrinfo", resolve)
    assert inquiry.look_at(parse(address)) == (reason, None)


def test_a_path_where_nobody_listens_is_told_from_one_whose_directory_is_missing(tmp_path: Path):
    assert inquiry.look_at(parse(f"ipc://{tmp_path}/socket")).reason == "no socket is there"


def test_one_line_says_that_nobody_answers(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("zmqbroker.transport.patience.FIRST_COMPLAINT", 1.1)
    with connecting(context, NOBODY) as connection:
        go_on_until(connection, lambda: bool(caplog.records))
    assert [record.getMessage() for record in caplog.records] == [
        f"nobody answers at {NOBODY}: is the broker running there? (connection refused)"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_what_was_held_to_see_that_there_are_descriptors_is_given_back():
    before = os.listdir("/proc/self/fd")
    need(10, "a test")
    assert os.listdir("/proc/self/fd") == before
