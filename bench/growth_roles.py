"""The peers of `bench.growth`, one process each, and its control: the dispatcher without sockets.

    python -m bench.growth_roles clients REQUESTS --peers N --window N --tasks N --size BYTES --broker PID [--short]
    python -m bench.growth_roles workers READY RESULTS --peers N --slots N --hold N --size BYTES [--short]
    python -m bench.growth_roles announced READY --peers N --slots N --size BYTES (--queues N | --groups N | --lists N)
    python -m bench.growth_roles push ADDRESS --window N --size BYTES
    python -m bench.growth_roles pull --window N --tasks N --size BYTES
    python -m bench.growth_roles dispatcher --waiting N --running N --tasks N [--no-collector]

Peers are connections, and one socket of one process has as many as are asked for: a ROUTER that gives each a name. To
the broker each is a peer of its own; here none of them has to be polled, so that ten thousand cost the load no more
for each task than ten. The workers of a process share one PUSH socket for their results, save those that announce
themselves, and so may ask from several queues; clients then get the same numbers: see `growth_kinds`.

Clients print a line when the broker has read a whole window of tasks, and workers one when each of them has answered.
Then clients read a line, measure while they keep the window full, and print their figures. Whoever waits in vain or
gets a wrong reply ends with status 1.
"""

import argparse
import gc
import os
import resource
import sys
from collections import deque
from itertools import cycle
from pathlib import Path
from select import select
from time import monotonic, process_time
from typing import Any

import zmq

from bench import growth_kinds
from bench.roles import say
from zmqbroker.broker.dispatch import Dispatcher

WAIT_MS = 120_000  # for any one message
MORE = int(zmq.SNDMORE)  # the flag enumeration of pyzmq costs more than a small send
NUMBER_BYTES = 8  # at the start of a body; the rest is padding
UNCOPIED = 65536  # bytes; from here on pyzmq can pass a frame on without copying it
CHUNK = 200  # replies between two looks at stdin
SHORT = b"k"  # a result where the task alone is large

Options = argparse.Namespace
Socket = zmq.Socket[bytes]


def main() -> int:
    """Be one peer, or the control."""
    parser = argparse.ArgumentParser(prog="bench.growth_roles")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("addresses", nargs="*")
    for name in ("peers", "window", "slots", "tasks", "size"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in ("hold", "waiting", "running", "broker", "queues", "groups", "lists"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="results are one byte")
    parser.add_argument("--no-collector", action="store_true", help="without the cyclic garbage collector")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection is a descriptor
    try:
        ROLES[options.role](options)
    except zmq.Again:
        print(f"{options.role}: no message within {WAIT_MS / 1000:g} s", file=sys.stderr)
        return 1
    return 0


def open_socket(kind: int, most: int = 0) -> Socket:
    """Return a socket; `most` limits the messages it queues, 0: no limit."""
    opened: Socket = zmq.Context.instance().socket(kind)
    opened.linger = 0
    opened.sndhwm = opened.rcvhwm = most
    opened.sndtimeo = opened.rcvtimeo = WAIT_MS
    return opened


def open_peers(address: str, count: int) -> tuple[Socket, list[bytes]]:
    """Connect so often, and return the socket and the name of each connection."""
    opened = open_socket(zmq.ROUTER)
    names = [b"%d" % number for number in range(count)]
    for name in names:
        opened.setsockopt(zmq.CONNECT_ROUTING_ID, name)
        opened.connect(address)
    return opened, names


# Clients


def submit(options: Options) -> None:
    """Keep a window of tasks unanswered, and measure while `tasks` of them are answered."""
    requests, names = open_peers(options.addresses[0], options.peers)
    client = Clients(requests, options)
    for number in range(options.window):
        client.send(names[number % len(names)])
    wait_until_read(requests, names)
    say(filled=True)
    while not select([sys.stdin], [], [], 0)[0]:
        client.exchange(min(CHUNK, options.window))
    before, started = processor_time(options.broker), monotonic()
    client.exchange(options.tasks)
    ended, after = monotonic(), processor_time(options.broker)
    say(seconds=ended - started, processor=[late - early for early, late in zip(before, after, strict=True)])


class Clients:
    """Sends numbered bodies and checks what comes back."""

    def __init__(self, requests: Socket, options: Options) -> None:
        self._requests = requests
        self._size = 1 if options.short else options.size
        self._copy = options.size < UNCOPIED
        self._padding = b"x" * (options.size - NUMBER_BYTES)
        self._body = b"" if self._copy else bytes(NUMBER_BYTES) + self._padding
        self._numbered = self._copy and not options.short
        self._sent = 0
        self._awaited: set[int] = set()
        self._headers = growth_kinds.headers(options)  # in turn; none: there is no header
        self._next_header = cycle(self._headers).__next__

    def send(self, name: bytes) -> None:
        """Send the next task by this connection."""
        send = self._requests.send
        send(name, MORE)
        if self._headers:
            send(self._next_header(), MORE)
        send(b"", MORE)
        if self._copy:
            send(self._sent.to_bytes(NUMBER_BYTES, "big") + self._padding)
        else:
            send(self._body, 0, False)
        if self._numbered:
            self._awaited.add(self._sent)
        self._sent += 1

    def exchange(self, count: int) -> None:
        """Receive so many replies, and send a task for each by the connection that it came by."""
        receive, size = self._requests.recv, self._size
        for _ in range(count):
            name: bytes = receive()
            while receive():  # the header, if there is one, until the empty frame
                pass
            reply: Any = receive(0, self._copy)
            if len(reply) != size:
                sys.exit(f"clients: a reply of {len(reply)} bytes, not {size}")
            if self._numbered:
                self._awaited.remove(int.from_bytes(reply[:NUMBER_BYTES], "big"))
            self.send(name)


def wait_until_read(requests: Socket, names: list[bytes]) -> None:
    """Wait until the broker has read all that was sent: a request without a body is answered at once, in its turn."""
    for name in names:
        requests.send(name, MORE)
        requests.send(b"")
    for _ in names:
        requests.recv()  # by which connection
        if requests.recv() or requests.recv():
            sys.exit("clients: a reply before there is a worker")


def processor_time(process: int) -> tuple[float, float, float, float]:
    """Return the seconds of a process so far: user and system of its main thread, user and system of the others."""
    times = [0.0, 0.0, 0.0, 0.0]
    for thread in Path(f"/proc/{process}/task").iterdir():
        fields = (thread / "stat").read_text().rpartition(") ")[2].split()
        first = 0 if int(thread.name) == process else 2
        for which in range(2):  # utime and stime, see proc(5)
            times[first + which] += int(fields[11 + which]) / os.sysconf("SC_CLK_TCK")
    return times[0], times[1], times[2], times[3]


# Workers


def work(options: Options) -> None:
    """Answer each task when `hold` more have come; say so when every worker has answered."""
    ready, names = open_peers(options.addresses[0], options.peers)
    results = open_socket(zmq.PUSH)
    results.connect(options.addresses[1])
    for number in range(options.slots):
        _say_ready(ready, names[number % len(names)])
    receive, send, copy = ready.recv, results.send, options.size < UNCOPIED
    unserved = set(names)
    held: deque[tuple[bytes, bytes, Any]] = deque()
    while True:
        name = receive()
        receive()
        held.append((name, receive(), receive(0, copy)))
        if len(held) <= options.hold:
            continue
        name, attempt_id, body = held.popleft()
        send(attempt_id, MORE)
        if options.short:
            send(SHORT)
        else:
            send(body, 0, copy)
        _say_ready(ready, name)
        if unserved:
            unserved.discard(name)
            if not unserved:
                say(served=True)


def _say_ready(ready: Socket, name: bytes) -> None:
    ready.send(name, MORE)
    ready.send(b"", MORE)
    ready.send(b"ready")


def work_announced(options: Options) -> None:
    """Answer each task, as workers that ask from queues."""
    ready, names = open_peers(options.addresses[0], options.peers)
    growth_kinds.work(ready, names, options)


# A bare pair


def push(options: Options) -> None:
    """Send bodies without end."""
    bodies = open_socket(zmq.PUSH, options.window)
    bodies.connect(options.addresses[0])
    body, copy = b"x" * options.size, options.size < UNCOPIED
    while True:
        bodies.send(body, 0, copy)


def pull(options: Options) -> None:
    """Receive bodies, and say how long so many took after as many as may be queued."""
    bodies = open_socket(zmq.PULL, options.window)
    bodies.bind("tcp://127.0.0.1:*")
    say(address=bodies.get_string(zmq.LAST_ENDPOINT))
    copy = options.size < UNCOPIED
    receive, size = bodies.recv, options.size
    for _ in range(2 * options.window):
        receive(0, copy)
    started = monotonic()
    for _ in range(options.tasks):
        if len(receive(0, copy)) != size:
            sys.exit("pull: a wrong body")
    say(seconds=monotonic() - started)


# The control


def dispatch(options: Options) -> None:
    """Move tasks through a dispatcher with so many waiting and running, and say what each one costs."""
    if options.no_collector:
        gc.disable()
    dispatcher = Dispatcher(tries=3, timeout=3600.0, run=b"12345678")
    running: deque[bytes] = deque()

    def submit_one() -> None:
        dispatcher.submit([bytes(5)], [bytes(options.size)], 0.0)

    def hand_out_one() -> None:
        dispatcher.ready([bytes(5)])
        pair = dispatcher.hand_out(0.0)
        assert pair is not None
        running.append(pair[1].attempt_id)

    for _ in range(options.waiting + options.running):
        submit_one()
    for _ in range(options.running):
        hand_out_one()
    started, collected = process_time(), gc.get_stats()[2]["collections"]
    for number in range(options.tasks):
        submit_one()
        hand_out_one()
        attempt_id = running.popleft()
        dispatcher.result(attempt_id, [bytes(options.size)], 0.0)
        dispatcher.settled.clear()
        if number % CHUNK == 0:
            dispatcher.expire(0.0)
    say(seconds=process_time() - started, collections=gc.get_stats()[2]["collections"] - collected)


ROLES = {
    "clients": submit,
    "workers": work,
    "announced": work_announced,
    "push": push,
    "pull": pull,
    "dispatcher": dispatch,
}

if __name__ == "__main__":
    sys.exit(main())
