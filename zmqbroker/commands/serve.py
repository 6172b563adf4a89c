"""`zmqbroker serve`: its options, and what it does with them."""

import argparse
import gc
import logging
import signal

from zmqbroker import __version__
from zmqbroker.broker.broker import DEFAULT_DRAIN, DEFAULT_IO_THREADS, Broker
from zmqbroker.broker.dispatch import DEFAULT_TRIES
from zmqbroker.commands.options import log_level, number
from zmqbroker.transport.keep_alive import KeepAlive

SERVE_EXAMPLE = """\
example:
  zmqbroker serve -t 3 -T 60 "tcp://*:4161" "tcp://*:4162" "tcp://*:4163\""""
SERVE = "hand out the tasks of clients to the workers that ask for them"
COLLECT_AFTER = 100_000  # objects; a task needs no garbage collector, which after every 700 takes a fifth of the time


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the broker takes."""
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
    add("--version", action="version", version=f"zmqbroker {__version__}")
    add(
        "requests",
        metavar="REQUESTS",
        help="address for clients: tcp://*:4161, tcp://127.0.0.1:*, tcp://[::1]:4161, ipc:///tmp/requests, ...",
    )
    add("ready", metavar="READY", help="address for workers asking for tasks")
    add("results", metavar="RESULTS", help="address for the results of workers")


def serve(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run a broker until a signal ends it."""
    logging.basicConfig(level=log_level(options), format="%(asctime)s %(message)s")
    gc.set_threshold(COLLECT_AFTER)
    try:
        broker = Broker(
            options.requests,
            options.ready,
            options.results,
            tries=options.tries,
            timeout=options.timeout,
            retry_delay=options.retry_delay,
            max_waiting=options.max_waiting,
            max_size=options.max_size,
            drain=options.drain,
            keep_alive=KeepAlive(*options.keep_alive),
            heartbeat=options.heartbeat,
            io_threads=options.io_threads,
        )
    except ValueError as error:
        parser.error(str(error))
    with broker:
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
            signals.append(signal.SIGHUP)
        for signal_number in signals:
            signal.signal(signal_number, lambda *_: broker.stop())
        if not options.quiet:
            show_start(broker, options)
        broker.run()
        for signal_number in signals:
            signal.signal(signal_number, signal.SIG_IGN)  # it is ending
        if not options.quiet:
            show_totals(broker.counters())
    return 0


def show_start(broker: Broker, options: argparse.Namespace) -> None:
    """Print where the broker listens, and the limits in force."""
    for name, address in zip(broker.addresses._fields, broker.addresses, strict=True):
        print(f"{name:9} {address}")
    limits = [
        f"{options.tries} tries a task" if options.tries else "any number of tries a task",
        f"{options.timeout:g} s an attempt" if options.timeout else "no timeout",
        f"retry after {options.retry_delay:g} s" if options.retry_delay else "retry at once",
        f"at most {options.max_waiting} tasks waiting" if options.max_waiting else "any number of tasks waiting",
        f"at most {options.max_size} bytes a task" if options.max_size else "tasks of any size",
        f"{options.drain:g} s to drain",
        *([f"silent workers cut off after {options.heartbeat:g} s"] if options.heartbeat else []),
    ]
    print(f"limits    {', '.join(limits)}", flush=True)


def show_totals(counters: dict[str, int]) -> None:
    """Print what the broker did."""
    print(
        "{done} tasks done, {failed} failed, {retried} attempts retried; {late} results came late, "
        "{malformed} messages were malformed, {refused} requests refused, "
        "{undeliverable} replies not delivered".format(**counters),
        flush=True,
    )
