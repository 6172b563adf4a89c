"""Who is let in, and what browsers are told of what they get."""

import asyncio
import socket
import threading
from urllib.parse import urlencode

import pytest
from conftest import Running
from control_support import controlled, submit
from identity_support import Files, make
from web_support import IMPATIENT, PATIENCE, Got, Serve, Serving, serve_page

from zmqbroker import Client, Reject, TaskFailed, Worker
from zmqbroker.commands.web import LONGEST_TOKEN
from zmqbroker.web import doors, pages
from zmqbroker.web.doors import COOKIE, is_own_host
from zmqbroker.web.pages import STATIC

__all__ = ["controlled", "serve_page"]  # fixtures
TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def serving(controlled: Running, serve_page: Serve) -> Serving:
    return serve_page(controlled.broker.control_address)


@pytest.fixture
def guarded(controlled: Running, serve_page: Serve, monkeypatch: pytest.MonkeyPatch) -> Serving:
    monkeypatch.setattr(doors, "WRONG_TAKES", 0.01)
    return serve_page(controlled.broker.control_address, token=TOKEN, checks_host=False)


def log_in(guarded: Serving, token: str) -> Got:
    form = {"content_type": "application/x-www-form-urlencoded"}
    return guarded.get("/", "POST", urlencode({"token": token}), **form)


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/api/status", "/api/nothing", "/metrics", "/healthz"])
def test_each_answer_says_what_a_browser_must_not_do_with_it(serving, path):
    headers = serving.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert not {"'unsafe-inline'", "'unsafe-eval'", "data:", "*"} & set(headers["content-security-policy"].split())
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost:8161", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:8161", True),
        ("10.0.0.1", True),
        ("evil.example:8161", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("[::1].evil.example", False),
        ("[::1]evil.example:8161", False),
        ("localhost:8161.evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_may_lead_anywhere_is_no_host_of_ours(host, is_own):
    assert is_own_host(host) == is_own


@pytest.mark.parametrize("path", ["/", "/api/status", "/metrics", "/healthz"])
def test_a_page_that_has_its_own_name_lead_here_gets_nothing(serving, path):
    got = serving.get(path, host="evil.example")
    assert (got.status, list(got.json)) == (421, ["error"])


@pytest.mark.parametrize("host", ["x/healthz?", "x/static/style.css#", "x/?"])
@pytest.mark.parametrize("path", ["/api/brokers", "/metrics"])
def test_what_is_asked_for_is_not_what_the_host_says(guarded, path, host):
    assert guarded.get(path, host=host).status == 401


@pytest.mark.parametrize("path", ["/api/status", "/api/brokers", "/metrics", "/static/page.js", "/docs"])
def test_without_the_token_nothing_is_told(guarded, path):
    got = guarded.get(path)
    assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
    assert "this needs the token" in got.json["error"]


def test_the_login_is_in_the_place_of_the_page(guarded):
    got = guarded.get("/")
    assert (got.status, "location" in got.headers, got.headers["cache-control"]) == (401, False, "no-store")
    assert "<title>Log in" in got.text
    assert "action=" not in got.text  # so the form goes to its own address, with what only the browser knows of that
    assert [guarded.get(path).status for path in ("/static/style.css", "/healthz", "/readyz")] == [200] * 3


def test_the_header_lets_in(guarded):
    assert guarded.get("/metrics", authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.get("/api/status", authorization=f"bearer  {TOKEN}").status == 200


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
def test_a_wrong_header_does_not(guarded, given):
    assert guarded.get("/api/status", authorization=given).status == 401


def test_the_login_gives_a_cookie_that_scripts_and_other_sites_do_not_have(guarded):
    got = log_in(guarded, TOKEN)
    assert (got.status, got.headers["location"]) == (303, "/")
    cookie, *attributes = got.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(attributes)
    assert TOKEN not in cookie
    assert guarded.get("/", cookie=cookie).status == 200
    assert guarded.get("/api/status", cookie=cookie).status == 200
    assert guarded.get("/api/status", cookie=f"{cookie}x").status == 401


@pytest.mark.parametrize("value", ["", TOKEN, "%ff", "\xe9"])
def test_another_cookie_does_not_let_in(guarded, value):
    assert guarded.get("/api/status", cookie=f"{COOKIE}_{guarded.port}={value}").status == 401


def test_a_wrong_cookie_is_refused_as_a_wrong_token_is(guarded, monkeypatch, caplog):
    wrong = f"{COOKIE}_{guarded.port}=wrong"
    got = guarded.get("/api/status", cookie=wrong)
    assert (got.status, got.json["error"]) == (401, "this is not the cookie")
    assert "a wrong cookie came from 127.0.0.1" in caplog.text
    monkeypatch.setattr(doors, "MOST_WRONG", 0)
    assert guarded.get("/api/status", cookie=wrong).status == 429


def test_who_has_an_old_cookie_is_at_the_login_at_once(guarded, monkeypatch, caplog):
    monkeypatch.setattr(doors, "MOST_WRONG", 0)
    got = guarded.get("/", cookie=f"{COOKIE}_{guarded.port}=old")
    assert (got.status, "<title>Log in" in got.text) == (401, True)
    assert "a wrong cookie came from 127.0.0.1" in caplog.text


def test_pages_on_one_host_do_not_put_each_other_out(guarded, controlled, serve_page):
    other = serve_page(controlled.broker.control_address, token=TOKEN[::-1])
    cookies = [
        log_in(one, token).headers["set-cookie"].split(";")[0]
        for one, token in ((guarded, TOKEN), (other, TOKEN[::-1]))
    ]
    assert len({cookie.partition("=")[0] for cookie in cookies}) == 2
    assert [one.get("/api/status", cookie="; ".join(cookies)).status for one in (guarded, other)] == [200, 200]


def test_a_wrong_login_is_told_so_and_logged(guarded, caplog):
    got = log_in(guarded, "wrong")
    assert (got.status, got.headers["location"]) == (303, "/?wrong")
    told = '<p role="alert" class="alarm bad">This is not the token.</p>'
    assert (told in guarded.get("/?wrong").text, told in guarded.get("/").text) == (True, False)
    assert "set-cookie" not in got.headers
    assert "a wrong token came from 127.0.0.1" in caplog.text
    assert "wrong" not in caplog.text.replace("a wrong token", "")


def test_the_longest_token_can_log_in(serve_page):
    token = "%" * LONGEST_TOKEN  # each letter of it takes three in a form
    guarded = serve_page("tcp://127.0.0.1:9", token=token, patience=IMPATIENT)
    assert "set-cookie" in log_in(guarded, token).headers
    assert guarded.get("/api/brokers", authorization=f"Bearer {token}").status == 200


def test_a_login_that_is_too_long_is_refused(guarded):
    assert log_in(guarded, "x" * 5000).status == 413


def test_a_login_that_is_cut_off_is_nobodys_fault(guarded, caplog):
    with socket.create_connection(("127.0.0.1", guarded.port), PATIENCE) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert peer.recv(1000).startswith(b"HTTP/1.1 100")  # it is being read
    guarded.stop()
    assert "Traceback" not in caplog.text


def test_a_fault_of_the_pages_own_is_logged_at_a_limited_rate_and_has_the_headers_too(serving, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(pages, "may_see_bodies", fail)
    for _ in range(3):
        got = serving.get("/api/brokers")
        assert (got.status, got.headers["x-frame-options"]) == (500, "DENY")
        assert "this is a fault of the page itself" in got.json["error"]
    assert caplog.text.count("Traceback") == 1
    assert "a fault in the answer to /api/brokers" in caplog.text


@pytest.mark.parametrize("accept", ["version=abc", "version=1.0.0; escaping=no", "version=", "version=\xb2"])
def test_metrics_in_a_form_that_is_none_come_in_another(serving, accept, caplog):
    got = serving.get("/metrics", accept=f"application/openmetrics-text; {accept}")
    assert (got.status, "zmqbroker_up" in got.text) == (200, True)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("ranges", ["0-1", ",".join(f"{start}-{start}" for start in range(2000, 0, -2)), "9" * 5000])
def test_a_file_comes_whole(serving, ranges):
    got = serving.get("/static/style.css", range=f"bytes={ranges}")
    assert (got.status, got.text) == (200, (STATIC / "style.css").read_text())


@pytest.mark.parametrize("path", ["/static/%00", "/static/" + "a" * 5000, "/%00", "/static/..%2f..%2fserver.py"])
def test_there_is_no_file_of_a_name_that_none_can_have(serving, path, caplog):
    assert serving.get(path).status == 404
    assert "Traceback" not in caplog.text


def test_many_wrong_tokens_are_turned_away_at_once_and_the_right_one_is_not(guarded, monkeypatch):
    monkeypatch.setattr(doors, "MOST_WRONG", 0)
    assert log_in(guarded, "wrong").status == 429
    assert guarded.get("/api/status", authorization="Bearer wrong").status == 429
    assert guarded.get("/api/status", authorization=f"Bearer {TOKEN}").status == 200


def test_a_wrong_token_is_answered_slowly():
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def refuse() -> None:
        from starlette.requests import Request

        door = doors.Doors(None, TOKEN, checks_host=False)  # type: ignore[arg-type]
        request = Request({"type": "http", "headers": [], "client": ("10.0.0.9", 1)})
        assert (await door._refuse(request, "token")).status_code == 401

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doors.asyncio, "sleep", sleep)
        asyncio.run(refuse())
    assert waited == [doors.WRONG_TAKES]


def test_bodies_are_for_who_has_given_a_token(start, serve_page, tmp_path):
    running = start(control="tcp://127.0.0.1:*", store=str(tmp_path / "store"), tries=1)
    client = submit(running, 1, key="secret", durable=True)
    worker = running.worker()
    attempt_id, _ = worker.take()
    worker.say(b"reject", attempt_id, b"no")
    client.recv_multipart()
    address = running.broker.control_address
    told = serve_page(address).get("/api/task?key=secret").json["stored"]
    assert (told["status"], told["body"]) == ("failed", None)
    guarded = serve_page(address, token=TOKEN)
    told = guarded.get("/api/task?key=secret", authorization=f"Bearer {TOKEN}").json["stored"]
    assert told["body"] == "0"


def test_of_a_broker_with_identities_it_tells_what_its_own_may_know(start, serve_page, tmp_path):
    broker, watcher, operator, worker, stranger = (
        make(tmp_path / name) for name in ("broker", "watcher", "operator", "worker", "stranger")
    )
    authorized = tmp_path / "authorized"
    authorized.write_text(
        f"observer {watcher.key} watcher\nobserver,admin {operator.key} operator\nclient,worker {worker.key} worker\n"
    )
    running = start(
        control="tcp://127.0.0.1:*", store=str(tmp_path / "store"), identity=broker.secret, authorized=authorized
    )
    own = {"identity": worker.secret, "broker_identity": broker.public}
    hand = Worker(running.addresses.ready, refuse, **own)
    thread = threading.Thread(target=hand.run, daemon=True)
    thread.start()
    with Client(running.addresses.requests, **own) as client, pytest.raises(TaskFailed, match="no"):
        client.submit(b"a secret", key="letter", durable=True).result(PATIENCE)
    hand.stop()
    thread.join(PATIENCE)

    def told(identity: Files | None) -> Got:
        files = {} if identity is None else {"identity": identity.secret, "broker_identity": broker.public}
        serving = serve_page(running.broker.control_address, token=TOKEN, **files)
        return serving.get("/api/task?key=letter&owner=worker", authorization=f"Bearer {TOKEN}")

    assert told(operator).json["stored"]["body"] == "a secret"
    assert told(watcher).json["stored"]["body"] is None
    assert (told(stranger).status, told(None).status) == (503, 503)
    assert "does not know this identity" in told(stranger).json["error"]
    assert "wants identities" in told(None).json["error"]


def refuse(body: bytes) -> bytes:
    raise Reject("no")
