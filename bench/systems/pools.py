"""The process pools of Python's standard library: no server, the client process starts the workers."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import AsyncResult, Pool
from threading import Semaphore
from typing import Any

from bench.systems.link import Link, Settings
from bench.systems.system import System
from bench.systems.task import work

THIS = "bench.systems.pools"
CHUNKS = 1000  # outstanding


def connect_executor(settings: Settings) -> Link:
    """Start a ProcessPoolExecutor."""
    executor = ProcessPoolExecutor(settings["count"])

    return Link(lambda body: executor.submit(work, body), lambda future, wait: future.result(wait))


def connect_pool(settings: Settings) -> Link:
    """Start a Pool."""
    pool = Pool(settings["count"])

    def submit(body: bytes) -> "AsyncResult[bytes]":
        return pool.apply_async(work, (body,))

    def echo(bodies: Iterable[bytes], window: int) -> Iterator[bytes]:
        return in_window(pool, bodies, window, 1)

    def chunked(bodies: Iterable[bytes], chunk: int) -> Iterator[bytes]:
        return in_window(pool, bodies, CHUNKS * chunk, chunk)

    return Link(submit, lambda handle, wait: handle.get(wait), echo, chunked=chunked)


def in_window(pool: Any, bodies: Iterable[bytes], window: int, chunk: int) -> Iterator[bytes]:
    """Yield from `imap`, which by itself takes all that it can get at once."""
    places = Semaphore(window)

    def bounded() -> Iterator[bytes]:
        for body in bodies:
            places.acquire()
            yield body

    for result in pool.imap(work, bounded(), chunk):
        places.release()
        yield result


SYSTEMS = [
    System(
        "pool-imap",
        "multiprocessing.Pool",
        "2 processes; imap, and apply_async where one task is outstanding",
        f"{THIS}:connect_pool",
        shows_memory=False,
        chunked="Pool.imap(chunksize={chunk})",
    ),
    System(
        "process-pool",
        "ProcessPoolExecutor",
        "2 processes; submit",
        f"{THIS}:connect_executor",
        shows_memory=False,
    ),
]
