"""Redis with RQ, Dramatiq and Celery: their own worker programs, results by their own result stores."""

from functools import partial
from typing import Any

from bench.stage import Process
from bench.systems.link import Link, Settings
from bench.systems.system import LOOPBACK, Play, Server, System
from bench.systems.task import work

THIS = "bench.systems.redis_queues"
REDIS = Server("redis-server", "redis-server")


def start_redis(play: Play, **settings: str) -> Process:
    """Start Redis, which keeps all in memory unless the settings say otherwise."""
    port = play.choose_port()
    play.settings["url"] = f"redis://{LOOPBACK}:{port}/0"
    options = {"bind": LOOPBACK, "port": port, "save": "", "appendonly": "no", "dir": str(play.directory), **settings}
    return play.start_server(
        "redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))
    )


# RQ


class JobFailedError(Exception):
    """What RQ knows about a job without a result."""


def start_rq_workers(play: Play, count: int, kind: str = "rq.Worker") -> None:
    """Start RQ's worker program, once for each worker."""
    for _ in range(count):
        play.start_python("-m", "rq.cli", "worker", "--quiet", "--url", play.settings["url"], "-w", kind)


def connect_rq(settings: Settings) -> Link:
    """Connect a client that waits for results as they come, by the stream that RQ keeps for each job."""
    from redis import Redis
    from rq import Queue
    from rq.results import Result

    queue = Queue(connection=Redis.from_url(settings["url"], socket_timeout=None))

    def result(job: Any, wait: float) -> bytes:
        latest = job.latest_result(timeout=max(1, int(wait)))
        if latest is None:
            raise TimeoutError
        if latest.type != Result.Type.SUCCESSFUL:
            raise JobFailedError((latest.exc_string or latest.type.name).strip().splitlines()[-1])
        body: bytes = latest.return_value
        return body

    return Link(lambda body: queue.enqueue(work, body), result)


# Dramatiq


def start_dramatiq_workers(play: Play, count: int) -> None:
    """Start Dramatiq's worker program with so many processes."""
    play.start_python("-m", "dramatiq", "bench.systems.dramatiq_tasks", "--processes", str(count))


def connect_dramatiq(settings: Settings) -> Link:
    """Send messages to the actor."""
    from dramatiq.results.errors import ResultTimeout

    from bench.systems import dramatiq_tasks

    def result(message: Any, wait: float) -> bytes:
        try:
            text: str = message.get_result(block=True, timeout=int(wait * 1000))
        except ResultTimeout:
            raise TimeoutError from None
        return text.encode()

    return Link(lambda body: dramatiq_tasks.echo.send(body.decode()), result)


# Celery


def start_celery_workers(play: Play, count: int) -> None:
    """Start Celery's worker program with so many processes."""
    name = f"worker{len(list(play.directory.iterdir()))}@localhost"
    (play.directory / name).touch()  # the next one has another name
    options = ["worker", "--loglevel", "ERROR", "--concurrency", str(count), "--hostname", name]
    play.start_python("-m", "celery", "-A", "bench.systems.celery_tasks", *options)


def connect_celery(settings: Settings) -> Link:
    """Send tasks, and wait for results by the Redis backend."""
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    from bench.systems import celery_tasks

    def result(handle: Any, wait: float) -> bytes:
        try:
            text: str = handle.get(timeout=wait)
        except CeleryTimeoutError:
            raise TimeoutError from None
        return text.encode()

    return Link(lambda body: celery_tasks.echo.delay(body.decode()), result)


def system(name: str, title: str, setup: str, workers: Any, *packages: str, **fields: Any) -> System:
    """Return one that uses Redis."""
    connect = f"{THIS}:connect_{name.partition('-')[0]}"
    return System(name, title, setup, connect, workers, start_redis, packages, REDIS, **fields)


SYSTEMS = [
    system("rq", "RQ", "2 Workers, which fork for each job", start_rq_workers, "rq", has_parents=True),
    system("rq-simple", "RQ, SimpleWorker", "2 SimpleWorkers", partial(start_rq_workers, kind="rq.SimpleWorker"), "rq"),
    system(
        "dramatiq",
        "Dramatiq",
        "2 processes of 8 threads each; Results with the Redis backend",
        start_dramatiq_workers,
        "dramatiq[redis]",
        has_parents=True,
    ),
    system(
        "celery",
        "Celery, early acknowledgement",
        "concurrency 2 (prefork); Redis as broker and result backend",
        start_celery_workers,
        "celery[redis]",
        has_parents=True,
    ),
    system(
        "celery-late",
        "Celery, late acknowledgement",
        "the same with acks_late, reject_on_worker_lost and a prefetch multiplier of 1",
        start_celery_workers,
        "celery[redis]",
        has_parents=True,
    ),
]
