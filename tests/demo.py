"""The demo: a broker, two workers that drop a tenth of their tasks, and a client, all on this machine.

What each of them prints is shown as it comes. It takes some seconds, ends by itself, and ends what it has started
also when it is interrupted. Exit status 0 when every task has its reply, even if that is a failure.
"""

import os
import signal
import sys
from contextlib import ExitStack
from time import monotonic, sleep

from helpers import Program, bound_addresses

TRIES = 3
TIMEOUT = 0.5  # seconds
DRAIN = 1  # seconds
DROP_RATE = 0.1
LONGEST = 45.0  # seconds that the client may take
ANY_PORT = "tcp://127.0.0.1:*"


def main(timeout: float) -> int:
    """Run the demo with this timeout of an attempt, in seconds; return the exit status."""
    # Handlers that raised could do so between a program's start and the note that it must be ended.
    interrupts: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: interrupts.append(number))
    with ExitStack() as stack:
        limits = ("-t", TRIES, "-T", timeout, "--drain", DRAIN)
        broker = start(stack, "broker", "broker.py", *limits, ANY_PORT, ANY_PORT, ANY_PORT)
        requests, ready, results = bound_addresses(broker)
        workers = [start(stack, f"worker {n}", "testworker.py", ready, results, DROP_RATE) for n in (1, 2)]
        client = start(stack, "client", "testclient.py", requests)
        give_up_at = monotonic() + LONGEST
        while client.process.poll() is None and not interrupts and monotonic() < give_up_at:
            sleep(0.05)
        statuses = [program.end() for program in (client, *workers, broker)]
    return 128 + interrupts[0] if interrupts else max(map(abs, statuses))


def start(stack: ExitStack, name: str, script: str, *arguments: object) -> Program:
    """Start a program whose lines are shown after its name, and which is ended when the stack unwinds."""
    show(name, f"$ ./{script} {' '.join(map(str, arguments))}\n")
    program = Program(script, *arguments, on_line=lambda line: show(name, line))
    stack.callback(program.clean_up)
    return program


def show(name: str, line: str) -> None:
    """Print a line after its program's name."""
    try:
        print(f"{name:8} | {line}", end="", flush=True)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else TIMEOUT))
