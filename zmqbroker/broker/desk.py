"""The control socket: questions are read, and answered by `control`, a few in each turn of the loop."""

import os
import resource
from collections.abc import Callable, Sized
from functools import partial
from time import monotonic
from typing import Any

import zmq

from zmqbroker import __version__
from zmqbroker.broker.about import Answer
from zmqbroker.broker.admission import Admission, open_inbox
from zmqbroker.broker.control import Control
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.questions import Later, Question, RefusedError
from zmqbroker.broker.shutdown import Shutdown
from zmqbroker.broker.sockets import Sockets
from zmqbroker.broker.store.gate import Store
from zmqbroker.broker.traffic import CONTROL, Traffic
from zmqbroker.transport import descriptors
from zmqbroker.transport.keys import ADMIN
from zmqbroker.transport.messages import send
from zmqbroker.wire import MOST_FRAMES, Frames, MalformedError
from zmqbroker.wire.control import QuestionError, answer_message, error_message, parse_question

MOST_ANSWERED = 1  # questions, in one turn
OTHERS_SHARE = 20  # times as long as an answer took, nobody is answered while there is something else to do
LONGEST_WAIT = 0.5  # seconds that a question waits for that: an answer that took long was held up itself
REFUSALS_NAMED = 20
OBSERVED = ("status", "queues", "workers", "tasks", "task", "failures", "failed")  # what changes nothing
PAGE = resource.getpagesize()


class Desk:
    """Answers questions."""

    def __init__(
        self,
        sockets: Sockets,
        dispatcher: Dispatcher,
        shutdown: Shutdown,
        traffic: Traffic,
        drain: Callable[[], None],
        store: Store | None,
        count_malformed: Callable[[MalformedError], None],
        admission: Admission | None = None,
    ) -> None:
        """Prepare; there must be a control socket.

        `drain` begins the end, `store` is looked at (None: there is none), `count_malformed` is told what is wrong,
        `admission` knows who asks (None: anybody may, and for anything).
        """
        self._admission = admission
        self._count_malformed = count_malformed
        self._sockets = sockets
        self._shutdown = shutdown
        self._traffic = traffic
        self._control = Control(dispatcher, self._address_of, drain, store)
        self._began = monotonic()
        self.socket: zmq.Socket[bytes] | None = sockets.control
        self.due = self._began  # when a question is answered though there is something else to do
        inbox = open_inbox(admission, CONTROL, sockets.control, MOST_ANSWERED, self._ignore_long)  # type: ignore[arg-type]
        self._inbox = traffic.watch(CONTROL, inbox)

    def serve(self, now: float) -> None:
        """Answer a few questions."""
        began = monotonic()
        for message in self._inbox.batch(MOST_ANSWERED):
            self._send(self._answer(message, now))
        self._traffic.charge(CONTROL)
        self._let_others(began)

    def _let_others(self, began: float) -> None:
        """Have others come first for a while, after an answer that was begun at this instant."""
        ended = monotonic()
        self.due = ended + min(OTHERS_SHARE * (ended - began), LONGEST_WAIT)

    def _answer(self, message: list[Sized], now: float) -> list[Sized] | None:
        try:
            envelope, question = parse_question(message)
        except QuestionError as error:
            self._count_malformed(error)
            return error.answer
        except MalformedError as error:
            self._count_malformed(error)
            return None
        observes = self._admission is not None and ADMIN not in self._admission.speaker.roles
        try:
            if observes:
                refuse_changes(question)
            answer = self._control.answer(question, now)
        except RefusedError as refusal:
            return error_message(envelope, str(refusal))
        if isinstance(answer, Later):
            answer.then = partial(self._answer_later, envelope, observes, monotonic())
            return None
        if question["ask"] == "status":
            answer = self._about_broker(now) | answer
        return answer_message(envelope, answer)

    def _answer_later(self, envelope: Frames, observes: bool, began: float, answer: Answer | RefusedError) -> None:
        """Answer when the store has done its part, which counts as time that the answer took."""
        self._let_others(began)
        if isinstance(answer, RefusedError):
            self._send(error_message(envelope, str(answer)))
        else:
            self._send(answer_message(envelope, without_body(answer) if observes else answer))

    def _send(self, answer: Frames | None) -> None:
        """Send an answer, if there is one; who does not read them gets no more."""
        if answer is not None and self.socket is not None:
            send(self.socket, answer)

    def _about_broker(self, now: float) -> dict[str, Any]:
        """Return what is known of the process and its sockets."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "addresses": self._sockets.addresses._asdict() | {"control": self._sockets.control_address},
            "uptime": round(now - self._began, 3),
            "state": "draining" if self._shutdown.is_draining else "serving",
            "memory": _resident(),
            "descriptors": descriptors.count_open(),
            "identities": self._admission is not None,
            "open_to": self._sockets.open_to_all,
            "refusals": None if self._admission is None else self._admission.refusals.about(REFUSALS_NAMED, now),
            **self._traffic.about(self._sockets.connections),
        }

    def _address_of(self, worker: Sized) -> str:
        return self._sockets.workers.address_of(worker)

    def _ignore_long(self, start: list[Sized]) -> None:
        self._count_malformed(MalformedError(f"a question of more than {MOST_FRAMES} frames"))


def refuse_changes(question: Question) -> None:
    """Raise RefusedError for what only an admin may ask for, which is all that an observer may not."""
    if question.get("ask") not in OBSERVED:
        asked = f"{question.get('ask')!r:.50}"
        raise RefusedError(f"an observer may ask for one of {', '.join(OBSERVED)}; {asked} is for an admin, if anybody")


def without_body(answer: Answer) -> Answer:
    """Return an answer about a stored task as an observer may have it."""
    stored = answer.get("stored")
    return answer if stored is None else answer | {"stored": stored | {"body": None}}


def _resident() -> int | None:
    """Return the bytes of memory in use; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return None
