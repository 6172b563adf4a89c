"""zmqbroker: with its Client and Worker, and with plain ZeroMQ sockets."""

import inspect
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import zmq

from bench.stage import Process
from bench.systems.link import Link, Settings
from bench.systems.system import Play, System
from bench.systems.task import work
from zmqbroker import Client, Worker

SLOTS = 64
THIS = "bench.systems.ours"


def start_broker(play: Play, *options: str) -> Process:
    """Start the broker with its limits on, and more options."""
    broker, requests, workers, _ = play.stage.start_broker(*options)
    play.settings.update(requests=requests, workers=workers)
    return broker


def start_workers(play: Play, count: int, kind: str = "worker", slots: int = 0) -> None:
    """Start so many processes with one Worker, or one plain worker, each; no slots: as many as a Worker likes."""
    for _ in range(count):
        play.start_python("-m", THIS, kind, *play.settings["workers"], str(slots))


def connect(settings: Settings) -> Link:
    """Connect a Client."""
    client = Client(settings["requests"])

    def echo(bodies: Iterable[bytes], window: int) -> Iterator[bytes]:
        return client.map(bodies, window=window)

    def chunked(bodies: Iterable[bytes], chunk: int) -> Iterator[bytes]:
        options: dict[str, Any] = {"chunk": chunk}
        return client.map(bodies, **options)

    return Link(client.submit, lambda future, wait: future.result(wait), echo, chunked=chunked, call=client.call)


def connect_plainly(settings: Settings) -> Link:
    """Connect a DEALER, which tells the replies apart by a frame of its own."""
    requests: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    requests.linger = 0
    requests.connect(settings["requests"])
    arrived: dict[bytes, bytes] = {}
    numbers = iter(range(1 << 62))

    def submit(body: bytes) -> bytes:
        number = b"%d" % next(numbers)
        requests.send_multipart([number, b"", body])
        return number

    def result(number: bytes, wait: float) -> bytes:
        while number not in arrived:
            if not requests.poll(int(wait * 1000)):
                raise TimeoutError
            replied, _, reply = requests.recv_multipart()
            arrived[replied] = reply
        return arrived.pop(number)

    return Link(submit, result)


def work_plainly(ready_address: str, results_address: str) -> None:
    """Be a worker of two plain sockets."""
    ready: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
    results: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    ready.connect(ready_address)
    results.connect(results_address)
    while True:
        ready.send(b"ready")
        attempt_id, body = ready.recv_multipart()
        results.send_multipart([attempt_id, work(body)])


def why_no_chunks() -> str:
    """Say why chunks cannot be measured; empty: they can."""
    return "" if "chunk" in inspect.signature(Client.map).parameters else "Client.map has no chunk parameter"


BROKER = "broker.py -t 3 -T 10"
SYSTEMS = [
    System(
        "zmqbroker",
        "zmqbroker: Client, Workers",
        f"{BROKER}; Client.map, Client.call for round trips; 2 Workers",
        f"{THIS}:connect",
        start_workers,
        start_broker,
        chunked="zmqbroker: Client.map(chunk={chunk})",
        why_no_chunks=why_no_chunks,
    ),
    System(
        "zmqbroker-slots",
        f"zmqbroker: Client, Workers with {SLOTS} slots",
        f"{BROKER}; Client.map, Client.call for round trips; 2 Workers, slots={SLOTS}: tasks wait behind each other",
        f"{THIS}:connect",
        partial(start_workers, slots=SLOTS),
        start_broker,
    ),
    System(
        "zmqbroker-plain",
        "zmqbroker: plain sockets",
        f"{BROKER}; a DEALER as client; 2 workers of a REQ and a PUSH socket",
        f"{THIS}:connect_plainly",
        partial(start_workers, kind="plain-worker"),
        start_broker,
    ),
]


def main(kind: str, ready: str, results: str, slots: str) -> None:
    """Be a worker."""
    if kind == "plain-worker":
        work_plainly(ready, results)
    else:
        Worker(ready, work, slots=int(slots) or None).run()


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
