"""`zmqbroker submit`: its options."""

import argparse

from zmqbroker.client.client import DEFAULT_WINDOW
from zmqbroker.commands import halting
from zmqbroker.commands.options import add_connect_timeout, add_identity, factor, number, queue_name, whole_number

DESCRIPTION = """\
Submit each line of the files, or of stdin, as a task. The replies go to stdout in order, each with a newline where it
lacks one; a failure goes to stderr, with its line's number and the reason, and prints no line on stdout. With --whole
each file is a task, and only a result that is text gets a newline. With --detach the tasks are left with the broker,
and their keys are printed, for `zmqbroker fetch`."""
EXAMPLES = """\
examples:
  seq 1000 | zmqbroker submit tcp://localhost:4161
  zmqbroker submit --whole --output '{.}.png' -T 60 tcp://localhost:4161 *.svg
  zmqbroker submit --report report --resume-failed --results results tcp://localhost:4161 lines
  find . -name '*.txt' -print0 | zmqbroker submit -0 --halt soon,fail=10% tcp://localhost:4161
  seq 1000 | zmqbroker submit --detach tcp://localhost:4161 > keys

Exit status: 0 if all tasks were done, or accepted with --detach; 1 if any failed, also where --halt has ended it, or
had failed before and was left out by --resume; 2 for bad options, a file that cannot be read, output that cannot be
written, a wrong address, no broker within --connect-timeout, or one that takes none of the tasks, as it has no store;
124 when --give-up has ended it; 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, which print what is finished;
141 when nobody reads the output any more. What is left of the tasks is cancelled in each of these cases, but for those
that were accepted with --detach."""
LONGEST_PREFIX = 200  # characters, so that there is room for what follows


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
    _add_store_options(parser)
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
    add(
        "--json-lines",
        action="store_true",
        help="take each line as JSON, for workers with --json, and print each result as JSON on one line; what is no "
        "JSON has failed",
    )
    add("-0", "--null", action="store_true", help="lines end with a NUL, and may have newlines; results are as ever")
    parser._has_negative_number_optionals.clear()  # or argparse would take the -1 of `--priority -1` for an option too
    add(
        "--keep-lines",
        action="store_true",
        help="print an empty line for a failure, so that each line of output is at the place of its line of input",
    )
    _add_file_options(parser)
    _add_end_options(parser)
    add_connect_timeout(parser)
    add_identity(parser)
    add("-q", "--quiet", action="store_true", help="show no progress")
    add("requests", metavar="REQUESTS", help="the broker's address for clients: tcp://localhost:4161, ...")
    add("files", metavar="FILE", nargs="*", help="files to read; - is stdin (default: stdin)")


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--results",
        metavar="DIR",
        help="print nothing, and write each result to the file DIR/N, whole or not at all, where N is the number of "
        "its line; why there is none goes to DIR/N.err. A directory that has some is for --report with --resume or "
        "--resume-failed only",
    )
    add(
        "--output",
        metavar="TEMPLATE",
        help="with --whole: print nothing, and write the result of each file, whole or not at all, to one that is "
        "named after it: {} is its name, {.} without its extension, {/} without its directory, {//} the directory, "
        "{/.} without both",
    )
    add(
        "--report",
        metavar="FILE",
        help="write a JSON line to it for each outcome, once the result itself is written: which line or file, status, "
        "attempts, seconds, worker, reason",
    )
    resuming = parser.add_mutually_exclusive_group()
    resuming.add_argument(
        "--resume", action="store_true", help="with --report: go on with one, and leave out all that it tells of"
    )
    resuming.add_argument(
        "--resume-failed",
        action="store_true",
        help="with --report: the same, but do again what has failed",
    )
    add(
        "--failed-to",
        metavar="FILE",
        help="write to it the lines, or with --whole the names of the files, that were submitted and have no result, "
        "to be submitted again; with -0 they end with a NUL, as names that have newlines must. What it had before is "
        "lost",
    )


def _add_end_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--halt",
        type=_halt,
        metavar="WHEN,fail=N",
        help="submit nothing more once N tasks have failed, or with N%% so many of those that have come to an end, "
        f"and at least {halting.FEWEST}. What waits is cancelled; what runs is too if WHEN is now, and finishes if it "
        "is soon",
    )
    add(
        "--give-up",
        type=number(float, "not possible"),
        metavar="SECONDS",
        help="time for all of it together: what is not done by then is cancelled, and the exit status is 124",
    )


def _halt(text: str) -> halting.Halt:
    try:
        return halting.halt(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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


def _add_store_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--detach",
        action="store_true",
        default=None,
        help="leave the tasks with the broker, which needs a store, and print the key of each when it is accepted",
    )
    add(
        "--durable",
        action="store_true",
        default=None,
        help="have the tasks outlive the broker, which needs a store, though their replies are waited for",
    )
    add(
        "--keep",
        type=number(float, "not possible"),
        metavar="SECONDS",
        help="time for which the outcomes of such tasks are kept (default: with --detach as the broker was told, "
        "else 60)",
    )
    add(
        "--key-prefix",
        type=_key_prefix,
        metavar="TEXT",
        help="what the keys of the tasks begin with; 32 random characters and the number of the line follow "
        "(default: nothing)",
    )


def _key_prefix(text: str) -> str:
    if not text.isprintable() or len(text) > LONGEST_PREFIX:
        raise argparse.ArgumentTypeError(f"{text!r} is not up to {LONGEST_PREFIX} printable characters")
    return text
