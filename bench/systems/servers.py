"""beanstalkd with greenstalk, gearmand with pygearman, and NATS with nats-py: a server, and workers of our own."""

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any

from bench.stage import Process
from bench.systems.link import Link, Settings
from bench.systems.system import LOOPBACK, Play, Server, System
from bench.systems.task import work

THIS = "bench.systems.servers"
BEANSTALKD = Server("beanstalkd", "beanstalkd", "-v")
TASKS, RESULTS = "tasks", "results"
RESULT_WAIT = 60.0  # seconds
LARGEST = 1 << 20  # bytes of a message
GEARMAN_BATCH = 250  # jobs submitted at once


def start_workers(play: Play, count: int, kind: str, module: str = THIS) -> None:
    """Start so many of our workers, and wait until they are ready."""
    workers = [play.start_python("-m", module, kind, talks=True, name=f"a worker of {kind}") for _ in range(count)]
    for worker in workers:
        worker.line()


def say_ready() -> None:
    """Print the line that is waited for."""
    print("ready", flush=True)


# beanstalkd: tasks in one tube, results in another


def start_beanstalkd(play: Play, *options: str) -> Process:
    """Start beanstalkd, with more options."""
    return play.start_server("beanstalkd", "-l", LOOPBACK, "-p", play.choose_port(), "-z", str(LARGEST), *options)


def connect_beanstalkd(settings: Settings) -> Link:
    """Connect a client that numbers its tasks and waits for numbered results."""
    import greenstalk

    client = greenstalk.Client((LOOPBACK, settings["port"]), encoding=None, use=TASKS, watch=RESULTS)
    numbers = iter(range(1 << 62))
    arrived: dict[bytes, bytes] = {}

    def submit(body: bytes) -> bytes:
        number = next(numbers).to_bytes(8, "big")
        client.put(number + body)
        return number

    def result(number: bytes, wait: float) -> bytes:
        while number not in arrived:
            try:
                job = client.reserve(timeout=int(wait))
            except greenstalk.TimedOutError:
                raise TimeoutError from None
            client.delete(job)
            arrived[job.body[:8]] = job.body[8:]
        return arrived.pop(number)

    return Link(submit, result)


def work_for_beanstalkd(settings: Settings) -> None:
    """Answer each task, and delete it then."""
    import greenstalk

    client = greenstalk.Client((LOOPBACK, settings["port"]), encoding=None, use=RESULTS, watch=TASKS)
    say_ready()
    while True:
        job = client.reserve()
        client.put(job.body[:8] + work(job.body[8:]))
        client.delete(job)


# gearmand


def start_gearmand(play: Play) -> Process:
    """Start gearmand."""
    return play.start_server("gearmand", "--listen", LOOPBACK, "--port", play.choose_port(), "--log-file", "stderr")


def connect_gearmand(settings: Settings) -> Link:
    """Connect a client that submits jobs in the foreground: their results come back to it."""
    import gearman

    client = gearman.GearmanClient([f"{LOOPBACK}:{settings['port']}"])

    def submit_all(bodies: Iterable[bytes]) -> list[Any]:
        jobs = [{"task": TASKS.encode(), "data": body, "unique": None, "priority": None} for body in bodies]
        requests: list[Any] = client.submit_multiple_jobs(jobs, wait_until_complete=False)
        return requests

    def result(request: Any, wait: float) -> bytes:
        if not request.complete:
            client.wait_until_jobs_completed([request], poll_timeout=wait)
        if request.timed_out:
            raise TimeoutError
        body: bytes = request.result
        return body

    def count_right(bodies: Iterable[bytes], window: int) -> int:
        """Have one batch under way while the next one is prepared."""
        bodies, right = iter(bodies), 0
        before: list[tuple[Any, bytes]] = []
        while True:
            batch = list(islice(bodies, min(GEARMAN_BATCH, window // 2)))
            requests = submit_all(batch) if batch else []
            right += sum(result(request, RESULT_WAIT) == body for request, body in before)
            if not batch:
                return right
            before = list(zip(requests, batch, strict=True))

    return Link(lambda body: submit_all([body])[0], result, count_right=count_right)


def work_for_gearmand(settings: Settings) -> None:
    """Answer each job."""
    import gearman

    worker = gearman.GearmanWorker([f"{LOOPBACK}:{settings['port']}"])
    worker.register_task(TASKS.encode(), lambda _, job: work(job.data))
    say_ready()
    worker.work()


# NATS: requests to a queue group


def start_nats(play: Play) -> Process:
    """Start nats-server."""
    return play.start_server("nats-server", "-a", LOOPBACK, "-p", play.choose_port())


def connect_nats(settings: Settings) -> Link:
    """Connect a client with an event loop of its own."""
    import nats

    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(nats.connect(f"nats://{LOOPBACK}:{settings['port']}"))

    async def ask(body: bytes) -> bytes:
        reply: bytes = (await client.request(TASKS, body, timeout=settings["wait"])).data
        return reply

    async def ask_in_turn(bodies: Iterable[bytes]) -> int:
        return sum([await ask(body) == body for body in bodies])

    async def ask_together(bodies: Iterable[bytes], window: int) -> int:
        return sum(await asyncio.gather(*(ask_in_turn(bodies) for _ in range(window))))

    def count_right(bodies: Iterable[bytes], window: int) -> int:
        return loop.run_until_complete(ask_together(bodies, window))

    return Link(
        lambda body: loop.create_task(ask(body)), lambda task, _: loop.run_until_complete(task), count_right=count_right
    )


def work_for_nats(settings: Settings) -> None:
    """Answer each request."""
    import nats

    async def answer() -> None:
        client = await nats.connect(f"nats://{LOOPBACK}:{settings['port']}")

        async def respond(message: Any) -> None:
            await message.respond(work(message.data))

        await client.subscribe(TASKS, queue="workers", cb=respond)
        await client.flush()
        say_ready()
        await asyncio.Event().wait()

    asyncio.run(answer())


SYSTEMS = [
    System(
        "beanstalkd",
        "beanstalkd, greenstalk",
        "2 workers; a tube for tasks and one for results; a task is deleted after its result was put; -z for the size",
        f"{THIS}:connect_beanstalkd",
        lambda play, count: start_workers(play, count, "beanstalkd"),
        start_beanstalkd,
        ("greenstalk",),
        BEANSTALKD,
    ),
    System(
        "gearmand",
        "gearmand, pygearman",
        "2 workers; foreground jobs",
        f"{THIS}:connect_gearmand",
        lambda play, count: start_workers(play, count, "gearmand"),
        start_gearmand,
        ("pygearman",),
        Server("gearmand", "gearman-job-server"),
    ),
    System(
        "nats",
        "NATS request/reply, nats-py",
        "2 subscribers of a queue group; requests by asyncio",
        f"{THIS}:connect_nats",
        lambda play, count: start_workers(play, count, "nats"),
        start_nats,
        ("nats-py",),
        Server("nats-server", "nats-server"),
        shows_memory=False,  # it keeps no requests
    ),
]
WORKERS = {"beanstalkd": work_for_beanstalkd, "gearmand": work_for_gearmand, "nats": work_for_nats}

if __name__ == "__main__":
    WORKERS[sys.argv[1]](json.loads(os.environ["BENCH_SETTINGS"]))
