"""What ZeroMQ tells of a socket's connections: an event for each change, on a socket of its own."""

import itertools
import struct
from typing import Any, NamedTuple

import zmq

from zmqbroker.transport.messages import NOBLOCK

EVENT = struct.Struct("=Hi")  # zmq_socket_monitor(3): the event's number, its value: of many a file descriptor


class Event(NamedTuple):
    """A change in a connection."""

    number: int
    value: int
    address: str  # that was connected to, or our own, that somebody has connected to


_next_number = itertools.count().__next__


def open_monitor(context: zmq.Context[Any], watched: zmq.Socket[Any], events: int) -> zmq.Socket[bytes]:
    """Return a socket on which these events of another one arrive; `disable_monitor` of that ends it."""
    address = f"inproc://zmqbroker-monitor-{id(watched)}-{_next_number()}"
    watched.monitor(address, events)
    monitor: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    monitor.rcvhwm = 0  # a monitor that is full blocks libzmq's I/O thread
    monitor.connect(address)
    return monitor


def next_event(monitor: zmq.Socket[bytes]) -> Event | None:
    """Return the next event; None when there is none."""
    try:
        change = monitor.recv(NOBLOCK)
        address = monitor.recv(NOBLOCK)
    except zmq.Again:
        return None
    number, value = EVENT.unpack(change)
    return Event(number, value, address.decode(errors="replace"))
