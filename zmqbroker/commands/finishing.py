"""How a submission is run to its end, whichever that is: all is printed, an error, or a signal."""

import logging
import signal
from contextlib import suppress
from math import inf
from queue import Empty
from time import monotonic
from typing import NamedTuple

from zmqbroker.client.client import Client
from zmqbroker.commands import streams
from zmqbroker.commands.events import Events
from zmqbroker.commands.halting import SOON, Halt
from zmqbroker.commands.options import USAGE_ERROR
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.submission import Submission
from zmqbroker.transport import signals
from zmqbroker.transport.limited_log import printable
from zmqbroker.wire import CANCELLED, DONE, FAILED

Event = int | Exception | Halt | None  # a signal, an error, too many failures, or that all is taken
GIVEN_UP = 124  # exit status, as that of `timeout`
LAST_WORDS = 2.0  # seconds, at the end, for whoever takes nothing of what is printed


class GivenUp(NamedTuple):
    """The time for all is over."""

    seconds: float


class Complaints(logging.Handler):
    """Has what the client logs printed as what a submission says itself."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(logging.WARNING)
        self._submission = submission

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        self._submission.complain(record.getMessage())


def run(program: str, client: Client, submission: Submission, progress: Progress, give_up: float | None = None) -> int:
    """Run a submission of this program to its end, and close its client; return the exit status.

    What is not done `give_up` seconds from now is cancelled; None: never.
    """
    logging.getLogger("zmqbroker").addHandler(Complaints(submission))
    events: Events[Event] = Events()
    with client, events.woken_by_signals():
        return _finish(program, submission, events, progress, give_up)


def _finish(
    program: str, submission: Submission, events: Events[Event], progress: Progress, give_up: float | None
) -> int:
    handled = signals.on_signals(events.put)
    submission.start(events.put)
    ended_by, is_over = _wait_for_end(submission, events, give_up)
    if not is_over:
        submission.cancel()
        _wait_for_printing(submission, events)
    signals.ignore(handled)
    counts = submission.counts
    if not submission.is_printing:
        progress.close(counts[DONE], counts[FAILED])
    status = _tell(program, submission, ended_by)
    try:
        submission.close()
    except streams.OutputError as error:
        if str(error) != str(ended_by):  # else it was said
            streams.complain(f"{program}: {printable(str(error))}", LAST_WORDS)
        return USAGE_ERROR
    return status


def _wait_for_end(submission: Submission, events: Events[Event], give_up: float | None) -> tuple[Event | GivenUp, bool]:
    """Return what has ended it, and whether all is over; else there is something left to be cancelled."""
    until = inf if give_up is None else monotonic() + give_up
    halted: Halt | None = None
    while True:
        try:
            event = events.get() if until == inf else events.get_within(max(until - monotonic(), 0.0))
        except Empty:
            return GivenUp(give_up or 0.0), False
        if event is None:
            return halted, True
        if not isinstance(event, Halt) or event.when != SOON:
            return event, False
        halted = event
        submission.stop()


def _tell(program: str, submission: Submission, ended_by: Event | GivenUp) -> int:
    """Say what has ended it, unless all is well; return the exit status."""
    counts, words = submission.counts, submission.words
    text = f"{counts[DONE]} {words.done}, {counts[FAILED]} failed, {counts[CANCELLED]} {words.left}"
    if ended_by is None:
        return int(counts[FAILED] > 0)
    if isinstance(ended_by, streams.NobodyReadsError):
        return signals.INTERRUPTED + signal.SIGPIPE
    if isinstance(ended_by, int):
        streams.complain(f"interrupted: {text}", LAST_WORDS)
        return signals.INTERRUPTED + ended_by
    if isinstance(ended_by, Halt):
        streams.complain(f"halted: {text}", LAST_WORDS)
        return 1
    if isinstance(ended_by, GivenUp):
        streams.complain(f"given up after {ended_by.seconds:g} s: {text}", LAST_WORDS)
        return GIVEN_UP
    streams.complain(f"{program}: {printable(describe(ended_by))}", LAST_WORDS)
    return USAGE_ERROR


def _wait_for_printing(submission: Submission, events: Events[Event]) -> None:
    """Let what is finished be printed, while somebody reads it; another signal ends that."""
    before = -1
    while submission.is_printing and submission.written > before:
        before = submission.written
        with suppress(Empty):
            event = events.get_within(LAST_WORDS)
            if isinstance(event, int):
                break
            if isinstance(event, Halt):  # it came just before the end, and says nothing of what is printed
                before = -1
    if submission.is_printing:
        streams.complain("not all that was finished is printed: nobody reads it", LAST_WORDS)


def describe(error: Exception) -> str:
    """Say what went wrong."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)
