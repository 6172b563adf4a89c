#!/usr/bin/env python3
"""Clients to try a broker with: each sends numbered tasks, one at a time, and prints every reply.

A client is a plain REQ socket: send a task, wait for its reply. An empty reply means that the broker has given the
task up. Here a number of them share one thread and one poller.
"""

import argparse
import os
import resource
import select
import signal
import socket
import sys
from collections import Counter
from contextlib import suppress
from math import ceil
from time import monotonic
from typing import NoReturn

if sys.version_info < (3, 10):  # noqa: UP036 (who has an older one is told so)
    sys.exit(f"testclient.py: Python 3.10 or newer is needed, and this is {sys.version_info[0]}.{sys.version_info[1]}")

try:
    import zmq
except ModuleNotFoundError:
    sys.exit(
        "testclient.py: pyzmq is not installed for this Python: "
        "python3 -m venv .venv && . .venv/bin/activate && pip install pyzmq"
    )

DEFAULT_CLIENTS = 1
DEFAULT_COUNT = 100
FIRST_TASKS_APART = 100  # client 0 begins with task 0, client 1 with task 100, ...
PATIENCE = 3.0  # seconds without any reply before saying so
PAUSE = 0.5  # seconds between losing the broker and sending again, should it hang up at every call
SOCKETS_EACH = 3  # of a client: its REQ socket and the two ends of its monitor
DESCRIPTORS_EACH = 5  # of a client: one for each socket, one for its connection, one to spare
SPARE = 64  # sockets and descriptors for everything else
PROBE_MS = 1000  # for the answer to a socket of another kind
LAST_PORT = 65535
WELCOME = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)  # events of a connection
LOST = int(zmq.EVENT_DISCONNECTED)
SHOWN = 60  # bytes of a reply that are printed
INTERRUPTED = 128  # added to the number of the signal, as shells do

ANSWERED = "answered"
FAILURES = "failures"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help is not lost."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        complain(f"{self.prog}: {message} (see {self.prog} --help)")
        sys.exit(2)

    def print_help(self, file: object = None) -> None:
        """Print what --help prints."""
        say(self.format_help().rstrip())


def fill_closed_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, or ZeroMQ's descriptors would take their numbers.

    It can only be read, so that writing there is still an error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest number that is free


def say(text: str, to: int = 1) -> None:
    """Print a line on stdout, or on descriptor `to`, all of it or with an OSError, also where that does not block."""
    rest = text.encode(errors="backslashreplace") + b"\n"
    while rest:
        try:
            rest = rest[os.write(to, rest) :]
        except BlockingIOError:
            select.select([], [to], [])


def complain(text: str) -> None:
    """Print a line on stderr, if there is one."""
    with suppress(OSError):
        say(text, to=2)


def positive(text: str) -> int:
    """Parse a whole number from 1 up."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return value


def catch_signals() -> socket.socket:
    """Return a socket on which the number of a signal arrives, SIGINT, SIGTERM or SIGHUP, for the poller to watch."""
    woken, wake_up = socket.socketpair()
    wake_up.setblocking(False)
    signal.set_wakeup_fd(wake_up.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda *_: None)
    return woken


def check_address(address: str) -> None:
    """Raise ValueError for what ZeroMQ would take, and reach nobody by: inproc://, or a port above the last."""
    port = address.rpartition(":")[2]
    is_port = port.isdecimal() and 0 < int(port) <= LAST_PORT
    if address.startswith("inproc://") or (address.startswith("tcp://") and not is_port):
        raise ValueError


def make_context(clients: int) -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context with room for so many clients, as far as the system allows."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, min(clients * SOCKETS_EACH + SPARE, context.get(zmq.SOCKET_LIMIT)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients * DESCRIPTORS_EACH + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
    return context


class Client:
    """A REQ socket with tasks of its own; the next one is sent when the last one has its reply.

    A broker that was restarted does not know what it was sent before, and a REQ socket would wait for ever. So the
    socket has a monitor, a second socket that tells when it is welcome, and when the connection is lost.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, address: str, number: int, count: int
    ) -> None:
        first = FIRST_TASKS_APART * number
        self.name = f"Client {number}"
        self.task = first  # whose reply is awaited
        self.finished = False  # all have theirs
        self.was_welcome = False  # where it is connected to
        self._last = first + count - 1
        self._context, self._poller, self._address = context, poller, address
        self.open()

    def open(self) -> None:
        """Connect, whether or not a broker listens there yet, and send the task."""
        self.socket = self._context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.ipv6 = self._address.startswith("tcp://[")
        self.monitor = self.socket.get_monitor_socket(WELCOME | LOST)
        try:
            check_address(self._address)
            self.socket.connect(self._address)
        except (zmq.ZMQError, ValueError):
            text = f"{self._address!r} is no address to connect to; one looks like tcp://localhost:4161"
            raise ValueError(text) from None
        self._poller.register(self.socket, zmq.POLLIN)
        self._poller.register(self.monitor, zmq.POLLIN)
        self._send()

    def close(self) -> None:
        """Close the two sockets; a monitored socket must lose its monitor first."""
        self._poller.unregister(self.socket)
        self._poller.unregister(self.monitor)
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close()

    def is_lost(self) -> bool:
        """Take in what the monitor tells; True when that is that the connection is lost."""
        event = event_of(self.monitor)
        self.was_welcome |= event == WELCOME
        return event == LOST

    def receive(self) -> str:
        """Print the reply, send the next task if there is one, and return ANSWERED or FAILURES."""
        reply = b"".join(self.socket.recv_multipart())
        say(f"{self.name}: {self.task} -> {show(reply) if reply else 'failure'}")
        if self.task == self._last:
            self.finished = True
            self.close()
        else:
            self.task += 1
            self._send()
        return ANSWERED if reply else FAILURES

    def _send(self) -> None:
        self.socket.send(str(self.task).encode())


def event_of(monitor: zmq.Socket[bytes]) -> int:
    """Return the next event of a connection."""
    return int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)


def refuse_results(context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
    """Raise ValueError where a PUSH socket is welcome: ZeroMQ hangs up there on clients, without a word."""
    probe = context.socket(zmq.PUSH)
    monitor = probe.get_monitor_socket(WELCOME | LOST)
    probe.ipv6 = address.startswith("tcp://[")
    probe.connect(address)
    is_welcome = monitor.poll(PROBE_MS) and event_of(monitor) == WELCOME
    probe.disable_monitor()
    monitor.close(linger=0)
    probe.close(linger=0)
    if is_welcome:
        right = "a client belongs to the one for clients (REQUESTS)"
        raise ValueError(f"{address} is the wrong address: it is one for results (RESULTS); {right}")


def show(reply: bytes) -> str:
    """Return the head of a reply as text that any terminal can print."""
    return repr(reply[:SHOWN])[2:-1] + ("..." if len(reply) > SHOWN else "")


def converse(
    context: zmq.Context[zmq.Socket[bytes]],
    clients: list[Client],
    poller: zmq.Poller,
    woken: socket.socket,
    address: str,
    counts: Counter[str],
) -> int:
    """Go on until every task has its reply, and count the replies; return 0, or the number of the signal that came.

    Raises ValueError when the address is certainly a wrong one.
    """
    poller.register(woken, zmq.POLLIN)
    complain_at = monotonic() + PATIENCE
    while active := [client for client in clients if not client.finished]:
        readable = dict(poller.poll(ceil(1000 * max(0.0, complain_at - monotonic()))))
        for client in active:
            if client.socket in readable:
                counts[client.receive()] += 1
                complain_at = monotonic() + PATIENCE
        if woken.fileno() in readable:
            return woken.recv(1)[0]
        told = [client for client in active if not client.finished and client.monitor in readable]
        lost = [client for client in told if client.is_lost()]
        if not all(client.was_welcome for client in lost):
            refuse_results(context, address)
        if lost:
            send_again(lost, woken)
        if monotonic() >= complain_at:
            complain(f"no reply yet from {address}: is the broker running, and a worker?")
            complain_at = monotonic() + PATIENCE
    return 0


def send_again(lost: list[Client], woken: socket.socket) -> None:
    """Send the tasks of these clients again on new sockets, after a pause that a signal ends."""
    for client in lost:
        complain(f"{client.name}: the connection was lost, sending {client.task} again")
        client.close()
    select.select([woken], [], [], PAUSE)
    for client in lost:
        client.open()


def print_totals(tasks: int, counts: Counter[str], seconds: float) -> None:
    """Print one line about all the tasks."""
    missing = tasks - counts.total()
    say(
        f"{tasks} tasks: {counts[ANSWERED]} answered, {counts[FAILURES]} failures"
        + (f", {missing} without a reply" if missing else "")
        + f", in {seconds:.2f} seconds"
    )


def parse_options() -> tuple[Parser, argparse.Namespace]:
    """Return the options of the command line, and their parser."""
    parser = Parser(
        allow_abbrev=False,
        description="Send numbered tasks to a broker, one at a time from each client, and print every reply.",
        epilog="Exit status: 0 when every task has its reply, even if that is a failure; 2 for bad options, "
        "or output that cannot be written; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 141 when nobody "
        "reads the output any more.",
    )
    add = parser.add_argument
    help_clients = "clients at once (default: %(default)s)"
    help_count = f"tasks of each client, client K beginning with {FIRST_TASKS_APART} * K (default: %(default)s)"
    add("-n", "--clients", type=positive, default=DEFAULT_CLIENTS, metavar="CLIENTS", help=help_clients)
    add("-c", "--count", type=positive, default=DEFAULT_COUNT, metavar="COUNT", help=help_count)
    add("requests", metavar="REQUESTS", help="the broker's address for clients: tcp://localhost:4161")
    return parser, parser.parse_args()


def main() -> int:
    """Run the clients; return the exit status."""
    parser, options = parse_options()
    woken = catch_signals()
    context = make_context(options.clients)
    poller = zmq.Poller()
    counts: Counter[str] = Counter()
    started = monotonic()
    try:
        numbers = range(options.clients)
        clients = [Client(context, poller, options.requests, number, options.count) for number in numbers]
    except zmq.ZMQError as error:  # no more sockets
        context.destroy(linger=0)
        parser.error(f"cannot make {options.clients} clients: {error}")
    except ValueError as error:
        context.destroy(linger=0)
        parser.error(str(error))
    try:
        ended_by = converse(context, clients, poller, woken, options.requests, counts)
        print_totals(options.clients * options.count, counts, monotonic() - started)
    except ValueError as error:
        parser.error(str(error))
    finally:
        context.destroy(linger=0)
    return INTERRUPTED + ended_by if ended_by else 0


if __name__ == "__main__":
    fill_closed_streams()
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read our output has left
        sys.exit(INTERRUPTED + signal.SIGPIPE)
    except OSError as error:
        complain(f"testclient.py: {error.strerror}")
        sys.exit(2)
