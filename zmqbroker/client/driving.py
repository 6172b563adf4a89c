"""A call that drives the link's socket from its own thread, which saves waking two.

It may do so while no other task is without its reply: then the background thread leaves the socket alone. The call
holds the lock while it touches the socket, but waits without it, on file descriptors: so the background thread can take
over then. It does so as soon as there is anything else to do, and rings the bell that the call has.

When a signal handler raises an exception in the middle of a message, the connection is in doubt, and is replaced as if
it were lost.
"""

from contextlib import suppress
from math import ceil
from time import monotonic

import zmq

from zmqbroker.client.request import Request
from zmqbroker.client.shared import Shared
from zmqbroker.transport import threads
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.messages import EVENTS, NOBLOCK, READABLE, send
from zmqbroker.wire import Frames

LONGEST_WAIT_MS = 100  # a signal that comes just before a poll has begun is handled when that ends


class Driving:
    """Lends the socket to calls, one after the other: each starts, sends its task, drives, and stops."""

    def __init__(self, shared: Shared) -> None:
        """Be ready for the first; raises OSError without descriptors."""
        self._shared = shared
        self._spare_bell: Alarm | None = Alarm()  # for the next call; None: another call has it yet

    def close(self) -> None:
        """Let go of what no call has."""
        with self._shared.lock:
            if self._spare_bell is not None:
                self._spare_bell.close()

    # With the lock held

    def start(self) -> Alarm | None:
        """Return the bell that rings when the background thread has taken over; None when it is that thread's turn."""
        shared = self._shared
        if not shared.asleep or shared.is_watching or shared.session or shared.in_doubt:
            return None
        shared.take_over()  # from a call that has its reply, and has not stopped yet
        if self._spare_bell is None:
            with suppress(OSError):  # no descriptor is left
                self._spare_bell = Alarm()
        shared.bell, self._spare_bell = self._spare_bell, None
        return shared.bell

    def send(self, request: Request) -> None:
        """Send a task, or have the background thread do it when it cannot be sent now."""
        shared, now = self._shared, monotonic()
        if request.has_expired(now):
            shared.enqueue(request)
            return
        shared.in_doubt = True
        shared.session.expect(request)
        with suppress(zmq.ZMQError):  # as the connection is in doubt then, the background thread gets it as well
            is_sent = shared.connection.can_send and send(shared.connection.socket, request.message(now))
            shared.in_doubt = False
            if is_sent:
                return
        request.sent = 0
        shared.enqueue(request)

    def _receive(self) -> Frames | None:
        """Receive a message; None when there is none.

        Its frames are copied: were they frames of pyzmq, the end of each would swallow what a signal handler raises.
        """
        shared = self._shared
        message: Frames | None = None
        shared.in_doubt = True
        with suppress(zmq.ZMQError):  # as above
            if int(shared.connection.socket.get(EVENTS)) & READABLE:
                message = list(shared.connection.socket.recv_multipart(NOBLOCK))
            shared.in_doubt = False
        return message

    # Without it

    def drive(self, name: str, bell: Alarm, until: float) -> None:
        """Receive until a request has its reply, another thread has the socket, or the instant `until` has come."""
        shared = self._shared
        while not shared.is_forked():  # by a signal handler
            with shared.lock:
                if shared.bell is not bell or not shared.session.only_waits_for(name):
                    return
                message = self._receive()
                descriptor = shared.connection.descriptor
            if message is not None:
                shared.receive([message])
            left = until - monotonic()
            if left <= 0 or threads.has_main_ended():
                return
            if message is None:
                wait_ms = ceil(min(1000 * left, LONGEST_WAIT_MS))
                zmq.zmq_poll([(descriptor, zmq.POLLIN), (bell.fileno(), zmq.POLLIN)], wait_ms)

    def stop(self, bell: Alarm) -> None:
        """Give the socket back, whatever has ended the call."""
        shared = self._shared
        if shared.is_forked():
            return
        with shared.lock:
            if shared.bell is bell:
                shared.bell = None
                if shared.session or shared.in_doubt:
                    shared.wake()
            else:
                bell.hear()
            if self._spare_bell is None and not shared.closed:
                self._spare_bell = bell
            else:
                bell.close()
