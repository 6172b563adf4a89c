"""Who may speak at which of the broker's sockets, by the file of the authorized.

A newcomer is judged by its key at the handshake, by ZAP, and again with each message: so a line that is taken out of
the file counts from then on, also for connections that there are. Those are ended as well.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import NamedTuple

import zmq

from zmqbroker.broker.authorized_file import AuthorizedFile
from zmqbroker.broker.handshakes import Handshakes
from zmqbroker.broker.liveness import SOURCE
from zmqbroker.broker.refusals import Refusals, Stranger
from zmqbroker.broker.report import Report
from zmqbroker.broker.sockets import Sockets
from zmqbroker.broker.traffic import CONTROL, READY, REQUESTS, RESULTS
from zmqbroker.transport.curve import try_to_come_in
from zmqbroker.transport.descriptors import hang_up
from zmqbroker.transport.identity import Identity
from zmqbroker.transport.keys import ADMIN, CLIENT, OBSERVER, WORKER
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.messages import Inbox
from zmqbroker.transport.zap import Newcomer, answer_one
from zmqbroker.wire import Frames

SPEAKERS = {REQUESTS: {CLIENT}, READY: {WORKER}, RESULTS: {WORKER}, CONTROL: {OBSERVER, ADMIN}}  # their roles
MOST_JUDGED = 100  # newcomers, in one turn
USER, ADDRESS = "User-Id", "Peer-Address"  # of a message, see zmq_msg_gets(3)
ID_LENGTH = 5  # bytes of a routing id that ZeroMQ gives, the first of which is 0, see zmq_setsockopt(3)
CHOSEN = "with identities a peer may not choose its routing id (ZMQ_ROUTING_ID): leave it to ZeroMQ"
NOWHERE = "no socket of the broker"  # which in a shared context somebody may have asked about
UNKNOWN = "its key is not among the authorized"
NOBODY_COMES = "%s authorizes nobody: add lines as `zmqbroker identity show FILE` prints them"
LONGEST_TRIAL = 1.0  # seconds for a socket to notice that a stranger it has refused is gone
POLL_MS = 10

log = logging.getLogger("zmqbroker")


class Speaker(NamedTuple):
    """Who has said what is being read."""

    key: str
    name: str
    roles: frozenset[str]


NOBODY = Speaker("", "", frozenset())


class Door:
    """One of the broker's sockets, to be read as an Inbox is: by who may speak there alone is there anything."""

    def __init__(self, where: str, handshakes: Handshakes, admission: "Admission") -> None:
        self.where = where
        self.admitted: Mapping[str, Speaker] = {}  # by key
        self.handshakes = handshakes
        self._admission = admission
        self._spoken: dict[int, Speaker] = {}  # who spoke there last, by descriptor
        self._inbox: Inbox
        self._is_router: bool
        self._on_too_long: Callable[[Frames], None]
        self._on_chosen: Callable[[Frames], None]

    def open(
        self,
        socket: zmq.Socket[bytes],
        most: int,
        on_too_long: Callable[[Frames], None],
        on_chosen: Callable[[Frames], None],
    ) -> None:
        """Begin to read, as Inbox does; what has a routing id that its sender chose is given to `on_chosen` instead."""
        self._inbox = Inbox(socket, most, self._hear_long)
        self._is_router = socket.type == zmq.ROUTER
        self._on_too_long, self._on_chosen = on_too_long, on_chosen

    @property
    def is_empty(self) -> bool:
        """Tell whether there were no more messages, as far as the last batch could tell."""
        return self._inbox.is_empty

    @property
    def received(self) -> int:
        """The number of messages that came, of whomever."""
        return self._inbox.received

    @property
    def frame(self) -> zmq.Frame:
        """The last frame of the message that was yielded last, until there is another."""
        return self._inbox.frame

    def batch(self, most: int) -> Iterator[Frames]:
        """Receive up to `most` messages, and yield those that count; `speaker` of the admission has sent them."""
        inbox = self._inbox
        for message in inbox.batch(most):
            if self.may_speak(message, inbox.frame):
                yield message

    def may_speak(self, message: Frames, frame: zmq.Frame) -> bool:
        """Judge who has sent a message by its last frame, and note that it is this one's turn to speak."""
        admission, key = self._admission, _text(frame, USER)
        speaker = self.admitted.get(key)
        if speaker is None:
            admission.refuse(self.where, key, _text(frame, ADDRESS))
            self._end(frame.get(SOURCE), key)
            return False
        self._spoken[frame.get(SOURCE)] = speaker
        if self._is_router and (message[0][0] or len(message[0]) != ID_LENGTH):  # type: ignore[index]  # it is bytes
            admission.note(Stranger(_text(frame, ADDRESS), key, self.where, CHOSEN))
            self._on_chosen(message)
            return False
        admission.speaker = speaker
        return True

    def _hear_long(self, start: Frames) -> None:
        if self.may_speak(start, self._inbox.frame):
            self._on_too_long(start)

    def end_others(self) -> None:
        """End the connections by which those spoke who may not any more."""
        for descriptor, speaker in self._spoken.items():
            if not self.admits(speaker):
                self._end(descriptor, speaker.key)

    def admits(self, speaker: Speaker) -> bool:
        """Tell whether somebody may speak still, and goes by the same name."""
        now = self.admitted.get(speaker.key, NOBODY)
        return now.name == speaker.name

    def _end(self, descriptor: int, key: str) -> None:
        """End a connection, unless it is another one's by now: descriptors are used again."""
        last = self._spoken.get(descriptor)
        if descriptor not in self.handshakes.open:
            return
        if last is None or last.key == key:
            hang_up(descriptor)
        else:
            self._spoken[descriptor] = NOBODY._replace(key=key)  # if it is this one's after all, its next message tells


class Admission:
    """Judges who comes and who speaks."""

    def __init__(self, sockets: Sockets, authorized: AuthorizedFile, report: Report) -> None:
        """Prepare to judge for sockets that have an identity."""
        self.report = report
        self.refusals = Refusals()
        self.speaker = NOBODY  # who has sent the message that is being read
        self._authorized = authorized
        self._zap = sockets.zap
        self._own_stranger = ""  # the key by which the broker tries its own doors
        self._doors = {where: Door(where, handshakes, self) for where, handshakes in sockets.handshakes.items()}
        self._admit()

    def door(self, where: str) -> Door:
        """Return what is to read a socket, once it is open."""
        return self._doors[where]

    def try_doors(self, sockets: Sockets, identity: Identity) -> None:
        """See that a stranger is refused at each socket; raises ValueError where that is not so."""
        stranger = Identity(*zmq.curve_keypair())
        self._own_stranger = stranger.public.decode()
        for where, opened in sockets.opened.items():
            try_to_come_in(sockets.context, opened, stranger, identity.public, self.judge)
            self._forget_trial(sockets.handshakes[where])

    def _forget_trial(self, handshakes: Handshakes) -> None:
        """Wait until a socket has seen one of its connections fail, so that nobody is told of it."""
        until = monotonic() + LONGEST_TRIAL
        while monotonic() < until and not handshakes.failed():
            handshakes.monitor.poll(POLL_MS)
            for _ in handshakes.ended():
                pass

    def judge(self, now: float) -> None:
        """Let newcomers in, or not: so many at most in a turn."""
        for _ in range(MOST_JUDGED):
            if not answer_one(self._zap, self._may_come_in):  # type: ignore[arg-type]  # with identities there is one
                break

    def _may_come_in(self, newcomer: Newcomer) -> bool:
        door = self._doors.get(newcomer.domain)
        if door is not None and newcomer.key in door.admitted:
            return True
        if newcomer.key != self._own_stranger:
            self.refuse(NOWHERE if door is None else door.where, newcomer.key, newcomer.address)
            if door is not None:
                door.handshakes.refused += 1
        return False

    def refuse(self, where: str, key: str, address: str) -> None:
        """Note that somebody was refused because of its key."""
        known = self._authorized.keys.get(key)
        takes = " or ".join(sorted(SPEAKERS.get(where, ()))) or "nobody"
        why = UNKNOWN if known is None else f"it takes {takes}, and {known.name!r} is {','.join(sorted(known.roles))}"
        self.note(Stranger(address, key, where, why))

    def note(self, stranger: Stranger) -> None:
        """Count and tell of somebody who was refused."""
        now = monotonic()
        self.report.refused(self.refusals.note(stranger, now), now)

    def turn_to(self, frame: zmq.Frame) -> None:
        """Have that worker speak again who has sent a frame to READY."""
        self.speaker = self._doors[READY].admitted.get(_text(frame, USER), NOBODY)

    def look(self) -> bool:
        """Look at the file; True: others are authorized now, and those who are not any more have been cut off."""
        if not self._authorized.has_changed():
            return False
        self._admit()
        log_safely(log.info, "%s: %d keys are authorized now", self._authorized.path, len(self._authorized.keys))
        for door in self._doors.values():
            door.end_others()
        return True

    def may_work(self, worker: Speaker) -> bool:
        """Tell whether a worker is authorized still."""
        return self._doors[READY].admits(worker)

    def _admit(self) -> None:
        if not self._authorized.keys:
            log_safely(log.warning, NOBODY_COMES, self._authorized.path)
        for where, door in self._doors.items():
            door.admitted = {
                key: Speaker(key, *authorized)
                for key, authorized in self._authorized.keys.items()
                if not SPEAKERS[where].isdisjoint(authorized.roles)
            }


def open_doors(sockets: Sockets, identity: Identity, authorized: AuthorizedFile) -> Admission:
    """Return who judges for sockets that have an identity; raises ValueError where they do not refuse strangers."""
    admission = Admission(sockets, authorized, Report(has_identities=True))
    admission.try_doors(sockets, identity)
    return admission


def ignore(message: Frames) -> None:
    """Do nothing about a message: that it came is noted."""


def open_inbox(
    admission: Admission | None,
    where: str,
    socket: zmq.Socket[bytes],
    most: int,
    on_too_long: Callable[[Frames], None],
    on_chosen: Callable[[Frames], None] = ignore,
) -> Inbox | Door:
    """Return what reads a socket; with identities (`admission`) only what those say who may speak there."""
    if admission is None:
        return Inbox(socket, most, on_too_long)
    door = admission.door(where)
    door.open(socket, most, on_too_long, on_chosen)
    return door


def _text(frame: zmq.Frame, name: str) -> str:
    """Return what ZeroMQ knows of who has sent a frame; empty: nothing."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
