"""How much one broker bears, in figures: thousands of peers, large bodies, replies that nobody reads.

    python tests/endurance/limits.py peers [WORKERS [CLIENTS]]
    python tests/endurance/limits.py bodies
    python tests/endurance/limits.py unread
    python tests/endurance/limits.py descriptors

The broker and its peers are processes of their own. In `peers`, workers of one process share a PUSH: so a hard limit of
20,000 descriptors (ulimit -Hn) is enough.
"""

import os
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the helpers, when run as a program

from helpers import Program, bound_addresses

SELF = "tests/endurance/limits.py"
LOOPBACK = ("tcp://127.0.0.1:*",) * 3
PROCESSES = 4  # of workers; half as many of clients
MIB = 1 << 20
PATIENCE_MS = 120_000
TASKS = 100_000
WINDOW = 5  # tasks of one client under way, with thousands of clients
MOST_UNREAD = 100_000  # what a broker keeps for one client


class Measured:
    """A broker in a process of its own, what it uses, and processes of peers."""

    def __init__(self, *options: str) -> None:
        self._closing = ExitStack()
        self.broker = self.start("broker.py", *options, *LOOPBACK)
        self.requests, self.ready, self.results = bound_addresses(self.broker)

    def __enter__(self) -> "Measured":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def start(self, script: str, *arguments: object) -> Program:
        program = Program(script, *arguments)
        self._closing.callback(program.clean_up)
        return program

    def workers(self, count: int, slots: int = 1) -> Program:
        """Start a process of workers that echo; it has said ready for all of them when this returns."""
        workers = self.start(SELF, "be-workers", self.ready, self.results, count, slots)
        workers.wait_for("connected")
        return workers

    def memory(self, what: str = "VmRSS") -> float:
        """Return resident memory in MiB, now or (VmHWM) at its peak."""
        status = Path(f"/proc/{self.broker.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.broker.process.pid}/fd"))

    def processor(self) -> float:
        """Return the seconds of processor time that the broker has used, its I/O thread included."""
        times = Path(f"/proc/{self.broker.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End the broker, and show what it has counted."""
        assert self.broker.end() == 0
        print("  ", self.broker.lines[-1])


def open_socket(context: "zmq.Context[zmq.Socket[bytes]]", kind: int, address: str) -> "zmq.Socket[bytes]":
    """Connect a socket without limits on what it keeps."""
    opened = context.socket(kind)
    opened.linger, opened.sndhwm, opened.rcvhwm = 0, 0, 0
    opened.rcvtimeo = PATIENCE_MS
    opened.connect(address)
    return opened


# Peers


def allow_descriptors() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def be_workers(ready: str, results: str, count: str, slots: str) -> None:
    """Be so many DEALER workers, with a PUSH in common, that echo."""
    allow_descriptors()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.max_sockets = int(count) + 10
    poller, answering = zmq.Poller(), open_socket(context, zmq.PUSH, results)
    for _ in range(int(count)):
        asking = open_socket(context, zmq.DEALER, ready)
        for _ in range(int(slots)):
            asking.send_multipart([b"", b"ready"])
        poller.register(asking, zmq.POLLIN)
    print("connected", flush=True)
    while True:
        for asking, _ in poller.poll():
            with suppress(zmq.Again):
                while True:
                    _, *message = asking.recv_multipart(zmq.NOBLOCK, copy=False)
                    answering.send_multipart(message, copy=False)
                    asking.send_multipart([b"", b"ready"])


def be_clients(requests: str, count: str, tasks: str) -> None:
    """Be so many DEALER clients, which have so many tasks done together."""
    allow_descriptors()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.max_sockets = int(count) + 10
    clients, poller = [open_socket(context, zmq.DEALER, requests) for _ in range(int(count))], zmq.Poller()
    for client in clients:
        poller.register(client, zmq.POLLIN)
        client.send(b"malformed")  # so answered at once: a round trip shows that it is connected
    for client in clients:
        client.recv_multipart()
    print("connected", flush=True)
    for client in clients:
        for _ in range(WINDOW):
            client.send_multipart([b"", b"task"])
    replies = 0
    while replies < int(tasks):
        for client, _ in poller.poll(PATIENCE_MS):
            client.recv_multipart()
            client.send_multipart([b"", b"task"])
            replies += 1
    print("done", flush=True)
    threading.Event().wait()


# What is measured


def measure_peers(workers: str = "10000", clients: str = "2000") -> None:
    """Connect thousands of peers, and have tasks done by all of them."""
    with Measured() as measured:
        print(f"{workers} workers, {clients} clients")
        print(f"   broker at start: {measured.memory():.0f} MiB")
        began = monotonic()
        for _ in range(PROCESSES):
            measured.workers(int(workers) // PROCESSES)
        print(f"   workers connected after {monotonic() - began:.1f} s: {measured.memory():.0f} MiB")
        halves = PROCESSES // 2
        per_half = TASKS // halves
        crowds = [
            measured.start(SELF, "be-clients", measured.requests, int(clients) // halves, per_half)
            for _ in range(halves)
        ]
        for crowd in crowds:
            crowd.wait_for("connected")
        print(f"   all connected: {measured.memory():.0f} MiB, {measured.descriptors()} descriptors")
        began, before = monotonic(), measured.processor()
        for crowd in crowds:
            crowd.wait_for("done")
        took, used = monotonic() - began, measured.processor() - before
        print(f"   {TASKS} tasks: {TASKS / took:.0f} a second; broker {used / took:.0%} of a processor")
        print(f"   peak {measured.memory('VmHWM'):.0f} MiB")


def measure_bodies() -> None:
    """Pass large bodies through, to a worker and back."""
    for count, size in ((1, 1024 * MIB), (100, 10 * MIB)):
        with Measured() as measured:
            before = measured.memory()
            measured.workers(1, slots=count)
            body = bytes(size)
            client = open_socket(zmq.Context(), zmq.DEALER, measured.requests)
            began = monotonic()
            for number in range(count):
                client.send_multipart([b"%d" % number, b"", body], copy=False)
            for _ in range(count):
                *_, reply = client.recv_multipart(copy=False)
                assert len(reply) == size
            took, peak = monotonic() - began, measured.memory("VmHWM") - before
            total = count * size / MIB
            print(f"{count} of {size / MIB:.0f} MiB at once: {took:.2f} s, {total / took:.0f} MiB/s each way")
            print(f"   broker's peak above its start: {peak:.0f} MiB, {peak / total:.2f} times the bodies")
            print(f"   afterwards {measured.memory() - before:.0f} MiB above its start")
            client.close()


def measure_unread() -> None:
    """Have a client not read its replies, and look at another one meanwhile."""
    for size in (100, 1024):
        with Measured() as measured:
            measured.workers(1, slots=100)
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            prompt = open_socket(context, zmq.REQ, measured.requests)
            lazy = context.socket(zmq.DEALER)
            lazy.linger, lazy.sndhwm, lazy.rcvhwm, lazy.rcvtimeo = 0, 0, 1, 2000
            lazy.connect(measured.requests)
            alone = round_trips(prompt, 2000, lambda number: None)
            before = measured.memory()
            more = 3 * MOST_UNREAD // 2
            body = bytes(size)

            def send(number: int, lazy: "zmq.Socket[bytes]" = lazy, body: bytes = body, more: int = more) -> None:
                for _ in range(more // 5000):
                    lazy.send_multipart([b"", body])

            meanwhile = round_trips(prompt, 5000, send)
            kept = round_trips(prompt, 2000, lambda number: None)
            print(f"{more} unread replies of {size} bytes: {measured.memory() - before:.0f} MiB in the broker")
            print(f"   round trips of another client, p50 / p99 / most: alone {alone}; while they pile up {meanwhile};")
            print(f"   while they are kept {kept}")
            read = 0
            with suppress(zmq.Again):
                while lazy.recv_multipart():
                    read += 1
            print(f"   read in the end: {read}")
            for opened in (lazy, prompt):
                opened.close()
            measured.end()


def round_trips(client: "zmq.Socket[bytes]", count: int, between: Callable[[int], None]) -> str:
    """Have so many tasks done one after the other; return the spread of their times."""
    times = []
    for number in range(count):
        between(number)
        began = monotonic()
        client.send(b"task")
        client.recv()
        times.append((monotonic() - began) * 1000)
    times.sort()
    return " / ".join(f"{time:.2f}" for time in (times[count // 2], times[count * 99 // 100], times[-1])) + " ms"


def measure_descriptors(limit: str = "64") -> None:
    """Have more peers than descriptors: what does it cost, and what do the others notice?"""
    with Measured() as measured:
        measured.workers(1, slots=10)
        resource.prlimit(measured.broker.process.pid, resource.RLIMIT_NOFILE, (int(limit), int(limit)))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        prompt = open_socket(context, zmq.REQ, measured.requests)
        print(f"round trips, p50 / p99 / most: {round_trips(prompt, 2000, lambda number: None)}")
        crowd = [open_socket(context, zmq.REQ, measured.requests) for _ in range(2 * int(limit))]
        began, before = monotonic(), measured.processor()
        threading.Event().wait(5)
        used = (measured.processor() - before) / (monotonic() - began)
        print(f"{measured.descriptors()} of {limit} descriptors, twice as many peers: idle, {used:.0%} of a processor")
        print(f"   round trips meanwhile: {round_trips(prompt, 2000, lambda number: None)}")
        for opened in (*crowd, prompt):
            opened.close()


COMMANDS: dict[str, Callable[..., None]] = {
    "peers": measure_peers,
    "bodies": measure_bodies,
    "unread": measure_unread,
    "descriptors": measure_descriptors,
    "be-workers": be_workers,
    "be-clients": be_clients,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
