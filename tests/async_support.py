"""For the tests of the client for coroutines: an event loop, in debug mode, that never runs for ever."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from helpers import PATIENCE

from zmqbroker import AsyncClient


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop of its own; one that takes too long fails the test."""
    return asyncio.run(asyncio.wait_for(main, PATIENCE), debug=True)


def run_with(address: str, use: Callable[[AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function that is given a client of the broker there."""

    async def main() -> Any:
        async with AsyncClient(address) as client:
            return await use(client)

    return run(main())


async def until_idle(client: AsyncClient) -> None:
    """Wait until the broker has answered all that was sent, and all that was cancelled."""
    await until(lambda: not client._link._shared.session)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells, while the loop goes on; `run` bounds it."""
    while not condition():
        await asyncio.sleep(0.005)
