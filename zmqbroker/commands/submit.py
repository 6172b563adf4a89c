"""`zmqbroker submit`: its options, and what it does with them."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from zmqbroker import wire
from zmqbroker.client.client import DEFAULT_WINDOW, Client
from zmqbroker.commands.options import add_connect_timeout, number, whole_number
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.submission import STDIN, Complaints, Input, Output, Submission

SUBMIT = "submit each line of files or of stdin as a task, and print the replies"
DESCRIPTION = """\
Submit each line of the files, or of stdin, as a task. The replies go to stdout in order, each with a newline where it
lacks one; a failure goes to stderr, with its line's number and the reason, and prints no line on stdout."""
EXAMPLES = """\
examples:
  seq 1000 | zmqbroker submit tcp://localhost:4161
  zmqbroker submit --whole -T 60 tcp://localhost:4161 *.svg > all

Exit status: 0 if all tasks were done; 1 if any failed; 2 for bad options, a file that cannot be read, or no
broker within --connect-timeout; 130 after Ctrl-C and 143 after SIGTERM, which cancel what is outstanding; 141 when
nobody reads the output any more."""
INTERRUPTED = 128  # added to the number of the signal, as shells do


class Interrupted(BaseException):
    """A signal asks for the end; its number is the argument."""


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


def submit(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Submit tasks and print their replies; return the exit status."""
    _on_signals(signal.SIG_DFL)  # there is nothing to cancel before the lines are counted
    if options.window < 1:
        parser.error("--window must be 1 or more")
    tasks = Input(options.files or [STDIN], options.whole)
    options_of_tasks = {name: getattr(options, name) for name in ("tries", "timeout", "delay", "priority")}
    fields = {name: value for name, value in options_of_tasks.items() if value is not None}
    try:
        wire.check_fields(fields)
        tasks.check()
        client = Client(options.requests, connect_timeout=options.connect_timeout or None)
    except OSError as error:
        parser.error(_describe(error))
    except ValueError as error:
        parser.error(str(error))
    shown = sys.stderr.isatty() and not options.quiet
    output = Output(sys.stdout.buffer, not options.unordered)
    progress = Progress(shown, tasks.total() if shown else None)
    submission = Submission(client, tasks, output, options.window, fields, progress)
    logging.getLogger("zmqbroker").addHandler(Complaints(submission))
    with client:
        return _finish(submission, progress)


def _finish(submission: Submission, progress: Progress) -> int:
    """Run a submission to its end, whichever that is."""
    status = 0
    try:
        _on_signals(_interrupt)
        submission.run()
    except Interrupted as interruption:
        status = INTERRUPTED + interruption.args[0]
    except BrokenPipeError:
        status = INTERRUPTED + signal.SIGPIPE
        _discard_output()
    except (OSError, ValueError) as error:
        print(f"zmqbroker submit: {_describe(error)}", file=sys.stderr)
        status = 2
    finally:
        _on_signals(signal.SIG_IGN)
        submission.cancel()
        _on_signals(signal.SIG_DFL)  # another one ends it at once, should nobody read the output
    progress.close(submission.done, submission.failed)
    if status > INTERRUPTED and status != INTERRUPTED + signal.SIGPIPE:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        text = (
            f"interrupted: {submission.done} tasks done, {submission.failed} failed, {submission.cancelled} cancelled"
        )
        print(text, file=sys.stderr)
    return status or int(submission.failed > 0)


def _on_signals(handler: "Callable[[int, FrameType | None], NoReturn] | signal.Handlers") -> None:
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, handler)


def _discard_output() -> None:
    """Let what is left in the buffer of stdout go nowhere: nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)
