"""What a client asks of the broker: a task, a cancel that has taken its place, or a question about a task. Pure."""

from collections.abc import Callable
from functools import partial
from math import inf

from zmqbroker import wire
from zmqbroker.wire import (
    ACCEPTED,
    CANCELLED,
    DONE,
    EXPIRED,
    FAILED,
    LONGEST_SPAN,
    UNKNOWN,
    UNSETTLED,
    Frames,
    Reply,
)

DURABLE, DETACH = "durable", "detach"  # fields of what the broker stores
STORED = (*UNSETTLED, DONE, FAILED, CANCELLED, EXPIRED)  # what a broker says of that
CANCEL = wire.more_fields({"cancel": True})  # of a cancel that takes the place of its task; that is told by identity

Settle = Callable[[list[Reply]], None]  # takes all that came for it at once: one of a `map` has many


class Request:
    """A task that has no answer yet, a cancel that has taken its place, or a question about a task."""

    __slots__ = ("body", "fields", "id", "instants", "key", "name", "on_progress", "pause", "sent", "settle", "stored")

    def __init__(
        self,
        key: str,
        body: Frames,
        fields: str,
        settle: Settle | None,
        instants: dict[str, float] | None = None,
        on_progress: Settle | None = None,
        id: str | None = None,
        stored: str = "",
    ) -> None:
        self.key = key  # of the task that it is, or is about
        self.id = id  # None: no other request has its key
        self.name = id or key
        self.body = body
        self.fields = fields  # of its header, but for key, id and what counts from now on: see `wire.more_fields`
        self.settle = settle  # whom to tell; None: nobody
        self.instants = instants  # of those fields of its header that are seconds from when it is sent; None: no such
        self.on_progress = on_progress  # whom to tell how far it has come; None: nobody
        self.stored = stored  # DURABLE or DETACH; empty: the broker does not store it
        self.pause = 0.0  # seconds since it was refused last; 0: it was not
        self.sent = 0  # how often; 0: the broker cannot know it

    @property
    def is_cancel(self) -> bool:
        """Tell whether it has taken the place of a task that it cancels."""
        return self.fields is CANCEL

    @property
    def expires_at(self) -> float:
        """The instant at which its result is not wanted any more; inf: it always is."""
        return inf if self.instants is None else self.instants.get("expires", inf)

    def has_expired(self, now: float) -> bool:
        """Tell whether no result can come in time any more."""
        if self.instants is None or "expires" not in self.instants:
            return False
        return self.expires_at - now <= max(self.instants.get("delay", now) - now, 0.0)

    def ask_instead(self) -> None:
        """Become a question: the broker may have stored this, and tells others another outcome than `expired`."""
        self.body, self.instants = [wire.EMPTY], None
        self.fields = wire.more_fields({"fetch": LONGEST_SPAN if self.stored == DURABLE else 0.0})
        if self.settle is not None:
            self.settle = partial(_settle_stored, self.settle, self.stored)

    def message(self, now: float) -> Frames:
        """Build what is sent now: with what is left of a delay, and of the time in which its outcome is wanted."""
        if self.instants is None:
            return wire.request_message(self.body, self.key, self.fields, self.id)
        left = {name: min(max(instant - now, 0.0), LONGEST_SPAN) for name, instant in self.instants.items()}
        return wire.request_message(self.body, self.key, self.fields + wire.more_fields(left), self.id)


def _settle_stored(settle: Settle, stored: str, replies: list[Reply]) -> None:
    """Tell somebody the outcome that the broker has stored; or that there is one, if that is what was wanted."""
    told = []
    for reply in replies:
        if reply.status == UNKNOWN:
            reply = expired_reply(reply.key, reply.id, " again")
        elif stored == DETACH and reply.status in STORED:
            reply = reply._replace(status=ACCEPTED, body=[])
        told.append(reply)
    settle(told)


def expired_reply(key: str | None, id: str | None, again: str) -> Reply:
    """Build what a task gets that was not worth sending."""
    return Reply(key, EXPIRED, 0, f"no result came in time: it could not be sent{again} before", [], id=id)
