"""`zmqbroker serve`: its options, and what it does with them."""

import argparse
import logging
import signal
from time import monotonic
from typing import Any

from zmqbroker.broker.broker import DEFAULT_DRAIN, DEFAULT_IO_THREADS, Broker
from zmqbroker.broker.intake import DEFAULT_RECLAIM, DEFAULT_TRIES
from zmqbroker.broker.store.gate import StoreError
from zmqbroker.broker.store.journal import DEFAULT_KEEP, DEFAULT_KEEP_FAILED
from zmqbroker.broker.store.sqlite import DEFAULT_FLOOR
from zmqbroker.commands import streams
from zmqbroker.commands.options import ShowVersion, factor, log_level, number, queue_limit, refuse_repeated
from zmqbroker.transport import signals
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.notify import service_manager
from zmqbroker.transport.places import AUTO
from zmqbroker.transport.stderr_log import log_to_stderr

SERVE_EXAMPLE = """\
example:
  zmqbroker serve -t 3 -T 60 "tcp://*:4161" "tcp://*:4162" "tcp://*:4163\""""
STDOUT_PATIENCE = 1.0  # seconds for a stdout that takes nothing
NO_CONTROL = "none"
STORE_ERROR = 1  # exit status
OF_THE_STORE = ("store_floor", "keep", "keep_failed", "reclaim")  # options that go with one

log = logging.getLogger("zmqbroker.serve")


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the broker takes."""
    if parser.prog != "broker.py":  # which is called by another name
        parser.epilog, parser.formatter_class = SERVE_EXAMPLE, argparse.RawDescriptionHelpFormatter
    count, seconds, add = number(int, "no limit"), number(float, "none"), parser.add_argument
    add(
        "-t",
        "--tries",
        type=count,
        default=DEFAULT_TRIES,
        metavar="N",
        help="attempts at a task before its client gets a failure (default: %(default)s; 0: no limit)",
    )
    add(
        "-T",
        "--timeout",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="time for an attempt before the task goes to another worker; fractions allowed (default: 0, no limit)",
    )
    add(
        "--retry-delay",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="time before a lost attempt is tried again (default: 0, at once)",
    )
    add(
        "--retry-factor",
        type=factor,
        default=1,
        metavar="FACTOR",
        help="by which that time grows with each further attempt (default: 1, not at all)",
    )
    add(
        "--retry-most",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="time that it grows to (default: 0, any)",
    )
    add(
        "--fair",
        action="store_true",
        help="let clients take turns: the tasks of each connection are a group, unless their client says which group "
        "they belong to",
    )
    add(
        "--limit",
        type=queue_limit,
        action="append",
        default=[],
        metavar="NAME=N",
        help="tasks of the queue NAME that may run at once; may be given for several queues (default: any number)",
    )
    add(
        "--limit-waiting",
        type=queue_limit,
        action="append",
        default=[],
        metavar="NAME=N",
        help="tasks of the queue NAME that may wait; more are refused, and clients send them again later (default: any "
        "number)",
    )
    add(
        "--max-waiting",
        type=count,
        default=0,
        metavar="N",
        help="tasks that may wait for a worker; at the bound no requests are read and their senders wait "
        "(default: 0, no limit)",
    )
    add(
        "--max-size",
        type=count,
        default=0,
        metavar="BYTES",
        help="size of a task's body; a larger one gets a failure at once (default: 0, no limit)",
    )
    add(
        "--drain",
        type=seconds,
        default=DEFAULT_DRAIN,
        metavar="SECONDS",
        help="time to finish what was accepted, after the first SIGTERM or Ctrl-C (default: %(default)g; 0: none)",
    )
    add(
        "--keep-alive",
        type=number(int, "never"),
        nargs=3,
        default=KeepAlive(),
        metavar=("IDLE", "INTERVAL", "PROBES"),
        help="TCP takes a peer for dead after IDLE seconds of silence and PROBES probes without an answer, INTERVAL "
        f"seconds apart (default: {' '.join(map(str, KeepAlive()))}; IDLE 0: never)",
    )
    add(
        "--heartbeat",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="cut off a worker that was silent for so long, for faster notice than TCP's (default: 0, never). Only "
        "whole frames are a sign of life: choose more than the largest frame takes on the slowest link, or it is cut "
        "off again and again",
    )
    add(
        "--control",
        default=AUTO,
        metavar="ADDRESS",
        help="address for `zmqbroker status` and the like, which may also change things; auto: a socket that only the "
        "same user can open; none: there is none (default: %(default)s)",
    )
    add(
        "--identity",
        metavar="FILE",
        help="encrypt everything, with the keys in this file, NAME.secret of `zmqbroker identity new NAME`, and let in "
        "only who is authorized (default: none; anybody is let in)",
    )
    add(
        "--authorized",
        metavar="FILE",
        help="who is let in: a line each with roles (client, worker, observer, admin; joined by commas), a public key "
        "and a name, as `zmqbroker identity show` prints them. The file is looked at each second; goes with --identity",
    )
    add(
        "--store",
        metavar="FILE",
        help="keep the tasks of clients that ask for it in this file, so that they outlive the broker (default: none)",
    )
    add(
        "--store-floor",
        type=number(int, "none"),
        metavar="BYTES",
        help=f"with less than this free on its disk, no new tasks are stored (default: {DEFAULT_FLOOR})",
    )
    add(
        "--keep",
        type=seconds,
        metavar="SECONDS",
        help="time for which the outcome of a stored task whose client has left is kept "
        f"(default: {DEFAULT_KEEP:g}, a day)",
    )
    add(
        "--keep-failed",
        type=seconds,
        metavar="SECONDS",
        help="the same for stored tasks that have failed or expired, if it is more "
        f"(default: {DEFAULT_KEEP_FAILED:g}, a week)",
    )
    add(
        "--reclaim",
        type=seconds,
        metavar="SECONDS",
        help="time in which workers may tell of stored tasks that they had when the broker ended, before others get "
        f"them (default: {DEFAULT_RECLAIM:g})",
    )
    add(
        "--io-threads",
        type=number(int, "not allowed"),
        default=DEFAULT_IO_THREADS,
        metavar="N",
        help="threads that ZeroMQ sends and receives with; a second one helps where bodies are large, and takes a "
        "twentieth to an eighth of the rate where they are small (default: %(default)s)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log every attempt and its outcome")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    add("--version", action=ShowVersion)
    add(
        "requests",
        metavar="REQUESTS",
        help="address for clients: tcp://*:4161, tcp://127.0.0.1:*, tcp://[::1]:4161, ipc:///tmp/requests, ...",
    )
    add("ready", metavar="READY", help="address for workers asking for tasks")
    add("results", metavar="RESULTS", help="address for the results of plain workers; our own need READY alone")


def serve(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run a broker until a signal ends it; return the exit status."""
    log_to_stderr(log_level(options))
    addresses = options.requests, options.ready, options.results
    refuse_repeated(parser, *addresses, options.control)
    stored = store_options(options, parser)
    told = Told()
    handled = signals.on_signals(told.end, told.status)
    signals.ignore([signal.SIGTTOU])  # a terminal may be set to stop who writes to it from the background
    try:
        broker = Broker(
            *addresses,
            tries=options.tries,
            timeout=options.timeout,
            retry_delay=options.retry_delay,
            retry_factor=options.retry_factor,
            retry_most=options.retry_most,
            fair=options.fair,
            limits=dict(options.limit),
            limits_waiting=dict(options.limit_waiting),
            max_waiting=options.max_waiting,
            max_size=options.max_size,
            drain=options.drain,
            keep_alive=KeepAlive(*options.keep_alive),
            heartbeat=options.heartbeat,
            control=None if options.control == NO_CONTROL else options.control,
            identity=options.identity,
            authorized=options.authorized,
            store=options.store,
            io_threads=options.io_threads,
            **stored,
        )
    except ValueError as error:
        parser.error(str(error))
    except StoreError as error:
        log.error("%s", error)
        return STORE_ERROR
    with broker, service_manager() as manager:
        broker.service_manager, manager.describe = manager, lambda: state_text(broker.counters())
        told.serve(broker)
        try:
            broker.load()
        except StoreError as error:
            log.error("%s", error)
            return STORE_ERROR
        started = options.quiet or say(start_text(broker, options))
        manager.tell_ready(monotonic())
        broker.owns_process = True
        try:
            broker.run()
        except StoreError as error:
            log.error("%s: the broker has ended", error)
            return STORE_ERROR
        signals.ignore(handled)  # it is ending
        ended = options.quiet or say(totals_text(broker.counters()))
    return 0 if started and ended else streams.OUTPUT_ERROR


def store_options(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return those that say something of the store; exit where there is none that they could be for."""
    given = {name: value for name in OF_THE_STORE if (value := getattr(options, name)) is not None}
    if given and options.store is None:
        parser.error(f"--{next(iter(given)).replace('_', '-')} goes with --store: there is none")
    return given


class Told:
    """What signals have told a broker, which may not have been made yet."""

    def __init__(self) -> None:
        self._broker: Broker | None = None
        self._asked = 0  # how often the end was asked for

    def serve(self, broker: Broker) -> None:
        """Pass on what will be told, and what was."""
        asked, self._broker = self._asked, broker
        for _ in range(asked):
            broker.stop()

    def end(self, number: signal.Signals) -> None:
        """Have the broker drain, or end; a hangup, which nobody may have meant, is always worth a line."""
        self._asked += 1
        if self._broker is not None:
            self._broker.stop()
        when = "when what was accepted is done; a second signal ends it at once" if self._asked == 1 else "at once"
        log.log(logging.WARNING if number == signal.SIGHUP else logging.INFO, "%s: ending %s", number.name, when)

    def status(self) -> None:
        """Log the state of things, however quiet the log is: somebody has asked."""
        log.warning("%s", "starting" if self._broker is None else status_text(self._broker.counters()))


def say(text: str) -> bool:
    """Print text on stdout; where that cannot be, log it and return False: it is no reason to serve nobody."""
    try:
        streams.print_out(text, STDOUT_PATIENCE)
    except streams.OutputError as error:
        log.warning("%s", error)
        return False
    return True


def start_text(broker: Broker, options: argparse.Namespace) -> str:
    """Return where the broker listens, and the limits in force."""
    limits = [
        f"{options.tries} tries a task" if options.tries else "any number of tries a task",
        f"{options.timeout:g} s an attempt" if options.timeout else "no timeout",
        retry_text(options),
        f"at most {options.max_waiting} tasks waiting" if options.max_waiting else "any number of tasks waiting",
        f"at most {options.max_size} bytes a task" if options.max_size else "tasks of any size",
        f"{options.drain:g} s to drain",
        *(["clients take turns"] if options.fair else []),
        *(f"at most {limit} tasks of {name} running" for name, limit in dict(options.limit).items() if limit),
        *(f"at most {limit} tasks of {name} waiting" for name, limit in dict(options.limit_waiting).items() if limit),
        *(["identities needed"] if options.identity else []),
        *([f"stored in {options.store}"] if options.store else []),
        *([f"silent workers cut off after {options.heartbeat:g} s"] if options.heartbeat else []),
    ]
    lines = [*zip(broker.addresses._fields, broker.addresses, strict=True), ("limits", ", ".join(limits))]
    if broker.control_address is not None:
        lines.append(("control", broker.control_address))
    return "".join(f"{name:9} {text}\n" for name, text in lines)


def retry_text(options: argparse.Namespace) -> str:
    """Return after how long a lost attempt is tried again."""
    if not options.retry_delay:
        return "retry at once"
    if options.retry_factor == 1:
        return f"retry after {options.retry_delay:g} s"
    most = f", {options.retry_most:g} s at most" if options.retry_most else ""
    return f"retry after {options.retry_delay:g} s, then {options.retry_factor:g} times that{most}"


def status_text(counters: dict[str, int]) -> str:
    """Return what the broker has in hand, and what it did so far."""
    return f"{state_text(counters)}; so far {totals_text(counters).rstrip()}"


def state_text(counters: dict[str, int]) -> str:
    """Return what the broker has in hand."""
    return "{waiting} tasks waiting, {delayed} delayed, {running} running; {idle} workers idle".format(**counters)


def totals_text(counters: dict[str, int]) -> str:
    """Return what the broker did."""
    return (
        "{done} tasks done, {failed} failed, {expired} expired, {retried} attempts retried; {late} results came late, "
        "{malformed} messages were malformed, {refused} requests refused, "
        "{undeliverable} replies not delivered\n".format(**counters)
    )
