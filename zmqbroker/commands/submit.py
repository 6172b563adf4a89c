"""`zmqbroker submit`: its options, and what it does with them."""

import argparse
import logging
import os
import signal
from contextlib import suppress
from queue import Empty

from zmqbroker import wire
from zmqbroker.client.client import DEFAULT_WINDOW, Client
from zmqbroker.commands import streams
from zmqbroker.commands.events import Events
from zmqbroker.commands.options import USAGE_ERROR, add_connect_timeout, factor, number, queue_name, whole_number
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.submission import Complaints, Input, Output, Submission
from zmqbroker.transport import signals
from zmqbroker.wire import CANCELLED, DONE, FAILED

SUBMIT = "submit each line of files or of stdin as a task, and print the replies"
DESCRIPTION = """\
Submit each line of the files, or of stdin, as a task. The replies go to stdout in order, each with a newline where it
lacks one; a failure goes to stderr, with its line's number and the reason, and prints no line on stdout. With --whole
each file is a task, and only a result that is text gets a newline."""
EXAMPLES = """\
examples:
  seq 1000 | zmqbroker submit tcp://localhost:4161
  zmqbroker submit --whole -T 60 tcp://localhost:4161 *.svg > all

Exit status: 0 if all tasks were done; 1 if any failed; 2 for bad options, a file that cannot be read, output that
cannot be written, a wrong address, or no broker within --connect-timeout; 130 after Ctrl-C, 143 after SIGTERM and 129
after SIGHUP, which print what is finished; 141 when nobody reads the output any more. What is left of the tasks is
cancelled in each of these cases."""
OF_TASKS = (  # the options that are Client.submit's too
    "tries",
    "timeout",
    "delay",
    "priority",
    "queue",
    "group",
    "expires",
    "retry_delay",
    "retry_factor",
    "retry_most",
)
Event = int | Exception | None  # a signal, an error, or that all is printed
LAST_WORDS = 2.0  # seconds, at the end, for whoever takes nothing of what is printed


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `submit` takes."""
    add = parser.add_argument
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add(
        "-t",
        "--tries",
        type=number(int, "no limit"),
        metavar="N",
        help="attempts at a task (default: as the broker was told; 0: no limit)",
    )
    add(
        "-T",
        "--timeout",
        type=number(float, "no limit"),
        metavar="SECONDS",
        help="time for an attempt (default: as the broker was told; 0: no limit)",
    )
    add(
        "--delay",
        type=number(float, "at once"),
        metavar="SECONDS",
        help="time before the first attempt (default: 0, at once)",
    )
    add("--priority", type=whole_number, metavar="N", help="tasks with a higher one go first (default: 0)")
    add("--queue", type=queue_name, metavar="NAME", help="where the tasks wait for workers (default: default)")
    add("--group", metavar="NAME", help="whose tasks these are: in a queue the groups take turns (default: none)")
    add(
        "--expires",
        type=number(float, "not possible"),
        metavar="SECONDS",
        help="time from its submission after which a task without a result has failed, waiting or running "
        "(default: any)",
    )
    _add_retry_options(parser)
    add(
        "--window",
        type=number(int, "not possible"),
        default=DEFAULT_WINDOW,
        metavar="N",
        help="tasks ahead of what was printed, at most (default: %(default)s)",
    )
    add(
        "--unordered",
        action="store_true",
        help="print replies as they come, each after its line's number and a tab",
    )
    add(
        "--whole",
        action="store_true",
        help="take each file as one task, and not each line",
    )
    add_connect_timeout(parser)
    add("-q", "--quiet", action="store_true", help="show no progress")
    add("requests", metavar="REQUESTS", help="the broker's address for clients: tcp://localhost:4161, ...")
    add("files", metavar="FILE", nargs="*", help="files to read; - is stdin (default: stdin)")


def _add_retry_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--retry-delay",
        type=number(float, "at once"),
        metavar="SECONDS",
        help="time before a lost attempt is tried again (default: as the broker was told; 0: at once)",
    )
    add(
        "--retry-factor",
        type=factor,
        metavar="FACTOR",
        help="by which that time grows with each further attempt (default: as the broker was told; 1: not at all)",
    )
    add(
        "--retry-most",
        type=number(float, "any"),
        metavar="SECONDS",
        help="time that it grows to (default: as the broker was told; 0: any)",
    )


def submit(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Submit tasks and print their replies; return the exit status."""
    if options.window < 1:
        parser.error("--window must be 1 or more")
    tasks = Input(options.files or [streams.STDIN_NAME], options.whole)
    fields = {name: value for name in OF_TASKS if (value := getattr(options, name)) is not None}
    try:
        wire.check_fields(fields)
        tasks.check()
        client = Client(options.requests, connect_timeout=options.connect_timeout or None)
    except OSError as error:
        parser.error(_describe(error))
    except ValueError as error:
        parser.error(str(error))
    shown = os.isatty(streams.STDERR) and not options.quiet
    progress = Progress(shown, tasks.total() if shown else None)
    output = Output(not options.unordered, options.whole)
    submission = Submission(client, tasks, output, options.window, fields, progress)
    logging.getLogger("zmqbroker").addHandler(Complaints(submission))
    events: Events[Event] = Events()
    with client, events.woken_by_signals():
        return _finish(submission, events, progress)


def _finish(submission: Submission, events: Events[Event], progress: Progress) -> int:
    """Run a submission to its end, whichever that is."""
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
        text = f"{counts[DONE]} tasks done, {counts[FAILED]} failed, {counts[CANCELLED]} cancelled"
        streams.complain(f"interrupted: {text}", LAST_WORDS)
        return signals.INTERRUPTED + ended_by
    streams.complain(f"zmqbroker submit: {_describe(ended_by)}", LAST_WORDS)
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


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)
