"""`zmqbroker work`: its options, and what it does with them."""

import argparse
import os
import shlex
import signal
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any

from zmqbroker.commands.options import add_connect_timeout, add_identity, log_level, number, queue_names
from zmqbroker.transport import signals
from zmqbroker.transport.destination import destination
from zmqbroker.transport.limited_log import printable
from zmqbroker.transport.notify import service_manager
from zmqbroker.transport.stderr_log import FORMAT, log_to_stderr
from zmqbroker.transport.trust import refuse_strangers
from zmqbroker.wire import DEFAULT_QUEUE
from zmqbroker.wire.calls import QUEUE as CALLS_QUEUE
from zmqbroker.wire.calls import is_for_calls
from zmqbroker.worker.last_words import say_last_words
from zmqbroker.worker.limits import DEFAULT_GRACE, Limits
from zmqbroker.worker.process import Settings
from zmqbroker.worker.supervisor import CannotStartError, Supervisor

LABELLED = "%(asctime)s {}: %(message)s"  # its log, of workers that have a label
DANGER = "may send tasks there runs code here"
IDENTITIES = "--identity and --broker-identity"
TRUST = "--trust-the-network"
LONGEST_WAIT = 1_000_000  # seconds; a poll takes milliseconds, in 31 bits
USAGE = """zmqbroker work [options] READY MODULE:FUNCTION
       zmqbroker work [options] READY --python
       zmqbroker work [options] READY -- COMMAND [ARG ...]"""
DESCRIPTION = """\
Run a function of yours, or a command, on tasks, in processes that are replaced when they crash.

The function gets the body of a task, bytes (a list of bytes if it has several frames), and returns that of the result.
It is imported from the current directory. An exception fails the attempt; zmqbroker.Reject fails the task for good.
With --json it is called with the members of a JSON object by name, or of an array by place, and returns what JSON can
say.

The command gets the body on its stdin, or in the place of an argument {}, and what it prints is the result. The attempt
fails if it ends with any other status than 0; the reason is that, and the last line of its stderr. ZMQBROKER_KEY,
ZMQBROKER_QUEUE and ZMQBROKER_ATTEMPT tell it about its task, and a line `ZMQBROKER_PROGRESS done/total text` on its
stderr says how far it has come.

With --python the tasks are calls, and what is to be called comes with them: from a zmqbroker.Executor."""
EXAMPLES = """\
examples:
  zmqbroker work tcp://localhost:4162 tasks:shrink --processes 4
  zmqbroker work tcp://localhost:4162 --kill-after 60 -- convert - -resize 50% png:-
  zmqbroker work tcp://localhost:4162 -- gzip -9 -- {}

SIGTERM, SIGHUP or Ctrl-C: the tasks in hand are finished, then it ends with status 0. A second one, more than half a
second later, ends them at once. SIGUSR1 has it log what the processes have done so far."""


class InsteadOfFunction(argparse.Action):
    """What --python does: there need be no function then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, *_: Any) -> None:
        """Have it so."""
        setattr(options, self.dest, True)
        for action in parser._actions:
            action.required = action.required and action.dest != "function"


def add_work_options(parser: argparse.ArgumentParser, command_line: list[str] | None) -> None:
    """Declare what `work` takes, with a command or (None) with a function."""
    seconds, add = number(float, "never"), parser.add_argument
    parser.usage, parser.description, parser.epilog = USAGE, DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add(
        "--python",
        action=InsteadOfFunction,
        help="call the functions that a zmqbroker.Executor sends: whoever may send tasks may run any code here",
    )
    add(
        "--trust-the-network",
        action="store_true",
        help="with --python, though READY is on another machine and there are no identities: whoever reaches the "
        "broker may run any code here",
    )
    add(
        "--queues",
        type=queue_names,
        metavar="NAME[,NAME...]",
        help=f"the queues to take tasks from, those of the first one first (default: {DEFAULT_QUEUE}; with --python "
        f"{CALLS_QUEUE}, and only queues {CALLS_QUEUE}.NAME besides)",
    )
    add(
        "--processes",
        type=number(int, "one for each processor"),
        default=1,
        metavar="N",
        help="processes, each of which does one task after the other (default: %(default)s; 0: one for each processor)",
    )
    add(
        "--max-tasks",
        type=number(int, "no limit"),
        default=0,
        metavar="N",
        help="tasks after which a process leaves to another one (default: 0, no limit)",
    )
    add(
        "--touch",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="while a task runs, up to --kill-after, ask the broker for its timeout anew, each time after so long; "
        "less than the timeout (default: 0, never)",
    )
    add(
        "--kill-after",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="time for a task: then the process of a function is killed and replaced, a command is killed with its "
        "process group, and the attempt fails (default: 0, no limit)",
    )
    add(
        "--grace",
        type=number(float, "none"),
        default=DEFAULT_GRACE,
        metavar="SECONDS",
        help="time for a task that the broker has given up, after its timeout: then its process is killed and replaced "
        "(default: %(default)g)",
    )
    add(
        "--kill-cancelled",
        action="store_true",
        help="end the process of a function when nobody wants its result any more (a command is always ended)",
    )
    add(
        "--json",
        action="store_true",
        help="call the function with what the body says in JSON, an object by name or an array by place, and return "
        "the result as JSON",
    )
    add(
        "--slots",
        type=number(int, "what is sensible"),
        default=0,
        metavar="N",
        help="tasks that a process has or asks for; they are done one after the other (default: %(default)s, as many "
        "as take 5 milliseconds, from 1 to 64)",
    )
    add(
        "--label",
        metavar="TEXT",
        help="what the workers are called in the logs, here and of the broker, besides host and process",
    )
    add_connect_timeout(parser)
    add_identity(parser)
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log also what commands print on their stderr")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    add("ready", metavar="READY", help="the broker's address for workers asking for tasks: tcp://localhost:4162, ...")
    parser.set_defaults(function=None, command_line=command_line or [])
    if command_line is None:
        add(
            "function",
            metavar="MODULE:FUNCTION",
            type=no_address,
            help="the function to run on each task: tasks:shrink, package.module:thing.method, ...",
        )
    elif command_line:
        add("function", nargs="?", type=no_address, help=argparse.SUPPRESS)
    else:
        parser.error("a command is missing after --")


def no_address(text: str) -> str:
    """Return the name of a function; an address there is that of RESULTS, which workers needed once."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a second address: a worker needs READY alone")
    return text


def check_work(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit at options that do not go together: what is to do the tasks, and the queues that these come from."""
    if options.function and options.command_line:
        parser.error(f"either a function, {options.function}, or a command")
    if options.json and not options.function:
        parser.error("--json is for a function: a command reads JSON, and prints it, by itself")
    if options.python and (options.function or options.command_line):
        parser.error("--python takes neither a function nor a command: what is to be called comes with the tasks")
    if options.trust_the_network and not options.python:
        parser.error("--trust-the-network goes with --python")
    for queue in options.queues or ():
        if is_for_calls(queue) and not options.python:
            parser.error(f"the queue {queue} is for calls of functions: give --python, or another queue")
        if options.python and not is_for_calls(queue):
            parser.error(f"--python serves queues for calls alone, {CALLS_QUEUE} and {CALLS_QUEUE}.NAME, not {queue}")


def work(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run worker processes until a signal ends them."""
    form = FORMAT if options.label is None else LABELLED.format(printable(options.label).replace("%", "%%"))
    log_to_stderr(log_level(options), form)
    check_work(options, parser)
    if max(options.kill_after, options.grace, options.touch) > LONGEST_WAIT:
        parser.error(f"--kill-after, --grace and --touch take {LONGEST_WAIT:,} seconds at most")
    try:
        broker = destination(options.ready, identity=options.identity, broker_identity=options.broker_identity)
        if options.python and not options.trust_the_network:
            refuse_strangers(broker, DANGER, IDENTITIES, TRUST)
    except ValueError as error:
        parser.error(str(error))
    settings = Settings(
        ready=options.ready,
        function=options.function,
        python=options.python,
        json=options.json,
        command=options.command_line,
        queues=options.queues or [CALLS_QUEUE if options.python else DEFAULT_QUEUE],
        kill_after=options.kill_after,
        kill_cancelled=options.kill_cancelled,
        touch=options.touch,
        max_tasks=options.max_tasks,
        slots=options.slots,
        connect_timeout=options.connect_timeout,
        label=options.label,
        identity=options.identity,
        broker_identity=options.broker_identity,
        log_level=log_level(options),
    )
    name = options.function or shlex.join(options.command_line) or "calls"
    kill_after = 0 if settings.is_command else options.kill_after  # the process of a command sees to that
    limits = Limits(options.grace, kill_after or inf)
    tell = partial(say_last_words, broker)
    supervisor = Supervisor(settings.program(), options.processes or processors(), name, limits, tell)
    handled = signals.on_signals(
        lambda number: supervisor.stop(number.name if number == signal.SIGHUP else ""), supervisor.report
    )
    try:
        with service_manager() as manager:  # before there are processes: it is none of theirs
            supervisor.service_manager, manager.describe = manager, supervisor.describe
            supervisor.run()
    except CannotStartError as error:
        parser.error(str(error))
    signals.ignore(handled)  # it is ending
    return 0


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
