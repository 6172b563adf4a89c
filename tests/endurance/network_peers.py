"""Workers and clients as programs for tests, which say what they do: ours, and plain ones with nothing of ours in them.

A task whose body begins with `hold` is worked on until its worker gets SIGUSR1, any other one is done at once; the
result is the body in capital letters. No name here is that of the broker's machine: addresses are arguments.
"""

import signal
import sys
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # to run from a tree that is not installed

from zmqbroker import Client, KeepAlive, Worker


def work(body: bytes) -> bytes:
    """Do a task."""
    print(f"took {body.decode()}", flush=True)
    if body.startswith(b"hold"):
        signal.sigwait({signal.SIGUSR1})
    return body.upper()


def worker(ready: str, results: str) -> None:
    """Work as our Worker, until SIGTERM."""
    ours = Worker(ready, work)
    signal.signal(signal.SIGTERM, lambda *_: ours.stop())
    print("asking", flush=True)
    ours.run()


def plain_worker(ready: str, results: str) -> None:
    """Work as a REQ and a PUSH, until killed."""
    context = zmq.Context()
    asking, answering = context.socket(zmq.REQ), context.socket(zmq.PUSH)
    asking.connect(ready)
    answering.connect(results)
    print("asking", flush=True)
    while True:
        asking.send(b"ready")
        attempt_id, body = asking.recv_multipart()
        answering.send_multipart([attempt_id, work(body)])


def client(requests: str, name: str, count: str, *keep_alive: str) -> None:
    """Have so many tasks done, named `NAME NUMBER`, as our Client, which has its own `keep_alive`."""
    bodies = [f"{name} {number}".encode() for number in range(int(count))]
    with Client(requests, keep_alive=KeepAlive(*map(int, keep_alive))) as ours:
        futures = [ours.submit(body) for body in bodies]
        print("sent", flush=True)
        for future in as_completed(futures):
            print(f"reply {future.result().decode()}", flush=True)


def plain_client(requests: str, name: str, count: str) -> None:
    """Have so many tasks done, one after the other, as a REQ."""
    socket = zmq.Context().socket(zmq.REQ)
    socket.connect(requests)
    for number in range(int(count)):
        socket.send_string(f"{name} {number}")
        print("sent", flush=True)
        print(f"reply {socket.recv_string()}", flush=True)


ROLES: dict[str, Callable[..., None]] = {role.__name__: role for role in (worker, plain_worker, client, plain_client)}

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # before ZeroMQ's threads: it is for sigwait
    ROLES[sys.argv[1]](*sys.argv[2:])
