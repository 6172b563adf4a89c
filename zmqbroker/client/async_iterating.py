"""`AsyncClient.map`: any number of bodies, of an iterable or an asynchronous one, through a bounded window.

What is asynchronous is iterated by a task of its own, and what is no sequence by a thread, so that bodies that come
slowly hold up neither results nor the loop.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from functools import partial
from typing import Any

from zmqbroker.client.bridge import Bridge
from zmqbroker.client.iterating import AtHand, Coming, source_of
from zmqbroker.client.mapping import Mapping, Sender, tasks_for

Bodies = Iterable[Any] | AsyncIterable[Any]


async def outcomes(
    bridge: Bridge, sender: Sender, bodies: Bodies, as_json: bool, chunk: int, window: int, ordered: bool
) -> AsyncGenerator[Any, None]:
    """Send tasks, never more than `window` ahead, and yield what came of each body.

    Those left when the generator is closed are cancelled.
    """
    arrivals: asyncio.Queue[Any] = asyncio.Queue()  # lists of replies, and what is said of tasks: COME or an End
    put = bridge.carry(arrivals.put_nowait)
    source: AtHand | Coming
    finder = None
    if isinstance(bodies, AsyncIterable):
        room = asyncio.Semaphore(window)
        source = Coming(window, arrivals.put_nowait, partial(_release, room))
        finder = bridge.loop.create_task(_find(source, bodies, as_json, chunk, room))
    else:
        source = source_of(bodies, tasks_for(bodies, as_json, chunk), window, put)
    mapping = Mapping(sender, source, window, ordered, put)
    try:
        while True:
            if arrivals.empty() and mapping.send():
                continue
            if mapping.is_over:
                return
            sender.check()
            arrived = await arrivals.get()
            if not isinstance(arrived, list):
                source.hear(arrived)
                continue
            for reply in arrived:
                for found in mapping.take_in(reply):
                    for outcome in found:
                        yield outcome
                    mapping.finish()
    finally:
        source.close()
        mapping.cancel()
        if finder is not None:
            finder.cancel()
            await asyncio.wait((finder,))


async def raise_failures(found: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Yield results, and raise the first failure."""
    try:
        async for outcome in found:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome
    finally:
        await found.aclose()


def _release(room: asyncio.Semaphore, more: int) -> None:
    for _ in range(more):
        room.release()


async def _find(coming: Coming, bodies: AsyncIterable[Any], as_json: bool, chunk: int, room: asyncio.Semaphore) -> None:
    try:
        found: list[Any] = []  # of a chunk
        await room.acquire()  # before its first body is asked for
        async for body in bodies:
            found.append(body)
            if len(found) == chunk:
                coming.add(*tasks_for(found, as_json, chunk))
                found = []
                await room.acquire()
        for task in tasks_for(found, as_json, chunk):
            coming.add(task)
    except BaseException as error:
        coming.end(error)
        if not isinstance(error, Exception):
            raise
    else:
        coming.end(None)
