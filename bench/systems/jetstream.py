"""NATS JetStream with nats-py: a stream of tasks and one of results, both in files."""

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.stage import Process
from bench.systems.link import Link, Settings
from bench.systems.servers import RESULTS, TASKS, say_ready
from bench.systems.system import LOOPBACK, Play
from bench.systems.task import work

WAIT = 60.0  # seconds; for any one answer
TOGETHER = 50  # results that the worker publishes at once
NUMBER_BYTES = 8  # at the start of a message


def start_server(play: Play) -> Process:
    """Start the nats-server of the package, which syncs its streams at each change."""
    configuration = play.directory / "nats.conf"
    stored = json.dumps(str(play.directory / "streams"))
    configuration.write_text(f"jetstream {{ store_dir: {stored}, sync_interval: always }}\n")
    program = Path(play.python).parent / "nats-server"
    return play.start_server(str(program), "-a", LOOPBACK, "-p", play.choose_port(), "-c", str(configuration))


async def open_streams(settings: Settings) -> Any:
    """Connect, and make the streams unless they are there."""
    import nats
    from nats.js.api import RetentionPolicy, StorageType

    client = await nats.connect(f"nats://{LOOPBACK}:{settings['port']}")
    streams = client.jetstream(timeout=WAIT)
    for name in TASKS, RESULTS:
        facts = {"retention": RetentionPolicy.WORK_QUEUE, "storage": StorageType.FILE}
        await streams.add_stream(name=name, subjects=[name], **facts)
    return streams


def connect(settings: Settings) -> Link:
    """Connect a client, with an event loop of its own, that numbers its tasks and gets numbered results."""
    loop = asyncio.new_event_loop()
    numbers = iter(range(1 << 62))
    awaited: dict[bytes, asyncio.Future[bytes]] = {}

    async def take(message: Any) -> None:
        awaited.pop(message.data[:NUMBER_BYTES]).set_result(message.data[NUMBER_BYTES:])
        await message.ack()

    async def start() -> Any:
        streams = await open_streams(settings)
        await streams.subscribe(RESULTS, durable="client", cb=take, manual_ack=True)
        return streams

    streams = loop.run_until_complete(start())

    async def ask(body: bytes) -> bytes:
        number = next(numbers).to_bytes(NUMBER_BYTES, "big")
        awaited[number] = result = loop.create_future()
        await streams.publish(TASKS, number + body)
        return await asyncio.wait_for(result, WAIT)

    async def ask_in_turn(bodies: Iterable[bytes]) -> int:
        return sum([await ask(body) == body for body in bodies])

    async def ask_together(bodies: Iterable[bytes], window: int) -> int:
        return sum(await asyncio.gather(*(ask_in_turn(bodies) for _ in range(window))))

    return Link(
        lambda body: loop.create_task(ask(body)),
        lambda task, _: loop.run_until_complete(task),
        count_right=lambda bodies, window: loop.run_until_complete(ask_together(bodies, window)),
    )


async def answer(settings: Settings) -> None:
    """Answer tasks, and acknowledge them when the answers are stored."""
    streams = await open_streams(settings)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    await streams.subscribe(TASKS, durable="worker", cb=messages.put, manual_ack=True)
    say_ready()
    while True:
        batch = [await messages.get()]
        while len(batch) < TOGETHER and not messages.empty():
            batch.append(messages.get_nowait())
        results = [message.data[:NUMBER_BYTES] + work(message.data[NUMBER_BYTES:]) for message in batch]
        await asyncio.gather(*(streams.publish(RESULTS, result) for result in results))
        for message in batch:
            await message.ack()


if __name__ == "__main__":
    asyncio.run(answer(json.loads(os.environ["BENCH_SETTINGS"])))
