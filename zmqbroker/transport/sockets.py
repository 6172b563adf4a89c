"""Opening, binding and connecting sockets.

Binding says in words what goes wrong, and leaves alone what someone else uses.
"""

import errno
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any, NamedTuple

import zmq

from zmqbroker.transport.messages import EVENTS, READABLE

LINGER_MS = 2000  # what closing waits, at most, for the last messages to be sent
HEARTBEATS = 3  # sent in the time after which a silent peer is cut off
LAST_PORT = 65535
RING = b"\0"  # signals ring with their number
MOST_KEEP_ALIVE = (32767, 32767, 127)  # tcp(7): seconds, seconds, probes
MOST_MS = 2**31 - 1
LONGEST_HEARTBEAT = 6553.0  # seconds; ZMTP tells them to the peer in tenths, in 16 bits
BACKLOG = 4096  # connections that may wait to be accepted, after a restart say
LARGEST_FRAME_FACTOR = 4  # a frame this many times the largest task cuts its sender off, see PROTOCOL.md
LARGEST_FRAME_LEAST = 64 << 20  # bytes; nobody is cut off below this

NO_TRANSPORT = "no such transport here; use tcp://, ipc:// or inproc://"
WHAT_TO_DO = {
    errno.EADDRINUSE: "something else listens there; stop it or choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address; use tcp://*:PORT to listen on all it has",
    errno.ENODEV: "this machine has no such interface or name; use tcp://*:PORT to listen on all it has",
    errno.EINVAL: "that is no address; it looks like tcp://*:4161, tcp://127.0.0.1:*, ipc:///tmp/tasks or inproc://tasks",
    errno.EPROTONOSUPPORT: NO_TRANSPORT,
    errno.EAFNOSUPPORT: NO_TRANSPORT,
    errno.EAGAIN: NO_TRANSPORT,  # what libzmq says of tipc:// on a system without it
    zmq.ENOCOMPATPROTO: "that transport cannot carry tasks; use tcp://, ipc:// or inproc://",
    errno.EACCES: "permission denied; choose a port above 1023, or a directory you may write to",
    errno.ENOENT: "its directory does not exist; create it first",
    errno.ENAMETOOLONG: "the path is too long for an ipc address; choose a shorter one",
}


class KeepAlive(NamedTuple):
    """When TCP takes a connection for dead."""

    idle: int = 60  # seconds without traffic before the first probe; 0: no probes
    interval: int = 10  # seconds between probes
    probes: int = 6  # without an answer

    def check(self) -> None:
        """Raise ValueError for what the system would not take: it would turn away every connection for that."""
        for name, value, most in zip(self._fields, self, MOST_KEEP_ALIVE, strict=True):
            least = 0 if name == "idle" or not self.idle else 1
            if not least <= value <= most:
                raise ValueError(f"{name} of keep_alive must be {least} to {most}, not {value}")

    @property
    def patience_ms(self) -> int:
        """How long a peer is silent before it is taken for dead; 0: for ever."""
        return 1000 * (self.idle + self.interval * self.probes) if self.idle else 0


class SocketOptions(NamedTuple):
    """What the broker's three sockets have in common."""

    max_size: int  # bytes of the largest task; 0: no limit
    keep_alive: KeepAlive
    heartbeat: float  # seconds of silence after which a worker is cut off; 0: it is not


def open_socket(context: zmq.Context[Any], kind: int, options: SocketOptions, unread: int = 0) -> zmq.Socket[bytes]:
    """Make a socket for clients, which may leave so many messages `unread`, or (0) for workers, which read all."""
    may_refuse = unread > 0
    opened: zmq.Socket[bytes] = context.socket(kind)
    opened.linger = LINGER_MS
    opened.sndhwm = unread
    opened.backlog = BACKLOG
    if kind == zmq.ROUTER:
        opened.router_mandatory = True  # sending to a peer that is gone fails, see zmq_setsockopt(3)
        opened.router_handover = True  # a restarted peer with an identity of its own is heard again
    set_keep_alive(opened, options.keep_alive, may_refuse=may_refuse)
    if options.heartbeat and not may_refuse:  # whoever does not read answers no heartbeats either
        opened.heartbeat_timeout = ceil(options.heartbeat * 1000)
        opened.heartbeat_ivl = ceil(options.heartbeat * 1000 / HEARTBEATS)
        opened.heartbeat_ttl = max(ceil(options.heartbeat * 1000), 100)  # after which the worker hangs up as well
    if options.max_size:
        opened.maxmsgsize = min(max(LARGEST_FRAME_FACTOR * options.max_size, LARGEST_FRAME_LEAST), 2**63 - 1)
    return opened


def set_keep_alive(opened: zmq.Socket[Any], keep_alive: KeepAlive, *, may_refuse: bool) -> None:
    """Let TCP notice a peer whose host has died or was cut off.

    It sends no probes while it has data to send again, for which it has a limit of its own: about a quarter of an
    hour. A shorter one is set too, but it would also cut off a peer that lives and takes nothing for so long: so not
    where one `may_refuse` to, as clients do that do not read, and brokers whose queue is full.
    """
    if keep_alive.idle:
        opened.tcp_keepalive = 1
        opened.tcp_keepalive_idle = keep_alive.idle
        opened.tcp_keepalive_intvl = keep_alive.interval
        opened.tcp_keepalive_cnt = keep_alive.probes
        if not may_refuse:
            opened.tcp_maxrt = min(keep_alive.patience_ms, MOST_MS)


def bind(opened: zmq.Socket[Any], address: str) -> str:
    """Bind to `address` and return the address really bound, wildcards resolved.

    Raises ValueError, with what to do about it, for an address that cannot be bound.
    """
    if address.startswith("ipc://"):
        _leave_others_alone(address)
    if address.startswith("tcp://"):
        _, _, port = address.rpartition(":")
        if port != "*" and not (
            port.isascii() and port.isdecimal() and int(port) <= LAST_PORT
        ):  # libzmq would take 70000 for 4464
            raise ValueError(f"cannot listen on {address}: {WHAT_TO_DO[errno.EINVAL]}")
        opened.ipv6 = "[" in address  # tcp://[::]:PORT listens on IPv4 as well, tcp://*:PORT on IPv4 only
    try:
        opened.bind(address)
    except zmq.ZMQError as error:
        hint = WHAT_TO_DO.get(error.errno or 0, error.strerror)
        raise ValueError(f"cannot listen on {address}: {hint}") from None
    bound = opened.get_string(zmq.LAST_ENDPOINT)
    return "ipc://" + os.path.abspath(bound.removeprefix("ipc://")) if address == "ipc://*" else bound


def _leave_others_alone(address: str) -> None:
    """Refuse an ipc path that a live process listens on, or that is no socket: libzmq would silently take it over."""
    path = address.removeprefix("ipc://")
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return  # nothing there: a wildcard, an abstract name, a new path, or one that bind will refuse
    if not is_socket:
        raise ValueError(f"cannot listen on {address}: a file that is not a socket is there; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return  # stale: whoever listened there is gone
        raise ValueError(f"cannot listen on {address}: {WHAT_TO_DO[errno.EADDRINUSE]}")


@contextmanager
def ctrl_c_calls(stop: Callable[[], None], times: int) -> Iterator[None]:
    """Have Ctrl-C call `stop` so often, and raise KeyboardInterrupt at the end of the `with` block.

    Only where it would raise it anywhere: in the main thread of a program that handles it in no other way.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        for _ in range(times):
            stop()

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:
        raise KeyboardInterrupt


class Connection:
    """A connected socket, and a monitor that becomes readable when the connection is lost.

    ZeroMQ connects again by itself but sends nothing again, so whoever waits for an answer opens a new one then.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        kind: int,
        address: str,
        keep_alive: KeepAlive,
        *,
        may_refuse: bool = False,
        unsent: int = 0,
    ) -> None:
        """Connect, whether or not somebody listens there yet, as `connect` does.

        Up to `unsent` messages are kept that cannot be sent yet; 0: however many.
        """
        self.socket: zmq.Socket[bytes] = context.socket(kind)
        self.socket.sndhwm = unsent
        self.socket.rcvhwm = 0  # nothing comes that was not asked for, and who stops reading may be taken for dead
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            connect(self.socket, address, keep_alive, may_refuse=may_refuse)
        except ValueError:
            self.close()
            raise
        self.descriptor: Any = self.socket.fileno()  # readable when there may be something, see ZMQ_FD

    def is_lost(self) -> bool:
        """Tell whether the connection was lost since."""
        return bool(self.monitor.get(EVENTS) & READABLE)  # type: ignore[operator]

    def close(self) -> None:
        """Close at once; what was not sent yet is dropped."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)


def connect(opened: zmq.Socket[Any], address: str, keep_alive: KeepAlive, *, may_refuse: bool) -> None:
    """Connect a socket, and notice a peer whose host has died; raise ValueError for what is no address.

    `may_refuse` tells whether the peer may take nothing for minutes and yet be alive.
    """
    opened.ipv6 = "[" in address
    keep_alive.check()
    set_keep_alive(opened, keep_alive, may_refuse=may_refuse)
    try:
        opened.connect(address)
    except (zmq.ZMQError, UnicodeError):
        example = "one looks like tcp://localhost:4161 or ipc:///tmp/tasks"
        raise ValueError(f"{address!r} is no address to connect to; {example}") from None


class Alarm:
    """A file descriptor that wakes a poll, from any thread or signal handler."""

    def __init__(self) -> None:
        self._heard, self._ring = socket.socketpair()
        self._heard.setblocking(False)
        self._ring.setblocking(False)

    def fileno(self) -> int:
        """Return what is readable after a ring."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Wake the poll."""
        with suppress(OSError):  # full: it was rung often enough; closed: nobody polls any more
            self._ring.send(RING)

    def hear(self) -> int:
        """Return how often it was rung since; signals do not count."""
        try:
            return self._heard.recv(4096).count(RING)
        except BlockingIOError:
            return 0

    def wait(self, most_ms: int) -> None:
        """Wait for a ring, for so many milliseconds at most."""
        zmq.zmq_poll([(self.fileno(), zmq.POLLIN)], most_ms)  # select(2) takes no descriptor above 1023

    @contextmanager
    def rung_by_signals(self) -> Iterator[None]:
        """Let signals ring, in the main thread: pyzmq would go on polling after a signal's handler (PEP 475)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close both ends."""
        self._heard.close()
        self._ring.close()
