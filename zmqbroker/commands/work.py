"""`zmqbroker work`: its options, and what it does with them."""

import argparse
import os
import shlex
import signal
from collections.abc import Sequence

from zmqbroker.commands.options import add_connect_timeout, log_level, number, refuse_repeated
from zmqbroker.transport import signals
from zmqbroker.transport.stderr_log import log_to_stderr
from zmqbroker.worker.process import Settings
from zmqbroker.worker.supervisor import CannotStartError, Supervisor

LONGEST_WAIT = 1_000_000  # seconds; a poll takes milliseconds, in 31 bits
WORK = "run a function of yours, or a command, on tasks"
USAGE = """zmqbroker work [options] READY RESULTS MODULE:FUNCTION
       zmqbroker work [options] READY RESULTS -- COMMAND [ARG ...]"""
DESCRIPTION = """\
Run a function of yours, or a command, on tasks, in processes that are replaced when they crash.

The function gets the body of a task, bytes (a list of bytes if it has several frames), and returns that of the result.
It is imported from the current directory. An exception fails the attempt; zmqbroker.Reject fails the task for good.

The command gets the body on its stdin, and what it prints is the result. The attempt fails if it ends with any other
status than 0; the reason is that, and the last line of its stderr."""
EXAMPLES = """\
examples:
  zmqbroker work tcp://localhost:4162 tcp://localhost:4163 tasks:shrink --processes 4
  zmqbroker work tcp://localhost:4162 tcp://localhost:4163 --kill-after 60 -- convert - -resize 50% png:-

SIGTERM, SIGHUP or Ctrl-C: the tasks in hand are finished, then it ends with status 0. A second one, more than half a
second later, ends them at once. SIGUSR1 has it log what the processes have done so far."""


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return the arguments of `zmqbroker`, and the command that follows `--` in those of `zmqbroker work`, if any.

    argparse drops the `--`, and could not tell a command from a function.
    """
    given = list(arguments)
    if given[:1] != ["work"] or "--" not in given:
        return given, None
    end = given.index("--")
    return given[:end], given[end + 1 :]


def add_work_options(parser: argparse.ArgumentParser, command_line: list[str] | None) -> None:
    """Declare what `work` takes, with a command or (None) with a function."""
    seconds, add = number(float, "never"), parser.add_argument
    parser.usage, parser.description, parser.epilog = USAGE, DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add(
        "--processes",
        type=number(int, "one for each processor"),
        default=1,
        metavar="N",
        help="processes, each with one task at a time (default: %(default)s; 0: one for each processor)",
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
        help="while a task runs, ask the broker for its timeout anew, each time after so long; less than the timeout "
        "(default: 0, never)",
    )
    add(
        "--kill-after",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="time for a command, which is then killed with its process group, and the attempt fails "
        "(default: 0, no limit)",
    )
    add(
        "--slots",
        type=number(int, "not possible"),
        default=1,
        metavar="N",
        help="tasks that a process may have in hand; they are done one after the other, so more than %(default)s is "
        "for tasks of microseconds (default: %(default)s)",
    )
    add("--label", metavar="TEXT", help="what the workers call themselves when they ask for tasks (default: ready)")
    add_connect_timeout(parser)
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log also what commands print on their stderr")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    add("ready", metavar="READY", help="the broker's address for workers asking for tasks: tcp://localhost:4162, ...")
    add("results", metavar="RESULTS", help="the broker's address for results")
    parser.set_defaults(function=None, command_line=command_line or [])
    if command_line is None:
        add(
            "function",
            metavar="MODULE:FUNCTION",
            help="the function to run on each task: tasks:shrink, package.module:thing.method, ...",
        )
    elif not command_line:
        parser.error("a command is missing after --")


def work(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run worker processes until a signal ends them."""
    refuse_repeated(parser, options.ready, options.results)
    log_to_stderr(log_level(options))
    if options.kill_after and options.function:
        parser.error("--kill-after is for a command; a function that hangs is up to the broker's timeout")
    if max(options.kill_after, options.touch) > LONGEST_WAIT:
        parser.error(f"--kill-after and --touch take {LONGEST_WAIT:,} seconds at most")
    settings = Settings(
        ready=options.ready,
        results=options.results,
        function=options.function,
        command=options.command_line,
        kill_after=options.kill_after,
        touch=options.touch,
        max_tasks=options.max_tasks,
        slots=options.slots,
        connect_timeout=options.connect_timeout,
        label=options.label,
        log_level=log_level(options),
    )
    name = options.function or shlex.join(options.command_line)
    supervisor = Supervisor(settings.program(), options.processes or processors(), name)
    handled = signals.on_signals(
        lambda number: supervisor.stop(number.name if number == signal.SIGHUP else ""), supervisor.report
    )
    try:
        supervisor.run()
    except CannotStartError as error:
        parser.error(str(error))
    signals.ignore(handled)  # it is ending
    return 0


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
