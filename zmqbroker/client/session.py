"""What a client has asked of the broker and has no final answer to. Pure: no socket, no thread, no clock.

    submit -> to be sent -> sent -> settled
                  ^           |
                  +-----------+  the connection was lost

Requests go in by `submit` and `cancel`; `take` says what is to be sent, `receive` what a reply settles. Each request
has a key: when the connection is lost, every one without an answer is sent again under its key. The broker runs no task
twice for that, and a new broker on the same address gets them all.

Who drives this sees to it that only one thread is here at a time. A signal handler of that thread, or what the garbage
collector ends, may come in between any two steps, though, and submit or cancel something else.
"""

from collections import deque
from collections.abc import Callable, Iterable

from zmqbroker import wire
from zmqbroker.wire import Frames, Reply

CLOSED = "closed"  # the status of a task whose client was closed
CANCEL = wire.more_fields({"cancel": True})

Settle = Callable[[Reply], None]


class Request:
    """A task that has no answer yet, or a cancel of one."""

    __slots__ = ("body", "fields", "key", "sent", "settle")

    def __init__(self, key: str, body: Frames, fields: str, settle: Settle | None) -> None:
        self.key = key
        self.body = body
        self.fields = fields  # of its header, but for the key: see `wire.more_fields`
        self.settle = settle  # whom to tell; None: nobody, it is a cancel
        self.sent = 0  # how often; 0: the broker cannot know it

    def message(self) -> Frames:
        """Build what is sent."""
        return wire.request_message(self.body, self.key, self.fields)


class Session:
    """The requests of a client that have no answer, and which of them are to be sent."""

    def __init__(self) -> None:
        self._unanswered: dict[str, Request] = {}  # by key
        self._outbox: deque[Request] = deque()  # to be sent, unless it is unanswered no more

    def __len__(self) -> int:
        return len(self._unanswered)

    def __contains__(self, key: str) -> bool:
        return key in self._unanswered

    @property
    def has_unsent(self) -> bool:
        """Tell whether there may be something to send."""
        return bool(self._outbox)

    def submit(self, request: Request) -> None:
        """Take in a request that is to be sent."""
        self._outbox.append(request)
        self._unanswered[request.key] = request

    def expect(self, request: Request) -> None:
        """Take in a request that the caller sends itself."""
        request.sent = 1
        self._unanswered[request.key] = request

    def cancel(self, key: str) -> bool:
        """Forget a task that was never sent, and have the broker told of another; False when it has its answer."""
        request = self._unanswered.get(key)
        if request is None:
            return False
        if request.sent:
            self.submit(Request(key, [wire.EMPTY], CANCEL, None))
        else:
            del self._unanswered[key]
        return True

    def take(self, most: int) -> list[Request]:
        """Take up to `most` requests that are to be sent now; from here on they count as sent."""
        taken: list[Request] = []
        while self._outbox and len(taken) < most:
            request = self._outbox.popleft()
            if self._unanswered.get(request.key) is request:
                request.sent += 1
                taken.append(request)
        return taken

    def put_back(self, requests: list[Request]) -> None:
        """Undo a part of `take`: these could not be sent."""
        for request in reversed(requests):
            request.sent -= 1
            self._outbox.appendleft(request)

    def receive(self, replies: Iterable[Reply]) -> list[tuple[Settle, Reply]]:
        """Take in replies, and return whom to tell of which: of those to cancels and to what is not known, nobody."""
        told: list[tuple[Settle, Reply]] = []
        for reply in replies:
            request = self._unanswered.pop(reply.key or "", None)
            if request is not None and request.settle is not None:
                told.append((request.settle, reply))
        return told

    def reconnect(self) -> None:
        """Have everything sent again that has no answer: the connection is a new one."""
        self._outbox = deque(self._unanswered.values())

    def close(self) -> list[tuple[Settle, Reply]]:
        """Give up every task, and return whom to tell so; cancels are still to be sent."""
        given_up: list[tuple[Settle, Reply]] = []
        for request in list(self._unanswered.values()):
            if request.settle is not None:
                self._unanswered.pop(request.key, None)
                reply = Reply(request.key, CLOSED, 0, "the client was closed before the reply came", [])
                given_up.append((request.settle, reply))
        return given_up
