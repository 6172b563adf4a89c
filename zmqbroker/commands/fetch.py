"""`zmqbroker fetch`: its options, and what it does with them."""

import argparse
import os

from zmqbroker.client.client import DEFAULT_WINDOW
from zmqbroker.client.futures import OnProgress, TaskFuture
from zmqbroker.commands import finishing, streams
from zmqbroker.commands.lines import Keys
from zmqbroker.commands.options import add_connect_timeout, add_identity, number
from zmqbroker.commands.output import Output, WhenPrinted
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.submission import How, Submission, Words, connect
from zmqbroker.commands.takers import Item, Taker, Takers

DESCRIPTION = """\
Fetch the results of the tasks with these keys, as `submit --detach` has printed them. They go to stdout in order, each
with a newline where it lacks one and is text. What has failed, is not done yet or is not known goes to stderr, with the
key and the reason, and prints nothing on stdout."""
EXAMPLES = """\
examples:
  seq 1000 | zmqbroker submit --detach tcp://localhost:4161 > keys
  zmqbroker fetch --wait 60 --forget --keys-from keys tcp://localhost:4161

Exit status: 0 if all results were there; 1 if any was not; 2 for bad options, a file that cannot be read, output that
cannot be written, a wrong address, or no broker within --connect-timeout; 130 after Ctrl-C, 143 after SIGTERM and 129
after SIGHUP, which print what has come; 141 when nobody reads the output any more. The tasks go on in each of these
cases."""
FETCHED = Words("results fetched", "not fetched")


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `fetch` takes."""
    add = parser.add_argument
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add("--keys-from", metavar="FILE", help="a file of keys, one a line; - is stdin")
    add(
        "--wait",
        type=number(float, "not at all"),
        default=0,
        metavar="SECONDS",
        help="time for a task to be settled, from when its result is asked for (default: 0, not at all)",
    )
    add(
        "--forget",
        action="store_true",
        help="have the broker forget each result that was printed; it keeps those of tasks that have failed",
    )
    add(
        "--window",
        type=number(int, "not possible"),
        default=DEFAULT_WINDOW,
        metavar="N",
        help="results asked for ahead of what was printed, at most (default: %(default)s)",
    )
    add("--unordered", action="store_true", help="print results as they come, each after its key and a tab")
    add_connect_timeout(parser)
    add_identity(parser)
    add("-q", "--quiet", action="store_true", help="show no progress")
    add("requests", metavar="REQUESTS", help="the broker's address for clients: tcp://localhost:4161, ...")
    add("keys", metavar="KEY", nargs="*", help="the keys of tasks")


def fetch(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Fetch results and print them; return the exit status."""
    if options.window < 1:
        parser.error("--window must be 1 or more")
    if not options.keys and options.keys_from is None:
        parser.error("which tasks? name keys, or a file of them with --keys-from")
    keys = Keys(options.keys, options.keys_from)
    try:
        keys.check()
        client = connect(options)
    except OSError as error:
        parser.error(finishing.describe(error))
    except ValueError as error:
        parser.error(str(error))

    def send(item: Item, _on_progress: OnProgress | None) -> TaskFuture:
        return client.outcome(item.body, options.wait)

    def forget(items: list[Item]) -> None:
        client.forget(*(item.place for item in items))

    shown = os.isatty(streams.STDERR) and not options.quiet
    progress = Progress(shown, keys.total() if shown else None)
    takers: list[Taker] = [Output(whole=True, label=(lambda item: item.place) if options.unordered else None)]
    if options.forget:
        takers.append(WhenPrinted(forget))
    how = How(not options.unordered, options.window, FETCHED)
    submission = Submission(send, keys, Takers(takers), how, progress)
    return finishing.run(parser.prog, client, submission, progress)
