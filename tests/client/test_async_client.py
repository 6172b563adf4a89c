"""The client for coroutines on real sockets."""

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import InvalidStateError
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from async_support import run, run_with, until, until_idle
from conftest import Peers, Running
from helpers import PATIENCE
from library_support import Gate, echo, working
from told_broker import ToldBroker

from zmqbroker import AsyncClient, Client, TaskFailed
from zmqbroker.client.bridge import MOST_AT_ONCE, Bridge
from zmqbroker.wire import DONE, PROGRESS

Start = Callable[..., Running]
Use = Callable[[AsyncClient], Coroutine[Any, Any, Any]]


@pytest.fixture
def echoing(running: Running) -> Iterator[None]:
    with working(running.addresses.ready, echo):
        yield


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("body", [b"task", b"", b"x" * 1_000_000, [b"task"], [b"a", b"", b"b"]], ids=lambda _: "")
def test_a_result_has_the_form_of_its_body(running: Running, body: Any):
    async def use(client: AsyncClient) -> list[Any]:
        return [await client.call(body), await client.submit(body), await client.call(body, wait=PATIENCE)]

    assert run_with(running.addresses.requests, use) == [body] * 3


@pytest.mark.usefixtures("echoing")
def test_a_value_comes_back_as_it_went(running: Running):
    async def use(client: AsyncClient) -> list[Any]:
        return [await client.call(json={"a": None}), await client.submit(json=None)]

    assert run_with(running.addresses.requests, use) == [{"a": None}, None]


@pytest.mark.usefixtures("echoing")
def test_a_task_is_sent_when_it_is_submitted_and_its_future_knows_it(running: Running):
    async def use(client: AsyncClient) -> None:
        future = client.submit(b"task", key="mine")
        await until(lambda: running.count("done") == 1)
        assert isinstance(future, asyncio.Future)
        assert await future == b"task"
        assert (future.key, future.number) == ("mine", 1)
        assert not future.cancel()

    run_with(running.addresses.requests, use)
    assert running.count("cancelled") == 0


@pytest.mark.usefixtures("echoing")
def test_many_wait_at_once_and_each_gets_its_own_result(running: Running):
    bodies = [b"%d" % number for number in range(200)]

    async def use(client: AsyncClient) -> None:
        assert await asyncio.gather(*map(client.call, bodies)) == bodies
        assert await asyncio.gather(*map(client.submit, bodies)) == bodies
        assert [await future for future in asyncio.as_completed([client.submit(b"one")])] == [b"one"]

    run_with(running.addresses.requests, use)


def test_a_failure_says_why_and_how_often_it_was_tried(running: Running):
    def fail(body: bytes) -> bytes:
        raise ValueError("odd")

    async def use(client: AsyncClient) -> None:
        for task in (client.call(b"task", tries=2), client.submit(b"task", tries=2)):
            with pytest.raises(TaskFailed, match=r"^ValueError: odd$") as caught:
                await task
            assert (caught.value.status, caught.value.attempts) == ("failed", 2)

    with working(running.addresses.ready, fail):
        run_with(running.addresses.requests, use)


def test_what_is_no_body_and_no_option_is_refused_as_by_a_client(running: Running):
    refused: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"body": "text"}, TypeError),
        ({}, TypeError),
        ({"body": b"", "json": 1}, TypeError),
        ({"body": b"", "speed": 1}, TypeError),
        ({"body": b"", "tries": 1.5}, ValueError),
        ({"body": b"", "on_progress": "no function"}, ValueError),
    ]

    async def use(client: AsyncClient) -> None:
        for arguments, error in refused:
            with pytest.raises(error):
                client.submit(**arguments)
        with pytest.raises(ValueError, match="wait must be a number of seconds"):
            await client.call(b"", "soon")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="window must be a whole number"):
            client.map([], window=0)

    run_with(running.addresses.requests, use)
    assert running.count("accepted") == 0


# To wait for a task no longer


async def call_in_time(client: AsyncClient) -> None:
    with pytest.raises(TimeoutError, match=r"^no reply within 0.3 s; the task was cancelled$"):
        await client.call(b"task", wait=0.3)


async def call_wait_for(client: AsyncClient) -> None:
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await asyncio.wait_for(client.call(b"task"), 0.3)


async def future_wait_for(client: AsyncClient) -> None:
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await asyncio.wait_for(client.submit(b"task"), 0.3)


async def in_a_timeout(client: AsyncClient) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout came with Python 3.11")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.call(b"task")


async def future_cancel(client: AsyncClient) -> None:
    future = client.submit(b"task", delay=3600)
    assert future.cancel()
    assert not future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future


async def in_a_gather(client: AsyncClient) -> None:
    together = asyncio.gather(client.call(b"task"), client.submit(b"task"))
    await asyncio.sleep(0)
    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together


LEAVES = [call_in_time, call_wait_for, future_wait_for, in_a_timeout, future_cancel, in_a_gather]


@pytest.mark.parametrize("leave", LEAVES)
def test_who_is_cancelled_or_waits_no_longer_cancels_the_task_at_the_broker(running: Running, leave: Use):
    async def use(client: AsyncClient) -> None:
        await leave(client)
        await until_idle(client)

    run_with(running.addresses.requests, use)
    assert running.count("cancelled") == running.count("accepted")


def test_what_comes_after_a_cancel_is_dropped(running: Running):
    gate = Gate(b"task")

    async def use(client: AsyncClient) -> None:
        future = client.submit(b"task")
        await until(lambda: gate.counts[b"task"] == 1)
        future.cancel()
        await until(lambda: running.count("cancelled") == 1)
        gate.open(b"task")
        assert await client.call(b"another") == b"ANOTHER"

    with working(running.addresses.ready, gate):
        run_with(running.addresses.requests, use)


# Progress


@pytest.fixture
def told() -> Iterator[ToldBroker]:
    with Peers() as peers:
        broker = ToldBroker(peers)
        yield broker
        broker.close()


def test_progress_is_told_in_the_loop_where_it_was_asked_for(told: ToldBroker):
    variable: ContextVar[str] = ContextVar("variable")
    heard: list[Any] = []

    async def use(client: AsyncClient) -> None:
        variable.set("mine")
        future = client.submit(
            b"task",
            on_progress=lambda progress: heard.append((progress, threading.current_thread(), variable.get())),
        )
        await asyncio.to_thread(told.receive)
        for done in (1, 2):
            told.reply(PROGRESS, b'{"done": %d}' % done)
            await until(lambda number=done: future.progress == {"done": number})  # type: ignore[misc]
        told.reply(DONE, b"result")
        assert await future == b"result"

    run_with(told.address, use)
    assert heard == [({"done": done}, threading.current_thread(), "mine") for done in (1, 2)]


def test_a_hook_that_raises_ends_nothing_and_is_not_called_again(told: ToldBroker, caplog: pytest.LogCaptureFixture):
    def fail(_: dict[str, Any]) -> None:
        raise OSError("hook")

    async def use(client: AsyncClient) -> None:
        future = client.submit(b"task", on_progress=fail)
        await asyncio.to_thread(told.receive)
        for done in (1, 2):
            told.reply(PROGRESS, b'{"done": %d}' % done)
            await until(lambda number=done: future.progress == {"done": number})  # type: ignore[misc]
        told.reply(DONE, b"result")
        assert await future == b"result"

    with caplog.at_level(logging.WARNING, "zmqbroker.client"):
        run_with(told.address, use)
    lines = [line for name, _, line in caplog.record_tuples if name == "zmqbroker.client"]
    assert [re.sub(r"\w{32}", "KEY", line) for line in lines] == ["task 17 (KEY-0): a callback failed"]


# Tasks that are left, and questions about tasks


def test_a_task_is_left_and_fetched_and_forgotten(start: Start, tmp_path: Path):
    storing = start(store=tmp_path / "tasks")

    async def use(client: AsyncClient) -> None:
        assert await client.send(json=[1], key="mine") == "mine"
        assert await client.submit(b"", key="other", detach=True) == "other"
        with pytest.raises(TimeoutError, match="waiting"):
            await client.fetch("mine")
        with pytest.raises(InvalidStateError, match=r"not settled yet, so not forgotten: mine is waiting$"):
            await client.forget("mine", "nothing")
        with working(storing.addresses.ready, echo):
            assert await client.fetch("mine", None, as_json=True) == [1]
            assert await client.outcome("other", PATIENCE) == b""
        await client.forget("mine", "other")
        for ask in (client.fetch("mine"), client.outcome("mine"), client.cancel("mine")):
            with pytest.raises(KeyError, match="mine"):
                await ask

    run_with(storing.addresses.requests, use)


def test_a_task_of_anybody_is_cancelled_by_its_key(running: Running):
    async def use(client: AsyncClient) -> None:
        future = client.submit(b"task", key="mine")
        await client.cancel("mine")
        with pytest.raises(TaskFailed) as caught:
            await future
        assert caught.value.status == "cancelled"

    run_with(running.addresses.requests, use)


def test_who_asks_for_an_outcome_no_longer_leaves_the_task_alone(running: Running):
    async def use(client: AsyncClient) -> None:
        task = client.submit(b"task", key="mine")
        for ask in (client.fetch("mine", None), client.outcome("mine", None)):
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await asyncio.wait_for(ask, 0.1)
        with working(running.addresses.ready, echo):
            assert await task == b"task"

    run_with(running.addresses.requests, use)
    assert running.count("cancelled") == 0


# The future of a Client


def test_the_future_of_a_client_says_how_it_can_be_awaited(running: Running):
    async def main() -> None:
        with Client(running.addresses.requests) as client:
            with pytest.raises(TypeError, match=r"await asyncio.wrap_future\(future\), or use an AsyncClient"):
                await client.submit(b"task")
            with pytest.raises(TypeError, match="AsyncClient"):
                await asyncio.gather(client.submit(b"task"))

    run(main())


# The bridge


class Loop:
    """Counts how often it is woken, and runs what it was woken for when told."""

    def __init__(self) -> None:
        self.called: list[Callable[[], object]] = []
        self.is_closed = False

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        if self.is_closed:
            raise RuntimeError("Event loop is closed")
        self.called.append(function)

    def turn(self) -> int:
        called, self.called = self.called, []
        for function in called:
            function()
        return len(called)


def test_a_loop_is_woken_once_for_all_that_comes_together():
    loop, heard = Loop(), []
    put = Bridge(loop).carry(heard.append)  # type: ignore[arg-type]
    for number in range(100):
        put(number)
    assert (loop.turn(), heard, loop.turn()) == (1, list(range(100)), 0)


def test_a_flood_leaves_the_loop_to_others_now_and_then():
    loop, heard = Loop(), []
    put = Bridge(loop).carry(heard.append)  # type: ignore[arg-type]
    for number in range(MOST_AT_ONCE + 1):
        put(number)
    assert [(loop.turn(), len(heard)) for _ in range(3)] == [
        (1, MOST_AT_ONCE),
        (1, MOST_AT_ONCE + 1),
        (0, MOST_AT_ONCE + 1),
    ]


def test_what_raises_in_the_loop_does_not_keep_the_next_from_being_heard():
    loop, heard = Loop(), []
    bridge = Bridge(loop)  # type: ignore[arg-type]
    bridge.carry([].remove)("what is not there")
    bridge.carry(heard.append)("next")
    with pytest.raises(ValueError, match="not in list"):
        loop.turn()
    assert (loop.turn(), heard) == (1, ["next"])


def test_what_comes_for_a_closed_loop_is_dropped():
    loop, heard = Loop(), []
    bridge = Bridge(loop)  # type: ignore[arg-type]
    loop.is_closed = True
    bridge.carry(heard.append)("late")
    assert (loop.turn(), heard, len(bridge._came)) == (0, [], 0)
