"""Opening and binding the broker's sockets, and moving one message through them.

Binding says in words what goes wrong, and leaves alone what someone else uses. Receiving and sending take a
message frame by frame: the multipart calls of pyzmq take twice as long, and large frames are not to be copied.
"""

import errno
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from zmqbroker.wire import Frames

LARGE_FRAME = 65536  # bytes; from here on a frame is passed on without being copied
LINGER_MS = 2000  # what closing waits, at most, for the last messages to be sent
LAST_PORT = 65535
BACKLOG = 4096  # connections that may wait to be accepted, after a restart say
LARGEST_FRAME_FACTOR = 4  # a frame this many times the largest task cuts its sender off, see PROTOCOL.md
LARGEST_FRAME_LEAST = 64 << 20  # bytes; nobody is cut off below this

# Plain integers: the flag enumerations of pyzmq cost more than a small send.
NOBLOCK = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

WHAT_TO_DO = {
    errno.EADDRINUSE: "something else listens there; stop it or choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address; use tcp://*:PORT to listen on all it has",
    errno.ENODEV: "this machine has no such interface or name; use tcp://*:PORT to listen on all it has",
    errno.EINVAL: "that is no address; it looks like tcp://*:4161, tcp://127.0.0.1:*, ipc:///tmp/tasks or inproc://tasks",
    errno.EPROTONOSUPPORT: "no such transport here; use tcp://, ipc:// or inproc://",
    zmq.ENOCOMPATPROTO: "that transport cannot carry tasks; use tcp://, ipc:// or inproc://",
    errno.EACCES: "permission denied; choose a port above 1023, or a directory you may write to",
    errno.ENOENT: "its directory does not exist; create it first",
    errno.ENAMETOOLONG: "the path is too long for an ipc address; choose a shorter one",
}


def open_socket(context: zmq.Context[Any], kind: int, send_mark: int, max_size: int) -> zmq.Socket[bytes]:
    """Make a socket for many peers.

    `send_mark` limits the messages kept for one peer, `max_size` is the size of the largest task in bytes; 0: no limit.
    """
    opened: zmq.Socket[bytes] = context.socket(kind)
    opened.linger = LINGER_MS
    opened.sndhwm = send_mark
    opened.backlog = BACKLOG
    if kind == zmq.ROUTER:
        opened.router_mandatory = True  # sending to a peer that is gone fails, see zmq_setsockopt(3)
        opened.router_handover = True  # a restarted peer with an identity of its own is heard again
    if max_size:
        opened.maxmsgsize = max(LARGEST_FRAME_FACTOR * max_size, LARGEST_FRAME_LEAST)
    return opened


def bind(opened: zmq.Socket[Any], address: str) -> str:
    """Bind to `address` and return the address really bound, wildcards resolved.

    Raises ValueError, with what to do about it, for an address that cannot be bound.
    """
    if address.startswith("ipc://"):
        _leave_others_alone(address)
    if address.startswith("tcp://"):
        _, _, port = address.rpartition(":")
        if port != "*" and not (port.isdecimal() and int(port) <= LAST_PORT):  # libzmq would take 70000 for 4464
            raise ValueError(f"cannot listen on {address}: {WHAT_TO_DO[errno.EINVAL]}")
        opened.ipv6 = "[" in address  # tcp://[::]:PORT listens on IPv4 as well, tcp://*:PORT on IPv4 only
    try:
        opened.bind(address)
    except zmq.ZMQError as error:
        hint = WHAT_TO_DO.get(error.errno or 0, error.strerror)
        raise ValueError(f"cannot listen on {address}: {hint}") from None
    return opened.get_string(zmq.LAST_ENDPOINT)


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


def raise_descriptor_limit() -> None:
    """Allow this process as many connections as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Inbox:
    """A socket to read from, a batch of messages at a time.

    Finding a socket empty is dear: pyzmq raises an exception, which takes as long as reading several messages. So a
    batch has a size, which doubles when it was filled and falls to what was there when it was not.
    """

    def __init__(self, socket: zmq.Socket[bytes], largest_batch: int) -> None:
        self.is_empty = False  # as far as the last batch could tell
        self._socket = socket
        self._is_router = socket.type == zmq.ROUTER
        self._batch = 1
        self._largest_batch = largest_batch

    def batch(self, most: int) -> Iterator[Frames]:
        """Receive up to `most` messages; frames from LARGE_FRAME on are not copied."""
        receive: Callable[..., Any] = self._socket.recv
        is_router = self._is_router
        size = min(self._batch, most)
        self.is_empty = False
        for number in range(size):
            try:
                if is_router:  # a routing id comes first, and always more after it
                    message: Frames = [receive(NOBLOCK)]
                    frame = receive(NOBLOCK, False)
                else:
                    message = []
                    frame = receive(NOBLOCK, False)
            except zmq.Again:
                self._batch = number or 1
                self.is_empty = True
                return
            message.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
            while frame.more:
                frame = receive(NOBLOCK, False)
                message.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
            yield message
        if size == self._batch:
            self._batch = min(2 * size, self._largest_batch)


def send(to: zmq.Socket[bytes], message: Frames) -> bool:
    """Send a message; False when its addressee is gone or full. The verdict falls on the first frame."""
    send_frame: Callable[..., Any] = super(zmq.Socket, to).send  # all that zmq.Socket.send adds is for drafts
    last = message.pop()
    try:
        for frame in message:
            send_frame(frame, MORE)
        send_frame(last, NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return False
        raise
    return True
