"""Opening the broker's sockets and binding them.

Binding says in words what goes wrong, and leaves alone what someone else uses.
"""

import errno
import os
import socket
import stat
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import zmq

from zmqbroker.transport.addresses import LAST_PORT, TCP, Address, is_numeric
from zmqbroker.transport.inquiry import addresses_of, ask_within
from zmqbroker.transport.keep_alive import KeepAlive, set_keep_alive
from zmqbroker.transport.messages import LINGER_MS

HEARTBEATS = 3  # sent in the time after which a silent peer is cut off
LONGEST_HEARTBEAT = 6553.0  # seconds; ZMTP tells them to the peer in tenths, in 16 bits
UNREAD_ANSWERS = 10  # kept for who does not read them; further ones are dropped
UNREAD_QUESTIONS = 10  # kept for the broker, of each who asks
LAST_ANSWERS_MS = 200  # what the end waits, at most, for the last answers to be sent
BACKLOG = 4096  # connections that may wait to be accepted, after a restart say
LARGEST_FRAME_FACTOR = 4  # a frame this many times the largest task cuts its sender off, see PROTOCOL.md
LARGEST_QUESTION_FRAME = 2 << 20  # bytes; a larger one cuts its sender off, one below that is answered
LARGEST_FRAME_LEAST = 64 << 20  # bytes; nobody is cut off below this
NAME_PATIENCE = 5.0  # seconds for a name server to say which address a name has

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


def open_control(context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    """Make a socket for questions; who does not read the answers, or asks too much, is not waited for."""
    opened: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    opened.linger = LAST_ANSWERS_MS
    opened.backlog = BACKLOG
    opened.sndhwm = UNREAD_ANSWERS
    opened.rcvhwm = UNREAD_QUESTIONS
    opened.router_mandatory = True
    opened.maxmsgsize = LARGEST_QUESTION_FRAME
    return opened


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
        _refuse_silence(address)
        opened.ipv6 = "[" in address  # tcp://[::]:PORT listens on IPv4 as well, tcp://*:PORT on IPv4 only
    try:
        _bind_name(opened, address)
    except zmq.ZMQError as error:
        hint = WHAT_TO_DO.get(error.errno or 0, error.strerror)
        raise ValueError(f"cannot listen on {address}: {hint}") from None
    bound = opened.get_string(zmq.LAST_ENDPOINT)
    return "ipc://" + os.path.abspath(bound.removeprefix("ipc://")) if address == "ipc://*" else bound


def _bind_name(opened: zmq.Socket[Any], address: str) -> None:
    """Bind, by IPv6 too where the address has a name that has nothing else."""
    try:
        opened.bind(address)
    except zmq.ZMQError as error:
        if error.errno != errno.ENODEV or opened.ipv6:
            raise
        opened.ipv6 = True
        opened.bind(address)


def _refuse_silence(address: str) -> None:
    """Raise ValueError where a name server is silent: libzmq would wait for it for minutes, and heed no signal."""
    host = address.removeprefix(TCP).rpartition(":")[0].strip("[]")
    if host in ("", "*") or is_numeric(host) or host in (name for _, name in socket.if_nameindex()):
        return
    if ask_within(partial(addresses_of, Address(address, TCP, host)), NAME_PATIENCE) is None:
        raise ValueError(
            f"cannot listen on {address}: its name server is silent; use tcp://*:PORT, or a number as tcp://127.0.0.1:PORT"
        )


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
