#!/usr/bin/env python3
"""A worker to try a broker with, and to learn from: it answers tasks, and drops a share of them.

A worker has two sockets. On a REQ socket it says that it is ready; the answer is a task: the id of this attempt at
it, and the task's body in one frame or more. On a PUSH socket it sends the id back, followed by the result. Then it
says that it is ready again. A task that a worker drops goes to another one when its timeout is over.

It asks for nothing before the broker has taken both sockets: results that have nowhere to go would be lost.
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
LONGEST_PAUSE = 5.0  # seconds between two tries to connect to who hangs up at once
PATIENCE_MS = 3000  # without an answer before saying so
PROBE_MS = 1000  # for the answer to a socket of another kind
LAST_PORT = 65535
WELCOME = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)  # events of a connection
LOST = int(zmq.EVENT_DISCONNECTED)
SHOWN = 60  # bytes of a task that are printed
INTERRUPTED = 128  # added to the number of a signal, as shells do

Context = zmq.Context[zmq.Socket[bytes]]
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


def open_watched(context: Context, kind: int, address: str) -> Sockets:
    """Return a socket, and its monitor, which tells when it is welcome and when the connection is lost."""
    opened = context.socket(kind)
    opened.linger = 0
    if kind == zmq.PUSH:
        opened.sndhwm = 0  # no limit, so that sending never blocks
    monitor = opened.get_monitor_socket(WELCOME | LOST)
    connect(opened, address)
    return opened, monitor


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


def close_watched(opened: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
    """Close the two sockets; a monitored socket must lose its monitor first."""
    opened.disable_monitor()
    monitor.close(linger=0)
    opened.close()


def wait_for_event(monitor: zmq.Socket[bytes], woken: socket.socket, wait_ms: int) -> int:
    """Return the next event of a connection; 0 when none has come in time, or a signal has."""
    poller = zmq.Poller()
    for waited_for in (monitor, woken):
        poller.register(waited_for, zmq.POLLIN)
    if monitor not in dict(poller.poll(wait_ms)):
        return 0
    return int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)


def meet(context: Context, sockets: Sockets, address: str, woken: socket.socket) -> Sockets | None:
    """Wait until whoever listens has taken a socket, and return it with its monitor; None when a signal has come.

    ZeroMQ hangs up on a socket of a kind that does not go with the one that listens, and does not connect again. It may
    also be a broker that ends at that moment, so we do. Raises ValueError when it was certainly the kind.
    """
    kind, pause = int(sockets[0].get(zmq.TYPE)), PAUSE
    while True:
        opened, monitor = sockets
        while not (event := wait_for_event(monitor, woken, PATIENCE_MS)) and not has_signal(woken):
            complain(f"no answer yet from {address}: is the broker running?")
        if event == WELCOME:
            return sockets
        close_watched(opened, monitor)
        if event:
            refuse_wrong(context, kind, address, woken)
        if has_signal(woken, pause):
            return None
        pause = min(2 * pause, LONGEST_PAUSE)
        sockets = open_watched(context, kind, address)


def refuse_wrong(context: Context, kind: int, address: str, woken: socket.socket) -> None:
    """Raise ValueError, saying what belongs there, where the other kind of a worker's sockets is welcome."""
    other = zmq.PUSH if kind == zmq.REQ else zmq.REQ
    opened, monitor = open_watched(context, other, address)
    is_welcome = wait_for_event(monitor, woken, PROBE_MS) == WELCOME
    close_watched(opened, monitor)
    if is_welcome:
        results, asking = "the one for results (RESULTS)", "the one for workers (READY)"
        why = f"it is {results}, READY is {asking}" if kind == zmq.REQ else f"it is not {results}, but takes questions"
        raise ValueError(f"{address} is the wrong address: {why}")


def has_signal(woken: socket.socket, wait: float = 0) -> bool:
    """Tell whether a signal has come, or comes within so many seconds."""
    return bool(select.select([woken], [], [], wait)[0])


def work(context: Context, options: argparse.Namespace, woken: socket.socket) -> None:
    """Ask for tasks, and answer or drop them, until a signal comes."""
    answering = open_watched(context, zmq.PUSH, options.results)
    asking = open_watched(context, zmq.REQ, options.ready)
    say("Asking for tasks")
    met = meet(context, answering, options.results, woken)
    if met is None:
        return
    results, monitor = met
    results.disable_monitor()  # ZeroMQ connects it again by itself from now on
    monitor.close(linger=0)
    results.linger = LINGER_MS
    while (met := meet(context, asking, options.ready, woken)) is not None:
        lost = process_tasks(*met, results, options.drop_rate, woken)
        close_watched(*met)
        if not lost:
            return
        # A broker that comes back knows nothing of us, and a REQ socket would wait for its answer for ever.
        say("The connection to the broker was lost: asking again")
        has_signal(woken, PAUSE)
        asking = open_watched(context, zmq.REQ, options.ready)
        say("Asking for tasks")


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
        allow_abbrev=False,
        description="Answer the tasks of a broker with '-' and their text, and drop a share of them. "
        "Runs until Ctrl-C or SIGTERM, and goes on when the broker is restarted.",
    )
    parser.add_argument("ready", metavar="READY", help="the broker's address for ready workers: tcp://localhost:4162")
    parser.add_argument("results", metavar="RESULTS", help="the broker's address for results: tcp://localhost:4163")
    parser.add_argument("drop_rate", metavar="DROP_RATE", type=rate, help="the share of tasks to drop, from 0 to 1")
    options = parser.parse_args()
    if options.ready == options.results:
        parser.error(f"{options.ready} is given twice; READY and RESULTS are two addresses")
    woken = catch_signals()
    context: Context = zmq.Context()
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
