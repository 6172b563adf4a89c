"""`zmqbroker submit`: its options, and what it does with them."""

import argparse
import os
import uuid
from typing import Any

from zmqbroker import wire
from zmqbroker.client.client import DEFAULT_WINDOW, Client
from zmqbroker.client.futures import OnProgress, TaskFuture, failed
from zmqbroker.commands import finishing, streams
from zmqbroker.commands.lines import Input, Output
from zmqbroker.commands.options import add_connect_timeout, add_identity, factor, number, queue_name, whole_number
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.submission import Send, Submission, Words, connect
from zmqbroker.wire.json_body import read_json

DESCRIPTION = """\
Submit each line of the files, or of stdin, as a task. The replies go to stdout in order, each with a newline where it
lacks one; a failure goes to stderr, with its line's number and the reason, and prints no line on stdout. With --whole
each file is a task, and only a result that is text gets a newline. With --detach the tasks are left with the broker,
and their keys are printed, for `zmqbroker fetch`."""
EXAMPLES = """\
examples:
  seq 1000 | zmqbroker submit tcp://localhost:4161
  zmqbroker submit --whole -T 60 tcp://localhost:4161 *.svg > all
  seq 1000 | zmqbroker submit --detach tcp://localhost:4161 > keys

Exit status: 0 if all tasks were done, or accepted with --detach; 1 if any failed; 2 for bad options, a file that cannot
be read, output that cannot be written, a wrong address, or no broker within --connect-timeout; 130 after Ctrl-C, 143
after SIGTERM and 129 after SIGHUP, which print what is finished; 141 when nobody reads the output any more. What is
left of the tasks is cancelled in each of these cases, but for those that were accepted with --detach."""
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
    "durable",
    "detach",
    "keep",
)
LONGEST_PREFIX = 200  # characters, so that there is room for what follows
WAITED_FOR, LEFT = Words("tasks done", "cancelled"), Words("tasks accepted", "cancelled")


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
    add_connect_timeout(parser)
    add_identity(parser)
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


def submit(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Submit tasks and print their replies; return the exit status."""
    if options.window < 1:
        parser.error("--window must be 1 or more")
    if options.json_lines and options.whole:
        parser.error("--json-lines takes lines, and --whole whole files")
    tasks = Input(options.files or [streams.STDIN_NAME], options.whole)
    fields = {name: value for name in OF_TASKS if (value := getattr(options, name)) is not None}
    try:
        wire.check_fields(fields)
        tasks.check()
        client = connect(options)
    except OSError as error:
        parser.error(finishing.describe(error))
    except ValueError as error:
        parser.error(str(error))
    shown = os.isatty(streams.STDERR) and not options.quiet
    progress = Progress(shown, tasks.total() if shown else None)
    as_json = options.json_lines and not options.detach  # the result of that is a key
    output = Output(not options.unordered, options.whole, as_json=as_json)
    send = _send_with(client, fields, options.key_prefix, options.json_lines)
    submission = Submission(send, tasks, output, options.window, LEFT if options.detach else WAITED_FOR, progress)
    return finishing.run(parser.prog, client, submission, progress)


def _send_with(client: Client, fields: dict[str, Any], key_prefix: str | None, are_json: bool) -> Send:
    """Return what submits a task with these fields; no two runs make the same key.

    What is to be JSON, and is none, fails without being sent.
    """
    run = uuid.uuid4().hex

    def send(number: int, body: Any, on_progress: OnProgress | None) -> TaskFuture:
        key = None if key_prefix is None else f"{key_prefix}{run}-{number}"
        hook = None if fields.get("detach") else on_progress  # who leaves tasks hears no more of them
        if not are_json:
            return client.submit(body, key=key, on_progress=hook, **fields)
        try:
            return client.submit(json=read_json([body]), key=key, on_progress=hook, **fields)
        except ValueError as error:
            return failed(error)

    return send
