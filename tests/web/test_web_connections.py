"""How long the page waits for who is connected to it, and whom it lets go when too many are."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from web_support import IMPATIENT, PATIENCE, Serve, Serving, serve_page, until

from zmqbroker.web import connection, doors

__all__ = ["serve_page"]  # fixtures
HOST = b"Host: localhost\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
HALF = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\ntoken="
TOKEN = "correct-horse-battery-staple"
NOBODY = "tcp://127.0.0.1:9"  # a broker that is not there


@pytest.fixture
def serving(serve_page: Serve) -> Serving:
    return serve_page(NOBODY, token=TOKEN, patience=IMPATIENT)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_WAIT", 0.3)


@pytest.fixture
def open_sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(serving: Serving, sent: bytes = b"") -> socket.socket:
    peer = socket.socket()
    peer.settimeout(PATIENCE)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", serving.port))
    peer.sendall(sent)
    return peer


def is_ended(peer: socket.socket) -> bool:
    """Tell whether the other end has closed a connection, on which nothing is left to be read."""
    peer.setblocking(False)
    try:
        return peer.recv(1000) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        peer.settimeout(PATIENCE)


@pytest.mark.parametrize("sent", [b"", b"GET /heal", HALF, WHOLE + b"GET"], ids=["none", "head", "body", "second"])
def test_who_brings_no_whole_request_in_time_is_let_go(hurry, serving, sent):
    with connect(serving, sent) as peer:
        assert until(lambda: is_ended(peer))


@pytest.mark.parametrize("sent", [b"GET /", HALF], ids=["head", "body"])
def test_who_brings_it_a_byte_at_a_time_gains_nothing(hurry, serving, sent):
    with connect(serving, sent) as peer:

        def trickle() -> bool:
            with suppress(ConnectionError):
                peer.sendall(b"a")
            return is_ended(peer)

        assert until(trickle)


def test_who_does_not_read_the_answers_is_let_go(monkeypatch, hurry, serving):
    ended = threading.Event()
    lost = connection.Connection.connection_lost

    def lose(one: connection.Connection, error: Exception | None) -> None:
        lost(one, error)
        ended.set()

    monkeypatch.setattr(connection.Connection, "connection_lost", lose)
    with connect(serving, (b"GET /static/style.css HTTP/1.1\r\n" + HOST + b"\r\n") * 1000):
        assert ended.wait(PATIENCE)


def test_who_waits_for_an_answer_is_not(monkeypatch, serving):
    monkeypatch.setattr(connection, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(doors, "WRONG_TAKES", 0.5)
    assert serving.get("/metrics", authorization="Bearer wrong").status == 401


def test_a_connection_is_kept_between_two_requests(serving):
    with closing(http.client.HTTPConnection("127.0.0.1", serving.port, timeout=PATIENCE)) as kept:
        kept.auto_open = False
        kept.connect()
        for _ in range(2):
            kept.request("GET", "/healthz")
            assert kept.getresponse().read() == b"ok\n"


@pytest.mark.parametrize("sent", [b"", b"GET /heal", HALF], ids=["none", "head", "body"])
def test_of_too_many_who_bring_nothing_the_first_is_let_go(monkeypatch, serving, open_sockets, sent):
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 5)
    peers = [open_sockets.enter_context(connect(serving, sent)) for _ in range(12)]
    assert [serving.get("/healthz").status for _ in range(3)] == [200] * 3
    assert until(lambda: is_ended(peers[0]))
    assert not is_ended(peers[-1])
