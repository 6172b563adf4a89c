"""`map` for coroutines on real sockets: bodies of an iterable or an asynchronous one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from async_support import run_with, until, until_idle
from conftest import Running
from library_support import Gate, echo, working

from zmqbroker import AsyncClient, TaskFailed


@pytest.fixture
def echoing(running: Running) -> Iterator[None]:
    with working(running.addresses.ready, echo):
        yield


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def unsettled(running: Running) -> int:
    return running.count("waiting") + running.count("running")


async def asynchronous(bodies: Iterable[Any]) -> AsyncIterator[Any]:
    for body in bodies:
        yield body


KINDS: list[Callable[[list[Any]], Any]] = [list, iter, asynchronous]


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"window": 1}, {"window": 3, "chunk": 4}, {"ordered": False}], ids=str)
def test_map_yields_the_result_of_each_body(running: Running, kind: Callable[[Any], Any], options: dict[str, Any]):
    async def use(client: AsyncClient) -> None:
        for count in (0, 1, 100):
            results = [result async for result in client.map(kind(numbers(count)), **options)]
            assert (results if options.get("ordered", True) else sorted(results, key=int)) == numbers(count)

    run_with(running.addresses.requests, use)


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("kind", KINDS)
def test_values_travel_as_json(running: Running, kind: Callable[[Any], Any]):
    values = [None, 1, "two", [3], {"four": 5}]

    async def use(client: AsyncClient) -> None:
        assert [value async for value in client.map(kind(values), as_json=True)] == values

    run_with(running.addresses.requests, use)


def odd_ones_fail(body: bytes) -> bytes:
    if int(body) % 2:
        raise ValueError("odd")
    return body


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_raised_and_cancels_the_others_or_is_returned_in_its_place(
    running: Running, kind: Callable[[Any], Any]
):
    async def use(client: AsyncClient) -> None:
        found = [result async for result in client.map(kind(numbers(9)), return_failures=True, tries=1)]
        assert [str(one) if isinstance(one, TaskFailed) else int(one) for one in found] == [
            "ValueError: odd" if number % 2 else number for number in range(9)
        ]
        results = client.map(kind(numbers(10)), window=5, tries=1)
        assert await anext(results) == b"0"
        with pytest.raises(TaskFailed, match="ValueError: odd"):
            await anext(results)
        assert [result async for result in results] == []

    with working(running.addresses.ready, odd_ones_fail):
        run_with(running.addresses.requests, use)
        running.wait_until(lambda: not unsettled(running))


@pytest.mark.usefixtures("echoing")
def test_results_do_not_wait_for_bodies_that_come_slowly(running: Running):
    async def use(client: AsyncClient) -> None:
        came = asyncio.Event()

        async def bodies() -> AsyncIterator[bytes]:
            for body in numbers(5):
                came.clear()
                yield body
                await came.wait()

        results = []
        async for result in client.map(bodies()):
            results.append(result)
            came.set()
        assert results == numbers(5)

    run_with(running.addresses.requests, use)


@pytest.mark.usefixtures("echoing")
def test_an_iterable_that_blocks_does_not_block_the_loop(running: Running):
    async def use(client: AsyncClient) -> None:
        came = threading.Semaphore(0)

        def bodies() -> Iterator[bytes]:
            for body in numbers(5):
                yield body
                assert came.acquire(timeout=20)

        async for _ in client.map(bodies()):
            came.release()

    run_with(running.addresses.requests, use)


class Watched:
    """An asynchronous iterable that records how far ahead of what was yielded it has been read."""

    def __init__(self, count: int) -> None:
        self.count, self.taken, self.yielded, self.furthest = count, 0, 0, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for body in numbers(self.count):
            self.taken += 1
            self.furthest = max(self.furthest, self.taken - self.yielded)
            yield body


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 2, 10])
def test_map_is_never_further_ahead_than_its_window(running: Running, window: int, ordered: bool):
    async def use(client: AsyncClient) -> None:
        watched = Watched(100)
        async for _ in client.map(watched, window=window, ordered=ordered):
            watched.yielded += 1
        assert watched.furthest <= window
        assert watched.yielded == 100

    run_with(running.addresses.requests, use)


async def by_breaking(results: Any) -> None:
    async for _ in results:
        break


async def by_closing(results: Any) -> None:
    async with aclosing(results):
        async for _ in results:
            break


async def by_being_cancelled(results: Any) -> None:
    async def go_through() -> None:
        async for _ in results:
            task.cancel()

    task = asyncio.create_task(go_through())
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leave", [by_breaking, by_closing, by_being_cancelled])
def test_leaving_a_map_early_cancels_what_is_outstanding(running: Running, kind: Callable[[Any], Any], leave: Any):
    gate = Gate(b"1")

    async def use(client: AsyncClient) -> None:
        await leave(client.map(kind(numbers(100)), window=10))
        await until_idle(client)  # though the worker is not done
        assert not unsettled(running)
        gate.open(b"1")

    with working(running.addresses.ready, gate):
        run_with(running.addresses.requests, use)
    assert running.count("done") + running.count("cancelled") == running.count("accepted") <= 11


@pytest.mark.usefixtures("echoing")
def test_bodies_are_not_waited_for_when_the_map_is_left(running: Running):
    ended = []

    async def bodies() -> AsyncIterator[bytes]:
        try:
            yield b"task"
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def use(client: AsyncClient) -> None:
        async with aclosing(client.map(bodies())) as results:
            assert await anext(results) == b"task"
        assert ended == [True]

    run_with(running.addresses.requests, use)


@pytest.mark.parametrize("error", [OSError("disk gone"), TypeError("a body is bytes or a list of bytes, not int")])
def test_an_error_of_the_iterable_comes_through_and_cancels_what_is_outstanding(running: Running, error: Exception):
    async def broken() -> AsyncIterator[Any]:
        for body in numbers(5):
            yield body
        await until(lambda: running.count("accepted") >= 5)
        if isinstance(error, TypeError):
            yield 7
        raise error

    async def use(client: AsyncClient) -> None:
        with pytest.raises(type(error), match=str(error)):
            _ = [result async for result in client.map(broken())]
        await until(lambda: running.count("cancelled") == 5)

    run_with(running.addresses.requests, use)
