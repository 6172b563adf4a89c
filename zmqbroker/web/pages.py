"""What is answered under each path: the page's own files, and what brokers tell, as JSON; nothing is changed here."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from zmqbroker.transport.limited_log import printable
from zmqbroker.web.asker import Answer, MisfitError, UnansweredError
from zmqbroker.web.brokers import Brokers, UnknownError
from zmqbroker.web.doors import may_see_bodies
from zmqbroker.web.looking import LOOKED_THROUGH, look_through
from zmqbroker.web.metrics import Metrics, registry
from zmqbroker.web.parameters import ALLOWED, BROKER, WALKED, ParameterError, read
from zmqbroker.web.reading import is_answering, read_all
from zmqbroker.web.searching import search
from zmqbroker.web.watched import Watched
from zmqbroker.wire.control import ControlError

STATIC = Path(__file__).parent / "static"
MOST_SERIES = 50  # queues whose last ten minutes are told at once
ASKS_FOR_ONE = ("task", "failed")  # questions whose refusal says that there is none
NO_STORE = {"cache-control": "no-store"}


class Json(Response):
    """An answer in JSON, in which any text of a broker's can be said, half a pair of surrogates too."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200) -> None:
        super().__init__(content, status_code, dict(NO_STORE))

    def render(self, content: Any) -> bytes:
        """Return it as JSON."""
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def refusal(status: int, text: str, **more: Any) -> Json:
    """Return an answer that says in a line what is wrong."""
    return Json({"error": printable(text), **more}, status)


def routes() -> list[BaseRoute]:
    """Return all that is answered."""
    return [
        Route("/", page),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/api/brokers", brokers),
        Route("/api/history", answered(history)),
        *(Route(f"/api/{ask}", answered(question)) for ask in ALLOWED),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


async def page(request: Request) -> Response:
    """Return the page."""
    return FileResponse(STATIC / "index.html", headers=NO_STORE)


async def healthz(request: Request) -> Response:
    """Tell that this process lives."""
    return PlainTextResponse("ok\n", headers=NO_STORE)


async def readyz(request: Request) -> Response:
    """Tell whether a broker answers."""
    if await is_answering(_brokers(request)):
        return PlainTextResponse("ok\n", headers=NO_STORE)
    return PlainTextResponse("no broker answers\n", 503, NO_STORE)


async def metrics(request: Request) -> Response:
    """Return the metrics, in the form that is asked for."""
    watched = _brokers(request)
    made = registry(Metrics(await read_all(watched), watched.are_told_apart))
    encode, content_type = _encoder(request.headers.get("accept", ""))
    text = await run_in_threadpool(encode, made)  # which takes a while, where there are a thousand queues
    return Response(text, headers={"content-type": content_type, **NO_STORE})


def _encoder(accepted: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return what writes metrics in the form that is asked for, and what that is called."""
    try:
        return choose_encoder(accepted)
    except (TypeError, ValueError):  # for a version that is no number
        return choose_encoder("")


async def brokers(request: Request) -> Response:
    """Return which brokers there are, and how each is."""
    watched = await _brokers(request).all()
    await asyncio.gather(*(one.ask("status") for one in watched), return_exceptions=True)  # what it says is noted
    return Json({"brokers": [_about(one) for one in watched], "bodies": may_see_bodies(request)})


def _about(watched: Watched) -> Answer:
    status, trouble = watched.status or {}, watched.asker.trouble
    told = ("version", "state", "uptime", "waiting", "delayed", "running", "workers", "unserved")
    about = {"name": watched.name, "control": watched.address, "since": _since(watched), "error": trouble or None}
    return about | {name: None if trouble else status.get(name) for name in told}


def _since(watched: Watched) -> float:
    """Return for how many seconds it has answered, or not."""
    return round(monotonic() - watched.asker.since, 1)


Handler = Callable[[Request, Watched], Awaitable[Answer]]


def answered(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Have a broker found and asked by `handler`, or say why not."""

    async def answer(request: Request) -> Response:
        name = request.query_params.get(BROKER)
        try:
            watched = await _brokers(request).find(name)
        except UnknownError as error:
            return refusal(404, str(error))
        try:
            return _told(request, await handler(request, watched))
        except ParameterError as error:
            return refusal(400, str(error))
        except UnansweredError as error:
            return refusal(503, str(error), since=_since(watched))
        except ControlError as error:
            is_missing = _ask(request) in ASKS_FOR_ONE or "queue" in request.query_params
            return refusal(404 if is_missing else 400, str(error))

    return answer


def _told(request: Request, answer: Answer) -> Json:
    """Return an answer; raises UnansweredError for one that JSON has no words for, as it has a number that is none."""
    try:
        return Json(answer)
    except ValueError:
        raise MisfitError(_ask(request)) from None


async def question(request: Request, watched: Watched) -> Answer:
    """Return the broker's answer to a question; or a page of a search in all that it has."""
    ask, given = _ask(request), request.query_params.multi_items()
    if ask in WALKED and {"find", "sort"} & request.query_params.keys():
        fields = read(given, WALKED[ask])
        walk = watched.queues if ask == "queues" else watched.workers
        things = await walk.things()
        return search(ask, things, fields) | {"age": walk.age(monotonic())}
    fields = read(given, ALLOWED[ask])
    if ask in LOOKED_THROUGH:
        return await look_through(watched.ask, ask, fields)
    answer = await watched.ask(ask, **fields)
    if "stored" in answer and not may_see_bodies(request):
        return answer | {"stored": answer["stored"] | {"body": None}}
    return answer


async def history(request: Request, watched: Watched) -> Answer:
    """Return the last ten minutes of the broker, and of some queues."""
    params = request.query_params
    read([(name, text) for name, text in params.multi_items() if name != "queue"], ())
    names = params.getlist("queue")
    if len(names) > MOST_SERIES:
        raise ParameterError(f"queue may be given {MOST_SERIES} times at most")
    told = watched.history
    return {
        "ages": told.ages(monotonic()),
        "total": told.total(),
        "queues": {name: told.queue(name) for name in names},
    }


async def failed(request: Request, error: Exception) -> Response:
    """Say in a line what is wrong with a request that fits nothing here."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else "this is a fault of the page itself: see its log"
    return refusal(status, said.lower())


def _ask(request: Request) -> str:
    return str(request.scope["path"]).rpartition("/")[2]


def _brokers(request: Request) -> Brokers:
    watched: Brokers = request.app.state.brokers
    return watched
