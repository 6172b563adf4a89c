"""The peers of a measurement, one process each: clients, workers, and the proxy that the broker is compared with.

    python -m bench.roles client ADDRESS --tasks N --window N [--prefill]     one DEALER
    python -m bench.roles strict-client ADDRESS --tasks N                     one REQ
    python -m bench.roles worker READY RESULTS --slots N                      DEALER and PUSH; behind the proxy a
    python -m bench.roles worker ADDRESS                                          DEALER that echoes
    python -m bench.roles strict-worker READY RESULTS                         REQ and PUSH; behind the proxy a
    python -m bench.roles strict-worker ADDRESS                                   REP that echoes
    python -m bench.roles library-worker READY --slots N                      a zmqbroker.Worker; --slots 0: as it likes
    python -m bench.roles asker CONTROL                                       asks for all that there is, each second
    python -m bench.roles proxy                                               ROUTER and DEALER

Each prints one line of JSON when it is ready. Clients then wait for a line, submit their tasks, compare each reply
with what they sent, and print a second line: when they started and ended, in seconds of the monotonic clock, which
all processes share. Whoever waits in vain or gets a wrong reply ends with status 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import count
from time import monotonic, sleep
from typing import Any

import zmq

from zmqbroker import Worker
from zmqbroker.transport.control import ControlSocket

BODY_BYTES = 64
NUMBER_BYTES = 8  # at the start of a body; the rest is padding
PADDING = b"x" * (BODY_BYTES - NUMBER_BYTES)
ASK_INTERVAL = 1.0  # seconds, as of `zmqbroker status --watch`
WAIT_MS = 20_000  # for any one message
MORE = int(zmq.SNDMORE)  # the flag enumeration of pyzmq costs more than a small send


def main(arguments: Sequence[str] | None = None) -> int:
    """Be one peer; None means the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="bench.roles")
    parser.add_argument(
        "role", choices=["client", "strict-client", "worker", "strict-worker", "library-worker", "asker", "proxy"]
    )
    parser.add_argument("addresses", nargs="*")
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--window", type=int, default=1, help="unanswered tasks that a client keeps")
    parser.add_argument("--slots", type=int, default=1, help="unused ready messages that a worker keeps")
    parser.add_argument("--pause", type=float, default=ASK_INTERVAL, help="seconds between an asker's rounds")
    parser.add_argument("--prefill", action="store_true", help="submit a whole window before saying ready")
    options = parser.parse_args(arguments)
    try:
        if options.role == "proxy":
            run_proxy()
        elif options.role == "asker":
            ask(options.addresses[0], options.pause)
        elif options.role == "library-worker":
            run_worker(options.addresses[0], options.slots)
        elif options.role == "client":
            submit(options.addresses[0], options.tasks, options.window, options.prefill)
        elif options.role == "strict-client":
            submit_strictly(options.addresses[0], options.tasks)
        elif len(options.addresses) == 1:
            echo(zmq.REP if options.role == "strict-worker" else zmq.DEALER, options.addresses[0])
        elif options.role == "strict-worker":
            work_strictly(options.addresses[0], options.addresses[1])
        else:
            work(options.addresses[0], options.addresses[1], options.slots)
    except zmq.Again:
        print(f"{options.role}: no message within {WAIT_MS / 1000:g} s", file=sys.stderr)
        return 1
    return 0


def say(**facts: Any) -> None:
    """Print a line for whoever started this process."""
    print(json.dumps(facts), flush=True)


def open_socket(kind: int, address: str | None = None) -> zmq.Socket[bytes]:
    """Return a socket without limits on queued messages, connected to `address` unless that is None."""
    opened: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    opened.linger = 0
    opened.sndhwm = opened.rcvhwm = 0
    opened.sndtimeo = opened.rcvtimeo = WAIT_MS
    if address is not None:
        opened.connect(address)
    return opened


# Clients


def submit(address: str, tasks: int, window: int, prefill: bool) -> None:
    """Keep `window` tasks unanswered until `tasks` of them are answered.

    With `prefill` the first window is sent, and has been read by the broker, before this says that it is ready; and a
    full window is still unanswered at the end. The clock starts at the first reply.
    """
    requests = open_socket(zmq.DEALER, address)
    send, receive = requests.send, requests.recv
    total = tasks + window if prefill else tasks
    awaited = bytearray(total)  # 1 for each task that was sent and not answered
    sent = 0

    def send_next() -> None:
        nonlocal sent
        send(b"", MORE)
        send(sent.to_bytes(NUMBER_BYTES, "big") + PADDING)
        awaited[sent] = 1
        sent += 1

    def check_next() -> None:
        empty, reply = receive(), receive()
        number = int.from_bytes(reply[:NUMBER_BYTES], "big")
        if empty or reply[NUMBER_BYTES:] != PADDING or number >= total or not awaited[number]:
            sys.exit(f"client: a wrong reply: {empty!r} {reply!r}")
        awaited[number] = 0

    def fill() -> None:
        while sent < min(window, total):
            send_next()

    if prefill:
        fill()
        wait_until_read(requests)
    say(ready=True)
    sys.stdin.readline()
    fill()
    check_next()
    started = monotonic()
    for _ in range(tasks - 1):
        if sent < total:
            send_next()
        check_next()
    say(started=started, ended=monotonic())


def wait_until_read(requests: zmq.Socket[bytes]) -> None:
    """Wait until the broker has read all that was sent: a request without a body is answered at once, in its turn."""
    requests.send(b"")
    if requests.recv() or requests.recv():
        sys.exit("client: a reply before there is a worker")


def submit_strictly(address: str, tasks: int) -> None:
    """Submit one task after the other, and say how long each one took: the median and the 99th percentile, in us."""
    requests = open_socket(zmq.REQ, address)
    times = []
    for number in range(tasks + 1):
        if number == 1:  # the first one, which connects, does not count
            say(ready=True)
            sys.stdin.readline()
            started = monotonic()
        body = number.to_bytes(NUMBER_BYTES, "big") + PADDING
        sent = monotonic()
        requests.send(body)
        reply = requests.recv()
        times.append(monotonic() - sent)
        if reply != body or requests.rcvmore:
            sys.exit(f"strict-client: a wrong reply: {reply!r}")
    times = sorted(times[1:])
    say(started=started, ended=monotonic(), p50=times[tasks // 2] * 1e6, p99=times[tasks * 99 // 100] * 1e6)


# Workers


def work(ready_address: str, results_address: str, slots: int) -> None:
    """Answer each task with its body, and keep `slots` ready messages unused."""
    ready, results = open_socket(zmq.DEALER, ready_address), open_socket(zmq.PUSH, results_address)
    receive, send_ready, send_result = ready.recv, ready.send, results.send
    for _ in range(slots):
        send_ready(b"", MORE)
        send_ready(b"ready")
    say(ready=True)
    while True:
        receive()
        send_result(receive(), MORE)
        send_result(receive())
        send_ready(b"", MORE)
        send_ready(b"ready")


def work_strictly(ready_address: str, results_address: str) -> None:
    """Ask for a task, answer it with its body, ask again."""
    ready, results = open_socket(zmq.REQ, ready_address), open_socket(zmq.PUSH, results_address)
    say(ready=True)
    while True:
        ready.send(b"ready")
        results.send(ready.recv(), MORE)
        results.send(ready.recv())


def run_worker(address: str, slots: int) -> None:
    """Answer each task with its body, with the library's Worker."""
    worker = Worker(address, lambda body: body, slots=slots or None)
    say(ready=True)
    worker.run()


def echo(kind: int, address: str) -> None:
    """Send every message back."""
    tasks = open_socket(kind, address)
    receive, send = tasks.recv, tasks.send
    say(ready=True)
    while True:
        if kind == zmq.DEALER:  # which gets the client's routing id and an empty frame first; REP hides them
            send(receive(), MORE)
            send(receive(), MORE)
        send(receive())


# Askers


def ask(address: str, pause: float) -> None:
    """Ask for all that there is, again and again, until killed."""
    with ControlSocket(address, WAIT_MS / 1000) as control:
        for number in count():
            for what in "status", "queues", "workers", "tasks", "failures":
                control.ask(what)
            if not number:
                say(ready=True)
            sleep(pause)


# What the broker is compared with


def run_proxy() -> None:
    """Forward until killed: requests to whichever worker is next, replies to their clients."""
    requests, tasks = open_socket(zmq.ROUTER), open_socket(zmq.DEALER)
    for opened in requests, tasks:
        opened.bind("tcp://127.0.0.1:*")
    say(addresses=[opened.getsockopt_string(zmq.LAST_ENDPOINT) for opened in (requests, tasks)])
    zmq.proxy(requests, tasks)


if __name__ == "__main__":
    sys.exit(main())
