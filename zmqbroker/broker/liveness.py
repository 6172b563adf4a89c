"""Which worker is at the other end of which connection, and whose connection has dropped.

A monitor event names a connection by its file descriptor, and so does a message that came by it (ZMQ_SRCFD, see
zmq_msg_get(3)); joining the two tells which worker is gone, milliseconds after it died. Descriptors are used again, so
the order of things matters: libzmq reports that a connection has dropped before it closes its descriptor, so before
anything can come by a new one with the same descriptor. Whoever has *received* a message therefore asks `lost` before
`note`.

This hastens what a deadline or a failed send would find out anyway, and forgets workers that nothing else would: those
that left before their first message was read are gone when it is, as the monitor tells which descriptors are open.
Messages of several connections are not read in the order in which these came, so one of an earlier connection may be
read when a later one with its descriptor has been heard already: the routing ids that ZeroMQ gives tell which it is.
"""

import os
import socket
from collections.abc import Iterator, Sized
from typing import Any

import zmq

from zmqbroker.broker.handshakes import Handshakes

SOURCE = int(zmq.SRCFD)


class Connections:
    """The workers' connections to one socket, as far as messages came by them."""

    def __init__(self, context: zmq.Context[Any], watched: zmq.Socket[Any]) -> None:
        self.handshakes = Handshakes(context, watched)
        self.monitor = self.handshakes.monitor
        self._worker_at: dict[int, Sized] = {}  # by file descriptor
        self._descriptors: dict[Sized, int] = {}  # the reverse
        self.known: set[Sized] = set()  # workers whose connection is noted, and that can have no other one

    def __len__(self) -> int:
        return len(self._worker_at)

    def has_left(self, worker: Any, frame: zmq.Frame) -> bool:
        """Tell whether the connection by which a worker's message came is no more; to be asked after `lost`."""
        try:
            descriptor: int = frame.get(SOURCE)
        except zmq.ZMQError:  # inproc: there is none
            return False
        return descriptor not in self.handshakes.open or _is_later(self._worker_at.get(descriptor), worker)

    def note(self, worker: Any, frame: zmq.Frame) -> Iterator[Sized]:
        """Note by which connection a worker's message came; yield whose earlier connection is gone, as that tells."""
        try:
            descriptor: int = frame.get(SOURCE)
        except zmq.ZMQError:  # inproc: there is none
            return
        before = self._worker_at.get(descriptor)
        if before == worker:
            return
        if before is not None:
            self._forget(before)
            yield before
        old_descriptor = self._descriptors.get(worker)
        if old_descriptor is not None:
            del self._worker_at[old_descriptor]
            yield worker
        self._worker_at[descriptor] = worker
        self._descriptors[worker] = descriptor
        if worker[0] == 0:  # zmq_setsockopt(3): it did not choose its routing id
            self.known.add(worker)

    def lost(self) -> Iterator[Sized]:
        """Yield the workers whose connections were reported to have dropped since."""
        for descriptor in self.handshakes.ended():
            worker = self._worker_at.pop(descriptor, None)
            if worker is not None:
                self._forget(worker)
                yield worker

    def _forget(self, worker: Sized) -> None:
        del self._descriptors[worker]
        self.known.discard(worker)

    def address_of(self, worker: Sized) -> str:
        """Return where a worker's connection comes from, `HOST:PORT`; empty where that is not known."""
        descriptor = self._descriptors.get(worker)
        if descriptor is None:
            return ""
        try:
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                name = connection.getpeername()
        except OSError:  # it has just ended, or there are no descriptors
            return ""
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "ipc"

    def close(self) -> None:
        """Stop watching."""
        self.handshakes.close()


def _is_later(one: Any, other: Any) -> bool:
    """Tell whether a connection came later than another one, as far as routing ids tell.

    ZeroMQ numbers them: a 0 and then 32 bits, one more for each connection of the socket (router_t::identify_peer in
    libzmq's router.cpp).
    """
    if one is None or one[0] or other[0]:
        return False
    ahead = int.from_bytes(one[1:], "big") - int.from_bytes(other[1:], "big")
    return 0 < ahead % 2**32 < 2**31
