"""Connecting, and noticing that the connection was lost."""

from typing import Any

import zmq

from zmqbroker.transport.keep_alive import KeepAlive, set_keep_alive
from zmqbroker.transport.messages import EVENTS, READABLE


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
