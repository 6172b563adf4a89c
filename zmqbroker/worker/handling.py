"""Running a handler on the body of a task, or on each body of a chunk, and telling what came of it."""

import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from zmqbroker import wire
from zmqbroker.transport import signals
from zmqbroker.transport.limited_log import LimitedLog, log_safely, printable
from zmqbroker.wire import FAIL, REJECT, Frames, chunks
from zmqbroker.wire.announced import DONE
from zmqbroker.wire.chunks import Body, Failure
from zmqbroker.worker.current import CurrentTask, current_task
from zmqbroker.worker.forks import end_child
from zmqbroker.worker.outcome import Fail, Interrupted, Refused, Reject, frames_of, reason_of, text_of

MAY_END = signal.valid_signals() - signals.TIMERS  # whose handlers may end the program by a SystemExit

log = logging.getLogger("zmqbroker.worker")

Handler = Callable[[Any], "Body | None"]
Answer = tuple[bytes, Frames]  # a verb, and a result's body or a reason

INTERRUPTED: Answer = (FAIL, [b"the handler was interrupted"])


class Handling:
    """A handler, and what is made of all that it may return or raise."""

    def __init__(self, handler: Handler, complaints: LimitedLog) -> None:
        self._handler = handler
        self._complaints = complaints
        self._process_id = os.getpid()

    def answer(self, body: Frames) -> Answer:
        """Run the handler, for each body of a chunk by itself, and return what is to be said of the attempt.

        Raises what ends the worker: KeyboardInterrupt, and what a signal handler raises.
        """
        try:
            if chunks.is_chunk(body):
                return self._answer_chunk(body)
            outcome = self._outcome(body)
        except Interrupted as interruption:
            return _failure(FAIL, str(interruption))
        if isinstance(outcome, Failure):
            return _failure(REJECT if outcome.is_final else FAIL, outcome.reason)
        return DONE, outcome

    def _answer_chunk(self, body: Frames) -> Answer:
        try:
            bodies = chunks.unpack(body)
        except ValueError as error:
            return _failure(REJECT, str(error))
        return DONE, chunks.pack_results(map(self._outcome, bodies))

    def _outcome(self, body: Frames) -> Frames | Failure:
        """Run the handler on one body, and return its result or why there is none."""
        try:
            return frames_of(self._handle(wire.plain(body)))
        except (Interrupted, KeyboardInterrupt):
            raise
        except Refused as refusal:
            reason = str(refusal)
            self._complaints.tell("refused", partial(_line, current_task(), "has refused it", reason), monotonic())
            return Failure(reason, refusal.is_final)
        except Reject as rejection:
            return _said("has rejected it", Failure(text_of(rejection) or "rejected", is_final=True))
        except Fail as failure:
            return _said("failed", Failure(text_of(failure) or "failed"))
        except BaseException as error:
            if isinstance(error, SystemExit) and signals.is_of_a_handler(error, MAY_END):
                raise
            reason = reason_of(error)
            self._complaints.tell("failed", partial(_line, current_task(), "failed", reason), monotonic(), error)
            return Failure(reason)

    def _handle(self, body: Body) -> Any:
        """Run the handler. A process that it has forked ends where it comes back, and never becomes a worker."""
        try:
            result = self._handler(body)
        except BaseException as error:
            if os.getpid() != self._process_id:
                end_child(error)
            raise
        if os.getpid() != self._process_id:
            end_child(None)
        return result


def _said(what: str, failure: Failure) -> Failure:
    """Return what a handler has said on purpose, which only a verbose log tells."""
    if log.isEnabledFor(logging.DEBUG):
        log_safely(log.debug, "%s", printable(_line(current_task(), what, failure.reason)))
    return failure


def _line(task: CurrentTask, became: str, reason: str) -> str:
    """Say for the log what became of an attempt, or of a body of its chunk."""
    return f"{task.name}: the handler {became} in attempt {task.attempt}: {reason}"


def _failure(verb: bytes, reason: str) -> Answer:
    return verb, [reason.encode(errors="replace")]
