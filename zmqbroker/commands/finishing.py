"""How a submission is run to its end, whichever that is: all is printed, an error, or a signal."""

import logging
import signal
from contextlib import suppress
from queue import Empty

from zmqbroker.client.client import Client
from zmqbroker.commands import streams
from zmqbroker.commands.events import Events
from zmqbroker.commands.options import USAGE_ERROR
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.submission import Complaints, Submission
from zmqbroker.transport import signals
from zmqbroker.wire import CANCELLED, DONE, FAILED

Event = int | Exception | None  # a signal, an error, or that all is printed
LAST_WORDS = 2.0  # seconds, at the end, for whoever takes nothing of what is printed


def run(program: str, client: Client, submission: Submission, progress: Progress) -> int:
    """Run a submission of this program to its end, and close its client; return the exit status."""
    logging.getLogger("zmqbroker").addHandler(Complaints(submission))
    events: Events[Event] = Events()
    with client, events.woken_by_signals():
        return _finish(program, submission, events, progress)


def _finish(program: str, submission: Submission, events: Events[Event], progress: Progress) -> int:
    handled = signals.on_signals(events.put)
    submission.start(events.put)
    ended_by = events.get()
    if ended_by is not None:
        submission.cancel()
        _wait_for_printing(submission, events)
    signals.ignore(handled)
    counts = submission.counts
    if not submission.is_printing:
        progress.close(counts[DONE], counts[FAILED])
    if ended_by is None:
        return int(counts[FAILED] > 0)
    if isinstance(ended_by, streams.NobodyReadsError):
        return signals.INTERRUPTED + signal.SIGPIPE
    if isinstance(ended_by, int):
        words = submission.words
        text = f"{counts[DONE]} {words.done}, {counts[FAILED]} failed, {counts[CANCELLED]} {words.left}"
        streams.complain(f"interrupted: {text}", LAST_WORDS)
        return signals.INTERRUPTED + ended_by
    streams.complain(f"{program}: {describe(ended_by)}", LAST_WORDS)
    return USAGE_ERROR


def _wait_for_printing(submission: Submission, events: Events[Event]) -> None:
    """Let what is finished be printed, while somebody reads it; another signal ends that."""
    before = -1
    while submission.is_printing and submission.written > before:
        before = submission.written
        with suppress(Empty):
            if isinstance(events.get_within(LAST_WORDS), int):
                break
    if submission.is_printing:
        streams.complain("not all that was finished is printed: nobody reads it", LAST_WORDS)


def describe(error: Exception) -> str:
    """Say what went wrong."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)
