"""Connections to one of the broker's sockets, and those among them that end before the peer has said what it is.

Such a peer is a socket of a kind that does not belong there, on which ZeroMQ hangs up without a word, or no ZeroMQ at
all, as a scan of ports is. ZeroMQ tells of a connection by its file descriptor when it comes and when it ends, but not
when its handshake is over: that is only counted. So when several are at it at the same time, one that fails may go
unnoticed; a good one is never taken for a bad one.

Only who comes or goes costs anything here, and no message does.
"""

from collections.abc import Iterator
from typing import Any

import zmq

from zmqbroker.transport.messages import EVENTS, READABLE
from zmqbroker.transport.monitor import next_event, open_monitor

CAME = int(zmq.EVENT_ACCEPTED)
IS_WELCOME = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
ENDED = int(zmq.EVENT_DISCONNECTED)


class Handshakes:
    """Watches who comes to a socket, and who leaves it."""

    def __init__(self, context: zmq.Context[Any], watched: zmq.Socket[Any]) -> None:
        self.monitor = open_monitor(context, watched, CAME | IS_WELCOME | ENDED)
        self.monitor.get(EVENTS)  # its descriptor tells nothing before somebody has looked
        self._failed = 0  # connections that ended before their handshake was over, since somebody asked
        self.refused = 0  # of those whose handshake is not over, by whoever judges them, which is told by itself
        self.open: set[int] = set()  # the descriptors of the connections that there are, as far as `ended` was read
        self._watched = watched
        self._newcomers = Newcomers()

    def fileno(self) -> int:
        """Return what becomes readable when something has happened since all of `ended` was read."""
        return int(self.monitor.fileno())

    def ended(self) -> Iterator[int]:
        """Take in what is new, and yield the descriptors of the connections that have ended."""
        while int(self.monitor.get(EVENTS)) & READABLE and (event := next_event(self.monitor)) is not None:
            if event.number == CAME:
                self.open.add(event.value)
                self._newcomers.came(event.value)
            elif event.number == IS_WELCOME:
                self._newcomers.is_welcome()
            else:
                self.open.discard(event.value)
                self._failed += self._newcomers.left(event.value)
                yield event.value

    def failed(self) -> int:
        """Return how many connections have ended before their handshake was over, since this was asked.

        As many are left out as were `refused`.
        """
        left_out = min(self._failed, self.refused)
        failed, self._failed = self._failed - left_out, 0
        self.refused = min(self.refused - left_out, len(self._newcomers))
        return failed

    def close(self) -> None:
        """Stop watching."""
        self._watched.disable_monitor()
        self.monitor.close(linger=0)


class Newcomers:
    """The connections whose handshake may not be over yet."""

    def __init__(self) -> None:
        self._descriptors: set[int] = set()
        self._welcome = 0  # of these, but which is not known

    def __len__(self) -> int:
        return len(self._descriptors)

    def came(self, descriptor: int) -> None:
        """Note a new connection."""
        self._descriptors.add(descriptor)
        self._forget_if_all_are_welcome()

    def is_welcome(self) -> None:
        """Note that the handshake of one of them is over; with several I/O threads that may be told of first."""
        self._welcome += 1
        self._forget_if_all_are_welcome()

    def left(self, descriptor: int) -> bool:
        """Note that a connection has ended, and tell whether that was certainly before its handshake was over."""
        if descriptor not in self._descriptors:
            return False
        self._descriptors.remove(descriptor)
        has_failed = not self._welcome
        self._forget_if_all_are_welcome()
        return has_failed

    def _forget_if_all_are_welcome(self) -> None:
        if 0 < self._welcome == len(self._descriptors):
            self._descriptors.clear()
            self._welcome = 0
