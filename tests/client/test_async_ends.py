"""The client for coroutines when something ends: the client, its loop, its process, the broker, the connection."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import zmq
from async_support import run, run_with, until
from conftest import Running
from helpers import PATIENCE, TOP, bound_addresses, wait_until
from library_support import NOBODY, Gate, Proxy, echo, run_script, start_broker, working

from zmqbroker import AsyncClient, TaskFailed
from zmqbroker.client import conversation


@pytest.fixture
def echoing(running: Running) -> Iterator[None]:
    with working(running.addresses.ready, echo):
        yield


# Closing


def test_closing_fails_what_is_outstanding_and_says_so_to_who_comes_later(running: Running):
    async def main() -> None:
        async with AsyncClient(running.addresses.requests) as client:
            waiting = [client.submit(b"task"), asyncio.create_task(client.call(b"task"))]
            await until(lambda: running.count("accepted") == 2)
        for future in waiting:
            with pytest.raises(TaskFailed, match="the client was closed before the reply came"):
                await future
        for use in (client.call(b""), client.fetch("key"), client.forget("key"), anext(client.map([b""]))):
            with pytest.raises(RuntimeError, match="this client is closed"):
                await use
        with pytest.raises(RuntimeError, match="this client is closed"):
            client.submit(b"")
        await client.close()  # again

    run(main())
    assert running.count("cancelled") == 0


def test_the_loop_goes_on_while_the_client_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation, "LAST_CANCELS", 0.5)  # for which a client waits whose broker does not answer
    with zmq.Context() as context, context.socket(zmq.ROUTER) as broker:
        broker.linger = 0
        address = f"tcp://127.0.0.1:{broker.bind_to_random_port('tcp://127.0.0.1')}"

        async def main() -> int:
            client = AsyncClient(address)
            future = client.submit(b"task")
            await until(lambda: bool(broker.poll(0)))
            future.cancel()
            closing = asyncio.create_task(client.close())
            turns = 0
            while not closing.done():
                await asyncio.sleep(0.01)
                turns += 1
            return turns

        assert run(main()) > 5


def test_what_was_cancelled_just_before_closing_is_cancelled_at_the_broker(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(conversation, "LAST_CANCELS", PATIENCE)

    async def use(client: AsyncClient) -> None:
        future = client.submit(b"task")
        await until(lambda: running.count("accepted") == 1)
        future.cancel()

    run_with(running.addresses.requests, use)
    running.wait_for("cancelled", 1)


def test_nothing_is_logged_of_futures_that_nobody_asks_when_the_client_is_closed(caplog: pytest.LogCaptureFixture):
    async def use(client: AsyncClient) -> None:
        for _ in range(3):
            client.submit(b"task")

    run_with(NOBODY, use)
    gc.collect()
    assert [line for name, _, line in caplog.record_tuples if name == "asyncio"] == []


# Where it does not belong


@pytest.mark.usefixtures("echoing")
def test_another_loop_and_a_thread_without_one_are_told_so(running: Running):
    told: list[str] = []

    def use_from_a_thread(client: AsyncClient) -> None:
        for use in (client.submit, lambda body: asyncio.run(client.call(body))):
            try:
                use(b"task")
            except RuntimeError as error:
                told.append(str(error))

    async def use(client: AsyncClient) -> None:
        await asyncio.to_thread(use_from_a_thread, client)
        assert await client.call(b"task") == b"task"

    run_with(running.addresses.requests, use)
    assert told == [
        "an AsyncClient is for the coroutines of an event loop, and none runs here",
        "this AsyncClient is used in another event loop: make one in each",
    ]


FORK = """
import asyncio, os, sys, warnings
from zmqbroker import AsyncClient
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads

async def main(client):
    try:
        await client.call(b"of the child")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(7)

async def parent():
    async with AsyncClient(sys.argv[1]) as client:
        await client.call(b"task")
        child = os.fork()
        if child == 0:
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)
            asyncio.run(main(client))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, await client.call(b"of the parent"))

asyncio.run(parent())
"""


@pytest.mark.usefixtures("echoing")
def test_a_forked_child_is_told_to_make_a_client_of_its_own(running: Running):
    ended = run_script(FORK, running.addresses.requests)
    told = "this client was made in another process; make one after the fork"
    assert (ended.stdout.splitlines(), ended.stderr) == ([told, "7 b'of the parent'"], "")


# Clients that nobody closes, and loops that end before


def test_a_client_that_is_dropped_is_closed_and_leaves_nothing_behind(running: Running):
    before = threading.active_count()

    async def main() -> None:
        with pytest.warns(ResourceWarning, match="a client was not closed: tcp://.*, 0 tasks outstanding"):
            AsyncClient(running.addresses.requests)
        await until(lambda: threading.active_count() == before)

    run(main())


@pytest.mark.filterwarnings("ignore:a client was not closed")
def test_a_client_that_is_dropped_gets_the_replies_to_what_it_has_submitted(running: Running):
    before = threading.active_count()

    async def main() -> None:
        future = AsyncClient(running.addresses.requests).submit(b"task")
        gc.collect()
        await until(lambda: running.count("accepted") == 1)
        await asyncio.to_thread(running.worker().echo)
        assert await future == b"task"

    run(main())
    wait_until(lambda: threading.active_count() <= before)


@pytest.mark.filterwarnings("ignore:a client was not closed")
def test_replies_that_come_when_the_loop_is_closed_are_dropped(running: Running, caplog: pytest.LogCaptureFixture):
    async def main() -> AsyncClient:
        client = AsyncClient(running.addresses.requests)
        client.submit(b"task")
        await until(lambda: running.count("accepted") == 1)
        return client

    client = run(main())
    with working(running.addresses.ready, echo):
        wait_until(lambda: not len(client._link._shared.session))
    assert caplog.messages == []


ENDS = {
    "with the client closed before": "async with AsyncClient(sys.argv[1]) as client: client.submit(b'task')",
    "with the client not closed": "await use(AsyncClient(sys.argv[1]))",
}
END = """
import asyncio, sys
from zmqbroker import AsyncClient

async def use(client):
    async def go_through():
        async for _ in client.map([b"task"] * 3):
            pass
    client.submit(b"task", key="key")
    tasks = [asyncio.create_task(one) for one in (client.call(b"task"), go_through(), client.fetch("key", None))]
    await asyncio.sleep(0.1)

async def main():
    {}

asyncio.run(main(), debug=True)
"""


@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends_quietly_while_calls_are_outstanding(running: Running, how: str):
    ended = run_script(END.format(ENDS[how]), running.addresses.requests)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


INTERRUPTED = """
import asyncio, sys
from zmqbroker import AsyncClient
from zmqbroker.client import conversation
conversation.LAST_CANCELS = 20

async def main():
    async with AsyncClient(sys.argv[1]) as client:
        await client.call(b"task")

asyncio.run(main())
"""


def test_ctrl_c_cancels_the_task_at_the_broker(running: Running):
    command = [sys.executable, "-c", INTERRUPTED, running.addresses.requests]
    with subprocess.Popen(command, cwd=TOP, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            running.wait_for("accepted", 1)
            process.send_signal(signal.SIGINT)
            running.wait_for("cancelled", 1)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


# Loops of others, and what asyncio says in its debug mode


def test_uvloop_does_as_well(running: Running):
    uvloop = pytest.importorskip("uvloop", reason="there is no uvloop for this interpreter here")

    async def main() -> None:
        async with AsyncClient(running.addresses.requests) as client:
            bodies = [b"%d" % number for number in range(200)]
            assert await asyncio.gather(*map(client.call, bodies)) == bodies
            assert [result async for result in client.map(iter(bodies), window=10)] == bodies
            future = client.submit(b"task", delay=60)
            await until(lambda: running.count("delayed") == 1)
            future.cancel()
            await until(lambda: running.count("cancelled") == 1)
            with pytest.raises(TimeoutError):
                await client.call(b"task", wait=0.1, delay=60)

    with working(running.addresses.ready, echo):
        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))
        finally:
            loop.close()


# Restarts and cut connections


def test_a_killed_broker_loses_nothing_that_a_coroutine_waits_for():
    brokers = [start_broker()]
    try:
        addresses = bound_addresses(brokers[0])
        gate, bodies = Gate(b"task 50"), [b"task %d" % number for number in range(200)]

        async def use(client: AsyncClient) -> None:
            results = asyncio.gather(*map(client.call, bodies))
            await asyncio.to_thread(gate.wait_for, b"task 50")
            brokers[0].end(signal.SIGKILL)
            brokers.append(start_broker(*addresses))
            gate.open(b"task 50")
            assert await results == [body.upper() for body in bodies]

        with working(addresses[1], gate):
            run_with(addresses[0], use)
    finally:
        for broker in brokers:
            broker.clean_up()


@pytest.mark.usefixtures("echoing")
def test_a_cut_connection_is_survived_by_a_map(running: Running):
    bodies = [b"%d" % number for number in range(400)]
    with Proxy(running.addresses.requests) as proxy:

        async def use(client: AsyncClient) -> None:
            results = []
            async for result in client.map(bodies, window=50):
                results.append(result)
                if len(results) % 100 == 0:
                    proxy.cut()
            assert results == bodies

        run_with(proxy.address, use)


def test_a_broker_that_is_not_there_in_time_is_a_connection_error():
    async def main() -> None:
        async with AsyncClient(NOBODY, connect_timeout=0.2) as client:
            with pytest.raises(ConnectionError):
                await client.call(b"task")

    run(main())
