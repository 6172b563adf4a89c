"""What a client has asked of the broker and has no final answer to. Pure: no socket, no thread, no clock.

    submit -> to be sent -> sent -> settled
                  ^           |
                  +-----------+  the connection was lost, or the broker takes nothing now

Requests go in by `submit` and `cancel`; `take` says what is to be sent, `receive` what a reply settles. Each has the
key of a task: when the connection is lost, every request without an answer is sent again under its key. The broker runs
no task twice for that, and a new broker on the same address gets them all. A request that the broker answers with
UNAVAILABLE is sent again by the next connection, or by this one after a pause that grows. What has expired by the time
that it is to be sent is settled here, unless the broker may have it in its store: then its outcome is asked for. Time
comes in as `now`, float seconds of a monotonic clock.

Several requests may have one key: tasks that their user gave the same, and questions about a task. Such have an id too,
which comes back in their replies. So the *name* of a request is its id, or else its key.

Who drives this sees to it that only one thread is here at a time. A signal handler of that thread, or what the garbage
collector ends, may come in between any two steps, though, and submit or cancel something else.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

from zmqbroker import wire
from zmqbroker.client.lull import STANDS, Lull
from zmqbroker.client.request import CANCEL, Request, Settle, expired_reply
from zmqbroker.wire import ACCEPTED, CANCELLED, DONE, PROGRESS, UNAVAILABLE, UNSETTLED, Reply

FIRST_PAUSE = 1.0  # seconds before what was refused is sent again by the same connection; doubled each time
LONGEST_PAUSE = 10.0  # seconds
MANY_CUTS = 3  # connections in a row that ended without a reply; from here on that is worth saying
FIRST_SILENCE = 10.0  # seconds between saying so and saying so again; doubled each time
LONGEST_SILENCE = 600.0  # seconds


class Session:
    """The requests of a client that have no answer, and which of them are to be sent."""

    def __init__(self) -> None:
        self._unanswered: dict[str, Request] = {}  # by name
        self._outbox: deque[Request] = deque()  # to be sent, unless it is unanswered no more
        self._refused: list[tuple[float, int, Request]] = []  # a heap: when to send it again
        self.expired: list[tuple[Settle, list[Reply]]] = []  # whom to tell so by which reply; the caller clears it
        self._next_number = count().__next__
        self._refusal = ""  # why the last one was refused, if that has not been said
        self._silent_until = 0.0
        self._silence = FIRST_SILENCE
        self._lull = Lull()
        self._plight = ""  # why the oldest task may wait for ever, if that has not been said
        self._cuts = 0  # connections in a row that ended without a reply
        self._say_cuts = MANY_CUTS  # when it is worth saying

    def __len__(self) -> int:
        return len(self._unanswered)

    @property
    def has_unsent(self) -> bool:
        """Tell whether there may be something to send."""
        return bool(self._outbox)

    def only_waits_for(self, name: str) -> bool:
        """Tell whether the reply to this one is all that is left to do."""
        return name in self._unanswered and not self._outbox and not self._refused

    def names(self) -> list[str]:
        """Return the names of all requests without an answer."""
        return list(self._unanswered)

    def submit(self, request: Request) -> None:
        """Take in a request that is to be sent."""
        self._outbox.append(request)
        self._unanswered[request.name] = request

    def expect(self, request: Request) -> None:
        """Take in a request that the caller sends itself."""
        request.sent = 1
        self._unanswered[request.name] = request

    def cancel(self, name: str, settle: Settle | None = None) -> list[tuple[Settle, list[Reply]]] | None:
        """Forget a task that was never sent, and have the broker told of another.

        Returns whom to tell of it now, if it is `settle` that wants the answer; None when the task has its own.
        """
        request = self._unanswered.get(name)
        if request is None or not request.sent:
            return self.drop(name, settle, "cancelled before it was sent")
        self.submit(Request(request.key, [wire.EMPTY], CANCEL, settle, id=request.id))
        return []

    def drop(
        self, name: str, settle: Settle | None = None, reason: str = ""
    ) -> list[tuple[Settle, list[Reply]]] | None:
        """Forget a request, whatever becomes of it at the broker; returns as `cancel` does."""
        request = self._unanswered.pop(name, None)
        if request is None:
            return None
        return [] if settle is None else [(settle, [Reply(request.key, CANCELLED, 0, reason, [], id=request.id)])]

    def next_due(self) -> float:
        """Return the instant at which there is more to send by itself; inf: there is none."""
        return self._refused[0][0] if self._refused else inf

    def take(self, most: int, now: float) -> list[Request]:
        """Take up to `most` requests that are to be sent now; from here on they count as sent.

        Those that have expired are `expired`, and not sent; what is stored is asked for instead.
        """
        while self._refused and self._refused[0][0] <= now:
            self._outbox.append(heappop(self._refused)[2])
        taken: list[Request] = []
        while self._outbox and len(taken) < most:
            request = self._outbox.popleft()
            if self._unanswered.get(request.name) is not request:
                continue
            if request.instants is not None and request.has_expired(now):
                if not request.stored:
                    self._expire(request)
                    continue
                request.ask_instead()
            request.sent += 1
            taken.append(request)
        return taken

    def _expire(self, request: Request) -> None:
        """Settle a task that is not worth sending."""
        del self._unanswered[request.name]
        if request.settle is not None:
            again = " again" if request.sent or request.pause else ""
            self.expired.append((request.settle, [expired_reply(request.key, request.id, again)]))

    def put_back(self, requests: list[Request]) -> None:
        """Undo a part of `take`: these could not be sent."""
        for request in reversed(requests):
            request.sent -= 1
            self._outbox.appendleft(request)

    def receive(self, replies: Sequence[Reply], now: float) -> list[tuple[Settle, list[Reply]]]:
        """Take in replies, and return whom to tell of which: of those to cancels and to what is not known, nobody."""
        told: dict[Settle, list[Reply]] = {}
        for reply in replies:
            settle = self._take_in(reply, now)
            if settle is None:
                continue
            if settle in told:
                told[settle].append(reply)
            else:
                told[settle] = [reply]
        if replies:
            self._cuts, self._say_cuts = 0, MANY_CUTS
            if len(replies) > 1 or replies[0].id != STANDS:
                self._lull.end()
            if len(self._unanswered) == 1:
                self._unanswered.pop(STANDS, None)  # there is nothing left that it could be about
        return list(told.items())

    def _take_in(self, reply: Reply, now: float) -> Settle | None:
        """Return whom to tell of a reply; None: nobody."""
        name = reply.id or reply.key or ""
        if name == STANDS:
            self._plight = reply.reason if reply.status in UNSETTLED else ""
        if reply.status != DONE and (request := self._unanswered.get(name)) is not None:
            if reply.status == PROGRESS:
                return request.on_progress
            if reply.status == ACCEPTED and request.is_cancel:  # it has crossed with that, which has an answer yet
                return None
            if reply.status == UNAVAILABLE and request.settle is not None and not request.is_cancel:
                self._send_later(request, now)
                self._refusal = reply.reason
                return None
        request = self._unanswered.pop(name, None)
        return None if request is None else request.settle

    def _send_later(self, request: Request, now: float) -> None:
        request.sent = 0
        request.pause = min(max(2 * request.pause, FIRST_PAUSE), LONGEST_PAUSE)
        due = min(now + request.pause, request.expires_at)
        heappush(self._refused, (due, self._next_number(), request))

    def complaint(self, now: float) -> str:
        """Return why requests are refused, if that is to be said now; else nothing."""
        if not self._refusal or now < self._silent_until:
            return ""
        refusal, self._refusal = self._refusal, ""
        self._silent_until = now + self._silence
        self._silence = min(2 * self._silence, LONGEST_SILENCE)
        return refusal

    def wonder(self, now: float) -> None:
        """Ask where the oldest task stands if no reply has come for long; to be called now and then."""
        if not self._unanswered:
            self._lull.end()
        elif (question := self._lull.question(self._unanswered.values(), now)) is not None:
            self.submit(question)

    def plight(self) -> str:
        """Return, once, why the oldest task may wait for ever; nothing if it may not."""
        plight, self._plight = self._plight, ""
        return plight

    def cuts_to_tell(self) -> int:
        """Return how many connections in a row ended without a reply, if that is to be said now; else 0."""
        if self._cuts < self._say_cuts:
            return 0
        self._say_cuts = 2 * self._cuts
        return self._cuts

    def reconnect(self, *, was_cut: bool = True) -> None:
        """Have everything sent again that has no answer. Not `was_cut`: whoever is there has hung up on us at once."""
        self._cuts += was_cut and bool(self._unanswered)
        self._refused = []
        self._outbox = deque(self._unanswered.values())
        for request in self._outbox:
            request.pause = 0.0

    def give_up(self, status: str, reason: str) -> list[tuple[Settle, list[Reply]]]:
        """Give up every request, and return whom to tell so by which reply; cancels are still to be sent."""
        given_up: list[tuple[Settle, list[Reply]]] = []
        for request in list(self._unanswered.values()):
            if request.settle is None:
                if not request.is_cancel:
                    self._unanswered.pop(request.name, None)
                continue
            given_up.append((request.settle, [Reply(request.key, status, 0, reason, [], id=request.id)]))
            request.settle = None
            if not request.is_cancel:
                self._unanswered.pop(request.name, None)
        return given_up

    def forget_cancels(self) -> None:
        """Forget what is left when every task was given up."""
        self._unanswered.clear()
