"""Who is let in, and what browsers are told to do with what they get.

On loopback without a token, whoever is on this machine may look; a page of somebody else's, to which a name of its own
leads here (DNS rebinding), may not: it has a name in `Host`, and only `localhost` and numbers are answered. With a
token, who does not bring it, in a header or in the cookie that the login page gives for it, gets nothing but that page
and whether this process and a broker are well. The login page is in the place of the page itself, and sends its form
there: so an address stays what it is, also after its `#`, of which only a browser knows.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import re
from functools import partial
from pathlib import Path
from time import monotonic
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zmqbroker.transport.addresses import is_numeric, is_port
from zmqbroker.transport.limited_log import LimitedLog

OPEN = ("/healthz", "/readyz", "/static/style.css", "/static/icon.svg")
PAGE = "/"
LOGIN = (Path(__file__).parent / "static" / "login.html").read_text(encoding="utf-8")
AFTER_WRONG = LOGIN.replace('class="alarm bad" hidden', 'class="alarm bad"')  # it says that the token was not right
WRONG = "wrong"  # a parameter that asks for it
COOKIE = "zmqbroker_web"  # and the port
COOKIE_KEPT = 30 * 86_400  # seconds
LARGEST_LOGIN = 4096  # bytes
WRONG_TAKES = 0.5  # seconds until a wrong token is answered
MOST_WRONG = 20  # that are waiting for that; others are turned away at once
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-cache",  # a file of the page is asked for again: it belongs to the version that runs
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
BEARER = {"www-authenticate": "Bearer"}
IGNORED = (b"range",)  # headers: the files are small, and some starlettes fail at many ranges
HAS_TOKEN = "zmqbroker.has_token"  # in a scope

log = logging.getLogger("zmqbroker")


class Doors:
    """Lets those in who may come, and adds HEADERS to all answers."""

    def __init__(self, app: ASGIApp, token: str | None, checks_host: bool) -> None:
        """Stand before `app`; `token` None: anybody may come in. `checks_host`: by `localhost` or a number only."""
        self._app = app
        self._token = token
        self._checks_host = checks_host
        self._waiting = 0  # wrong tokens
        self._log = LimitedLog(log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [(name, text) for name, text in scope["headers"] if name not in IGNORED]
        request = Request(scope, receive)
        try:
            answer = await self._stopped(request)
            await (answer or self._app)(scope, receive, partial(_send, send))
        except ClientDisconnect:
            pass  # there is nobody to be answered
        except asyncio.CancelledError:
            await said(503, "the page ends")(scope, receive, partial(_send, send))
        except Exception as error:  # which has been answered
            self._log.tell("fault", f"a fault in the answer to {scope['path']}", monotonic(), error)

    async def _stopped(self, request: Request) -> Response | None:
        """Return what is said to who is not let through; None: nothing."""
        path = request.scope["path"]
        if self._checks_host and not is_own_host(request.headers.get("host", "")):
            return said(421, "this page is for this machine: open it by localhost or 127.0.0.1, or give it a --token")
        if "\0" in path:
            return said(404, "not found")  # no file can be looked for by such a name
        if self._token is None:
            return None
        if path == PAGE and request.method == "POST":
            return await self._login(request)
        token, cookie = _bearer(request), request.cookies.get(_cookie_name(request)) or None
        is_in = self._is_token(token) if token is not None else self._is_cookie(cookie)
        request.scope[HAS_TOKEN] = is_in
        if is_in or path in OPEN:
            return None
        if token is not None:
            return await self._refuse(request, "token")
        if path == PAGE:
            return self._login_page(request, cookie)
        if cookie is not None:
            return await self._refuse(request, "cookie")
        return said(401, "this needs the token: `Authorization: Bearer ...`, or log in", BEARER)

    def _login_page(self, request: Request, cookie: str | None) -> Response:
        """Return the login page, at once: a cookie of a token of yesterday's is nobody's fault."""
        if cookie is not None:
            self._note(request, "cookie")
        page = AFTER_WRONG if WRONG in request.query_params else LOGIN
        return HTMLResponse(page, 401, headers={"cache-control": "no-store", **BEARER})

    async def _login(self, request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_LOGIN:
                return said(413, "that is too long for a token")
        given = parse_qs(body.decode("ascii", "replace"), encoding="utf-8").get("token", [""])[0]
        if not self._is_token(given.strip()):
            refused = await self._refuse(request, "token")
            return refused if refused.status_code != 401 else RedirectResponse(f"{PAGE}?{WRONG}", 303)
        answer = RedirectResponse(PAGE, 303)
        # lax: a link in an alert, which is on another site, is to open the page; nothing is changed by that
        answer.set_cookie(_cookie_name(request), self._cookie(), COOKIE_KEPT, httponly=True, samesite="lax")
        return answer

    async def _refuse(self, request: Request, what: str) -> Response:
        """Take note of a wrong token, or cookie, and answer it slowly."""
        self._note(request, what)
        if self._waiting >= MOST_WRONG:
            return said(429, "too many wrong tokens come", {"retry-after": "1"})
        self._waiting += 1
        try:
            await asyncio.sleep(WRONG_TAKES)
        finally:
            self._waiting -= 1
        return said(401, f"this is not the {what}", BEARER)

    def _note(self, request: Request, what: str) -> None:
        where = request.client.host if request.client is not None else "somebody"
        self._log.tell(what, f"a wrong {what} came from {where}", monotonic())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), (self._token or "").encode())

    def _is_cookie(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._cookie().encode())

    def _cookie(self) -> str:
        """Return what is in the cookie of who has given the token: it does not tell the token, and changes with it."""
        return hmac.new((self._token or "").encode(), b"zmqbroker web cookie", hashlib.sha256).hexdigest()


def may_see_bodies(request: Request) -> bool:
    """Tell whether who asks has brought the token: others on this machine may not see what its user may."""
    return bool(request.scope.get(HAS_TOKEN, False))


def is_own_host(host: str) -> bool:
    """Tell whether a Host header has `localhost` or a number: no name that may lead anywhere."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?", host)
    name = found[1].strip("[]") if found else ""
    return name.lower() == "localhost" or is_numeric(name)


def said(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says in a line what is wrong."""
    body = json.dumps({"error": text}).encode()
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def _cookie_name(request: Request) -> str:
    """Return what the cookie is called, with the port that the browser sees: cookies are one host's, whatever the port.

    So several pages on a host do not put each other out.
    """
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"{COOKIE}_{port}" if is_port(port) else COOKIE


def _bearer(request: Request) -> str | None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else None


async def _send(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        headers: list[tuple[bytes, bytes]] = message.setdefault("headers", [])
        there = {name.lower() for name, _ in headers}
        headers += [(name, text) for name, text in _headers() if name not in there]
    await send(message)


def _headers() -> list[tuple[bytes, bytes]]:
    return [(name.encode(), text.encode()) for name, text in HEADERS.items()]
