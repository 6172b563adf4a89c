"""Listening: at one address, until it is told to end, with an application that is made of the other files here."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from zmqbroker.transport import signals
from zmqbroker.web.brokers import Brokers
from zmqbroker.web.connection import LONGEST_WAIT, MOST_CONNECTIONS, Connection
from zmqbroker.web.doors import Doors
from zmqbroker.web.pages import failed, routes
from zmqbroker.web.watched import Connect

LONGEST_END = 1  # seconds for answers that are on their way
LEAST_ZIPPED = 2000  # bytes
ERRORS = "uvicorn.error"  # the name of a logger


def application(addresses: Sequence[str], connect: Connect, token: str | None, checks_host: bool) -> Doors:
    """Return what answers: of the brokers at these control addresses; none: of all that are found."""

    @asynccontextmanager
    async def watch(app: Starlette) -> AsyncIterator[None]:
        app.state.brokers = Brokers(addresses, connect)
        try:
            yield
        finally:
            await app.state.brokers.close()

    inside = Starlette(
        routes=routes(),
        lifespan=watch,
        middleware=[Middleware(GZipMiddleware, minimum_size=LEAST_ZIPPED, compresslevel=4)],
        exception_handlers={HTTPException: failed, Exception: failed},
    )
    return Doors(inside, token, checks_host)


class Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it, and ends without a word."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; what is cut off by that is no fault."""
        logging.getLogger(ERRORS).setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def serve(app: ASGIApp, opened: socket.socket, ready: Callable[[Callable[[], None]], None]) -> None:
    """Answer at a socket until it ends; `ready` is given what has it end, before it begins."""
    logging.getLogger(ERRORS).setLevel(logging.ERROR)
    server = Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=int(LONGEST_WAIT),
            timeout_graceful_shutdown=LONGEST_END,
        )
    )

    def end() -> None:
        server.force_exit = server.should_exit  # at the second time
        server.should_exit = True

    ready(end)
    asyncio.run(server.serve([opened]))


def end_at_signals(end: Callable[[], None]) -> None:
    """Have SIGTERM, Ctrl-C and SIGHUP call `end`."""
    signals.on_signals(lambda _: end())
