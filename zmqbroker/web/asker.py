"""Asking a broker on behalf of many: a thread of its own that waits for the answers, which all who ask share.

However many browsers and scrapes there are, the broker hears each question once in FRESH seconds: who asks what is
being asked joins, who asks what has just been answered gets that. Who asks a broker that did not answer the last
question is told so at once, while it is asked again: nobody waits for one that is known to be gone, and nothing piles
up.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

import zmq

from zmqbroker.transport.control import ControlSocket, NoAnswerError
from zmqbroker.web.shapes import fits
from zmqbroker.wire import MalformedError
from zmqbroker.wire.control import ControlError

FRESH = 0.9  # seconds for which an answer is good: less than a second, at which browsers and scrapes come again
PATIENCE = 2.0  # seconds for an answer
MOST_WAITING = 200  # questions, but for how the broker is
MOST_KEPT = 200  # answers and questions, before those that are stale are looked for
STATUS = "status"  # asks how the broker is, and whether it is
LONGEST_END = 0.2  # seconds for the thread to end; it is left alone if it waits for an answer then

Answer = dict[str, Any]
Fields = tuple[tuple[str, Any], ...]


class UnansweredError(Exception):
    """A broker does not answer, or not like one, or too many questions wait. Its text says why."""


class MisfitError(UnansweredError):
    """An answer is not one of a broker of this version."""

    def __init__(self, ask: str) -> None:
        super().__init__(f"asked for {ask!r:.50}, the broker does not answer as a broker of this version does")


class Question(NamedTuple):
    """What is asked, and what will be the answer."""

    ask: str
    fields: Fields
    answer: "Future[Answer]"


class Asker:
    """Asks one broker, in a thread of its own."""

    def __init__(self, connect: Callable[[], ControlSocket]) -> None:
        """Begin; `connect` is called in that thread, anew after each question that was not answered."""
        self.trouble = ""  # why the broker does not answer; empty: it does, or was not asked yet
        self.since = monotonic()  # when it began not to answer, or to
        self._connect = connect
        self._socket: ControlSocket | None = None
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, Fields], tuple[Question, float | None]] = {}  # and when that was settled
        self._waiting: SimpleQueue[Question | None] = SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="zmqbroker asker", daemon=True)
        self._thread.start()

    def ask(self, ask: str, **fields: Any) -> "Future[Answer]":
        """Return what will be the answer: it fails with UnansweredError, or ControlError for what is refused."""
        key = ask, tuple(sorted(fields.items()))
        with self._lock:
            known, settled = self._asked.get(key, (None, None))
            if known is not None and (settled is None or monotonic() < settled + FRESH):
                return self._promise(known)
            if self._is_closed:
                return _refused(self.trouble)
            if self._waiting.qsize() >= MOST_WAITING and ask != STATUS:
                return _refused("too many questions wait for the broker")
            if len(self._asked) >= MOST_KEPT:
                self._forget_stale()
            question = Question(*key, Future())
            self._asked[key] = question, None
            self._waiting.put(question)
            return self._promise(question)

    def stop(self, why: str) -> None:
        """Ask no more, for a reason that is told to who asks from now on."""
        self._note(why, is_last=True)
        self._waiting.put(None)

    def close(self) -> None:
        """Ask no more, and wait for the thread to end."""
        self.stop("the page ends")
        self._thread.join(LONGEST_END)

    def _promise(self, question: Question) -> "Future[Answer]":
        """Return the answer to a question; in its place, that the broker did not answer the last one."""
        if not self.trouble or question.answer.done():
            return question.answer
        return _refused(self.trouble)

    def _forget_stale(self) -> None:
        now = monotonic()
        self._asked = {
            key: (question, settled)
            for key, (question, settled) in self._asked.items()
            if settled is None or now < settled + FRESH
        }

    def _run(self) -> None:
        while (question := self._waiting.get()) is not None and not self._is_closed:
            try:
                self._settle(question, self._answer(question))
            except (ControlError, MisfitError) as error:  # which are answers too
                self._settle(question, error)
            except (NoAnswerError, MalformedError, ValueError, OSError, zmq.ZMQError) as error:
                self._disconnect()
                self._note(str(error))
                self._fail_all(question, str(error))
        self._disconnect()
        self._fail_all(question, self.trouble)

    def _answer(self, question: Question) -> Answer:
        """Ask; who answers is there, if only by a refusal, but for who cannot say how it is."""
        if self._socket is None:
            self._socket = self._connect()
        try:
            answer = self._socket.ask(question.ask, **dict(question.fields))
        except ControlError:
            self._note("")
            raise
        if not fits(question.ask, answer):
            misfit = MisfitError(question.ask)
            self._note(str(misfit) if question.ask == STATUS else "")
            raise misfit
        self._note("")
        return answer

    def _settle(self, question: Question, outcome: Answer | Exception) -> None:
        with self._lock:
            self._asked[question.ask, question.fields] = question, monotonic()
        if isinstance(outcome, Exception):
            question.answer.set_exception(outcome)
        else:
            question.answer.set_result(outcome)

    def _fail_all(self, question: Question | None, why: str) -> None:
        """Fail a question, and all that wait."""
        waiting = [question, *(self._waiting.get() for _ in range(self._waiting.qsize()))]
        for each in waiting:
            if each is not None:
                self._settle(each, UnansweredError(why))
        if None in waiting[1:]:  # the end was among them
            self._waiting.put(None)

    def _note(self, trouble: str, is_last: bool = False) -> None:
        """Take note of whether the broker answers, and whether that is the last that is to be known of it."""
        with self._lock:
            if self._is_closed:
                return
            if bool(trouble) != bool(self.trouble):
                self.since = monotonic()
            self.trouble, self._is_closed = trouble, is_last

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _refused(why: str) -> "Future[Answer]":
    """Return the answer to a question that is not asked."""
    refused: Future[Answer] = Future()
    refused.set_exception(UnansweredError(why))
    return refused
