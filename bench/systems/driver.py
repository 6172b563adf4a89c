"""The client process of a system under measurement: `python -m bench.systems.driver MODULE:CONNECT SETTINGS`.

It says what it has connected to, reads requests, each one line of JSON, and answers each with one line of JSON.
"""

import importlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from importlib.metadata import version
from multiprocessing import TimeoutError as PoolTimeoutError
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from bench.systems.link import Link
from bench.systems.task import HOLD, WHO

RESULT_WAIT = 60.0  # seconds; for any one result
NUMBER_DIGITS = 10  # at the start of a body; the rest is padding
WHO_BATCH = 8


def main(arguments: list[str]) -> None:
    """Connect, and do what is asked for until there is nothing more."""
    target, settings = arguments[0], json.loads(arguments[1])
    answers = _keep_output()
    module, _, name = target.partition(":")
    link: Link = getattr(importlib.import_module(module), name)(settings)
    versions = {package: version(package) for package in settings["packages"]}
    answers(servers=link.servers, versions=versions)
    for line in sys.stdin:
        request = json.loads(line)
        REQUESTS[request.pop("do")](link, answers, **request)
    os._exit(0)  # whatever a system's threads wait for


def _keep_output() -> Callable[..., None]:
    """Return a function that prints to the output as it was; what libraries print goes to the errors."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**facts: Any) -> None:
        output.write(json.dumps(facts) + "\n")
        output.flush()

    return answer


def meet(link: Link, answer: Callable[..., None], workers: int, wait: float) -> None:
    """Have tasks done until so many processes have had one: they are all there."""
    seen: set[bytes] = set()
    until = monotonic() + wait
    while len(seen) < workers and monotonic() < until:
        handles = [link.submit(WHO) for _ in range(WHO_BATCH)]
        seen.update(link.result(handle, wait) for handle in handles)
    answer(met=len(seen))


def rate(link: Link, answer: Callable[..., None], size: int, window: int, seconds: float) -> None:
    """Submit for some seconds, one task at least, and measure the time until all results are there."""
    sent = 0
    started = perf_counter()

    def bodies() -> Iterator[bytes]:
        nonlocal sent
        while not sent or perf_counter() - started < seconds:
            sent += 1
            yield _body(sent - 1, size)

    if link.count_right is not None:
        right = link.count_right(bodies(), window)
    elif link.echo is not None:
        right = sum(reply == _body(n, size) for n, reply in enumerate(link.echo(bodies(), window)))
    else:
        right = _echo(link, bodies(), window)
    answer(tasks=sent, right=right, seconds=perf_counter() - started)


def rate_in_chunks(link: Link, answer: Callable[..., None], size: int, chunk: int, seconds: float) -> None:
    """Do the same with tasks in chunks."""
    assert link.chunked is not None
    rate(link._replace(echo=link.chunked, count_right=None), answer, size, chunk, seconds)


def round_trips(link: Link, answer: Callable[..., None], size: int, seconds: float, most: int) -> None:
    """Have one task done after the other for some seconds, one at least; measure each, in us."""
    times: list[float] = []
    call = link.call or (lambda body: link.result(link.submit(body), RESULT_WAIT))
    until = perf_counter() + seconds
    while not times or (len(times) < most and perf_counter() < until):
        body = _body(len(times), size)
        sent = perf_counter()
        reply = call(body)
        times.append((perf_counter() - sent) * 1e6)
        if reply != body:
            raise SystemExit(f"a wrong reply: {reply!r}")
    answer(times=times)


def fill(link: Link, answer: Callable[..., None], size: int, tasks: int, holds: list[str]) -> None:
    """Submit tasks that will not be done, behind some that workers hold."""
    handles = [link.submit(HOLD + path.encode()) for path in holds]
    until = monotonic() + RESULT_WAIT
    while not all(Path(path).exists() for path in holds) and monotonic() < until:
        pass
    handles += [link.submit(_body(number, size)) for number in range(tasks)]
    answer(submitted=len(handles))
    sys.stdin.readline()  # keeps the handles


def hold(link: Link, answer: Callable[..., None], path: str, wait: float) -> None:
    """Submit a task that a worker holds until it is killed, and say what comes of it."""
    handle = link.submit(HOLD + path.encode())
    answer(submitted=1)
    try:
        outcome = link.result(handle, wait).decode()
    except (TimeoutError, FutureTimeoutError, PoolTimeoutError):
        outcome = "timeout"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    answer(outcome=outcome, at=monotonic())


REQUESTS: dict[str, Callable[..., None]] = {
    "meet": meet,
    "rate": rate,
    "rate_in_chunks": rate_in_chunks,
    "round_trips": round_trips,
    "fill": fill,
    "hold": hold,
}


def _echo(link: Link, bodies: Iterator[bytes], window: int) -> int:
    """Keep up to `window` tasks outstanding, and count right results, waiting for the oldest."""
    submit, result = link.submit, link.result
    outstanding: deque[tuple[Any, bytes]] = deque()
    right = 0
    for body in bodies:
        outstanding.append((submit(body), body))
        if len(outstanding) >= window:
            handle, sent = outstanding.popleft()
            right += result(handle, RESULT_WAIT) == sent
    return right + sum(result(handle, RESULT_WAIT) == sent for handle, sent in outstanding)


def _body(number: int, size: int) -> bytes:
    return (b"%0*d" % (NUMBER_DIGITS, number)).ljust(size, b"x")


if __name__ == "__main__":
    main(sys.argv[1:])
