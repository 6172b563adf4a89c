"""Messages through a socket, frame by frame: pyzmq's multipart calls take twice as long, and copy large frames."""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import zmq

from zmqbroker.wire import MOST_FRAMES, Frames

LARGE_FRAME = 65536  # bytes; from here on a frame is passed on without being copied
FEW_FRAMES = 64  # a message of more is the last of its batch: others have their turn then
LINGER_MS = 2000  # what closing waits, at most, for the last messages to be sent
MOST_SKIPPED = 10_000  # frames of a message of too many that are received in one batch, to be forgotten
NO_FRAME = zmq.Frame()

# Plain integers: the flag enumerations of pyzmq cost more than a small send.
NOBLOCK = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
READABLE = int(zmq.POLLIN)
SEND_FRAME: Callable[..., Any] = super(zmq.Socket, zmq.Socket).send  # all that zmq.Socket.send adds is for drafts


class Inbox:
    """A socket to read from, a batch of messages at a time.

    Finding a socket empty is dear: pyzmq raises an exception, which takes as long as reading several messages. So a
    batch has a size, which doubles when it was filled and falls to what was there when it was not.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], largest_batch: int, on_too_long: Callable[[Frames], None] | None = None
    ) -> None:
        """Read batches of up to `largest_batch` messages.

        One of more than MOST_FRAMES is not among them: `on_too_long` is given its first frames, and the rest is
        skipped. None takes a message of any length.
        """
        self.is_empty = False  # as far as the last batch could tell
        self.received = 0  # messages, as of the last batch
        self.frame = NO_FRAME  # the last one of the message that was yielded last, until there is another
        self._socket = socket
        self._is_router = socket.type == zmq.ROUTER
        self._batch = 1
        self._largest_batch = largest_batch
        self._on_too_long = on_too_long
        self._is_skipping = False  # what comes next is the rest of a message that is too long

    def batch(self, most: int) -> Iterator[Frames]:
        """Receive up to `most` messages; frames from LARGE_FRAME on are not copied."""
        receive: Callable[..., Any] = self._socket.recv
        is_router = self._is_router
        size = min(self._batch, most)
        self.is_empty = False
        if self._is_skipping and not self._skip():
            return
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
                self.received += number
                break
            message.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
            while frame.more:
                frame = receive(NOBLOCK, False)
                message.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
                if len(message) == FEW_FRAMES and frame.more:
                    self.received += number + 1
                    yield from self._receive_long(message)
                    return
            self.frame = frame
            yield message
        else:
            self.received += size
            if size == self._batch:
                self._batch = min(2 * size, self._largest_batch)
        self.frame = NO_FRAME  # it may be large

    def _receive_long(self, message: Frames) -> Iterator[Frames]:
        """Receive the rest of a message of many frames, or skip it where there are too many."""
        most = MOST_FRAMES + self._is_router if self._on_too_long else inf
        is_whole = False
        while not is_whole and len(message) < most:
            frame = self._socket.recv(NOBLOCK, False)
            message.append(frame.bytes if len(frame) < LARGE_FRAME else frame)
            is_whole = not frame.more
        self.frame = frame
        if is_whole:
            yield message
        elif self._on_too_long:
            self._is_skipping = True
            self._on_too_long(message)
        self.frame = NO_FRAME

    def _skip(self) -> bool:
        """Receive and forget the rest of a message, up to a bound; True when that was all."""
        for _ in range(MOST_SKIPPED):
            if not self._socket.recv(NOBLOCK, False).more:
                self._is_skipping = False
                break
        return not self._is_skipping


def send(to: zmq.Socket[bytes], message: Frames) -> bool:
    """Send a message; False when its addressee is gone or full. The verdict falls on the first frame."""
    last = message.pop()
    try:
        for frame in message:
            SEND_FRAME(to, frame, MORE)
        SEND_FRAME(to, last, NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return False
        raise
    return True
