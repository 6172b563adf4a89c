#!/usr/bin/env python3
"""A worker to try a broker with, and to learn from: it answers tasks, and drops a share of them.

A worker has two sockets. On a REQ socket it says that it is ready; the answer is a task: the id of this attempt at
it, and the task's body in one frame or more. On a PUSH socket it sends the id back, followed by the result. Then it
says that it is ready again. A task that a worker drops goes to another one when its timeout is over.
"""

import argparse
import os
import random
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

if sys.version_info < (3, 10):  # noqa: UP036 (who has an older one is told so)
    sys.exit(f"testworker.py: Python 3.10 or newer is needed, and this is {sys.version_info[0]}.{sys.version_info[1]}")

try:
    import zmq
except ModuleNotFoundError:
    sys.exit(
        "testworker.py: pyzmq is not installed for this Python: "
        "python3 -m venv .venv && . .venv/bin/activate && pip install pyzmq"
    )

LINGER_MS = 1000  # what ending waits, at most, for the last result to be sent
PAUSE = 0.5  # seconds between losing the broker and asking again, should it hang up at every call
LAST_PORT = 65535
SHOWN = 60  # bytes of a task that are printed
INTERRUPTED = 128  # added to the number of a signal, as shells do

Sockets = tuple[zmq.Socket[bytes], zmq.Socket[bytes]]


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


def rate(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def catch_signals() -> socket.socket:
    """Return a socket that becomes readable when SIGINT, SIGTERM or SIGHUP arrives, for the poller to watch.

    So a signal ends a wait, and nothing else: a task in hand is finished first.
    """
    woken, wake_up = socket.socketpair()
    wake_up.setblocking(False)
    signal.set_wakeup_fd(wake_up.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda *_: None)
    return woken


def open_ready(context: zmq.Context[zmq.Socket[bytes]], address: str) -> Sockets:
    """Return a REQ socket to ask for tasks with, and its monitor, which tells when the connection is lost."""
    ready = context.socket(zmq.REQ)
    ready.linger = 0
    monitor = ready.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    connect(ready, address)
    return ready, monitor


def check_address(address: str) -> None:
    """Raise ValueError for what ZeroMQ would take, and reach nobody by: inproc://, or a port above the last."""
    port = address.rpartition(":")[2]
    is_port = port.isdecimal() and 0 < int(port) <= LAST_PORT
    if address.startswith("inproc://") or (address.startswith("tcp://") and not is_port):
        raise ValueError


def connect(to: zmq.Socket[bytes], address: str) -> None:
    """Connect, whether or not somebody listens there yet; raise ValueError for what is no address."""
    to.ipv6 = address.startswith("tcp://[")
    try:
        check_address(address)
        to.connect(address)
    except (zmq.ZMQError, ValueError):
        raise ValueError(f"{address!r} is no address to connect to; one looks like tcp://localhost:4162") from None


def close_ready(ready: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
    """Close the two sockets; a monitored socket must lose its monitor first."""
    ready.disable_monitor()
    monitor.close(linger=0)
    ready.close()


def work(context: zmq.Context[zmq.Socket[bytes]], options: argparse.Namespace, woken: socket.socket) -> None:
    """Ask for tasks, and answer or drop them, until a signal comes."""
    results = context.socket(zmq.PUSH)
    results.linger = LINGER_MS
    results.sndhwm = 0  # no limit, so that sending never blocks
    connect(results, options.results)
    while True:
        ready, monitor = open_ready(context, options.ready)
        lost = process_tasks(ready, monitor, results, options.drop_rate, woken)
        close_ready(ready, monitor)
        if not lost:
            return
        # A broker that comes back knows nothing of us, and a REQ socket would wait for its answer for ever.
        say("The connection to the broker was lost: asking again")
        select.select([woken], [], [], PAUSE)


def process_tasks(
    ready: zmq.Socket[bytes],
    monitor: zmq.Socket[bytes],
    results: zmq.Socket[bytes],
    drop_rate: float,
    woken: socket.socket,
) -> bool:
    """Process one task after another. Return True when the connection is lost, False when a signal has come."""
    poller = zmq.Poller()
    for waited_for in (ready, monitor, woken):
        poller.register(waited_for, zmq.POLLIN)
    say("Asking for tasks")
    ready.send(b"ready")
    while True:
        readable = dict(poller.poll())
        if ready in readable:
            process(ready.recv_multipart(), results, drop_rate)
        if woken.fileno() in readable:
            return False
        if monitor in readable:
            return True
        ready.send(b"ready")


def process(message: list[bytes], results: zmq.Socket[bytes], drop_rate: float) -> None:
    """Answer one task, or drop it."""
    attempt_id, *body = message
    task = b"".join(body)
    if random.random() < drop_rate:
        say(f"Task {show(task)}: dropping it")
        return
    say(f"Task {show(task)}: answering it")
    results.send_multipart([attempt_id, b"-" + task])


def show(task: bytes) -> str:
    """Return the head of a task as text that any terminal can print."""
    return repr(task[:SHOWN])[2:-1] + ("..." if len(task) > SHOWN else "")


def main() -> int:
    """Run a worker; return its exit status."""
    parser = Parser(
        description="Answer the tasks of a broker with '-' and their text, and drop a share of them. "
        "Runs until Ctrl-C or SIGTERM, and goes on when the broker is restarted."
    )
    parser.add_argument("ready", metavar="READY", help="the broker's address for ready workers: tcp://localhost:4162")
    parser.add_argument("results", metavar="RESULTS", help="the broker's address for results: tcp://localhost:4163")
    parser.add_argument("drop_rate", metavar="DROP_RATE", type=rate, help="the share of tasks to drop, from 0 to 1")
    options = parser.parse_args()
    if options.ready == options.results:
        parser.error(f"{options.ready} is given twice; READY and RESULTS are two addresses")
    woken = catch_signals()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        work(context, options, woken)
    except ValueError as error:
        context.destroy(linger=0)
        parser.error(str(error))
    finally:
        context.destroy(linger=LINGER_MS)
    return 0


if __name__ == "__main__":
    fill_closed_streams()
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read our output has left
        sys.exit(INTERRUPTED + signal.SIGPIPE)
    except OSError as error:
        complain(f"testworker.py: {error.strerror}")
        sys.exit(2)
