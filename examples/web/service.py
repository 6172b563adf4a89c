"""A web service: each request is a task with a time limit, which is cancelled when whoever asked has left.

`uvicorn examples.web.service:app` runs it; ZMQBROKER_REQUESTS is the broker's address for requests.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from zmqbroker import AsyncClient, TaskFailed

REQUESTS = os.environ.get("ZMQBROKER_REQUESTS", "tcp://localhost:4161")
PATIENCE = 2.0  # seconds for a task, waiting and running

LEFT = 499  # what is answered when nobody is there to read it


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have one client for all requests."""
    async with AsyncClient(REQUESTS) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/factors/{number}")
async def factors(number: int, request: Request) -> dict[str, Any]:
    """Answer with the prime factors of a number, if that takes no longer than one waits."""
    call = app.state.client.call(json={"number": number}, wait=PATIENCE, queue="factors")
    try:
        return {"number": number, "factors": await unless_left(request, call)}
    except TimeoutError:
        raise HTTPException(504, f"no result within {PATIENCE:g} s") from None
    except TaskFailed as failure:
        raise HTTPException(422, failure.reason) from None


async def unless_left(request: Request, call: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a call; if the browser hangs up before, cancel it: then so is the task, and its worker is free."""
    calling, leaving = asyncio.create_task(call), asyncio.create_task(has_left(request))
    try:
        await asyncio.wait({calling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not calling.done():
            raise HTTPException(LEFT, "nobody waits for it any more")
        return calling.result()
    finally:
        calling.cancel()
        leaving.cancel()


async def has_left(request: Request) -> None:
    """Wait until whoever asked has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
