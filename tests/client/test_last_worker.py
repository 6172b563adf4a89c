"""Which worker had a task last, as the broker tells whoever asks for it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from conftest import Running
from helpers import PATIENCE
from library_support import echo, working

from zmqbroker import AsyncClient, Client, wire
from zmqbroker.client.async_futures import AsyncTaskFuture

Start = Callable[..., Running]


def refuse(body: bytes) -> bytes:
    raise ValueError(body.decode())


@pytest.mark.parametrize("handler", [echo, refuse])
def test_a_future_names_the_worker_that_had_its_task(running: Running, handler: Callable[[bytes], bytes]):
    with working(running.addresses.ready, handler, label="one"), Client(running.addresses.requests) as client:
        future = client.submit(b"task", worker=True, tries=2)
        future.exception(PATIENCE)
        assert future.worker is not None
        assert future.worker.startswith("one (")
        assert future.attempts == (1 if handler is echo else 2)


def test_a_future_of_asyncio_names_the_worker_too(running: Running):
    async def ask() -> AsyncTaskFuture:
        async with AsyncClient(running.addresses.requests) as client:
            future = client.submit(b"task", worker=True)
            await future
            return future

    with working(running.addresses.ready, echo, label="one"):
        future = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert (future.status, future.attempts) == ("done", 1)
    assert str(future.worker).startswith("one (")


def test_who_does_not_ask_is_not_told(running: Running):
    with working(running.addresses.ready, echo, label="one"), Client(running.addresses.requests) as client:
        future = client.submit(b"task")
        assert (future.result(PATIENCE), future.worker, future.attempts) == (b"task", None, 1)


def named(client: "zmq.Socket[bytes]", key: str) -> str | None:
    """Ask for a task by its key, once more maybe, and return which worker had it."""
    client.send_multipart(wire.request_message([b"task"], key, wire.more_fields({"worker": True})))
    return wire.parse_reply(client.recv_multipart()).worker


def test_a_reply_that_was_kept_names_the_worker_to_who_comes_back(running: Running):
    with working(running.addresses.ready, echo, label="one"):
        names = [named(running.client(zmq.DEALER), "k") for _ in range(2)]
    assert running.count("joined") == 1
    assert names[0] == names[1]
    assert str(names[0]).startswith("one (")


def test_an_outcome_that_was_stored_names_the_worker(start: Start, tmp_path: Path):
    running = start(store=tmp_path / "tasks")
    with working(running.addresses.ready, echo, label="one"), Client(running.addresses.requests) as client:
        key = client.send(b"task")
        client.fetch(key, PATIENCE)
    asked = running.client(zmq.DEALER)
    asked.send_multipart(wire.request_message([b""], key, wire.more_fields({"fetch": 0, "worker": True})))
    assert str(wire.parse_reply(asked.recv_multipart()).worker).startswith("one (")
