"""A handler that runs a command for each task: the body on its stdin, or an argument; the result from its stdout.

Each command has a process group of its own, so that it can be killed with all that it has started. It is in the session
of its worker, so that it ends with that, however that ends. What it leaves in the background does, too.
"""

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from shutil import which
from typing import Any

from zmqbroker.transport.limited_log import log_safely
from zmqbroker.wire.chunks import Body
from zmqbroker.worker.current import CurrentTask, current_task
from zmqbroker.worker.exchange import Exchange
from zmqbroker.worker.outcome import Fail, Interrupted, Reject

# Python 3.10 has no word for it.
OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}
BODY = "{}"  # an argument in whose place the body stands
MOST_LINES = 1000  # of what a command complained of that are logged
INTERRUPTED = "interrupted: the worker was told to leave at once"

log = logging.getLogger("zmqbroker.command")


class Command:
    """Runs a command on the body of a task and returns what it printed; raises Fail when it does not end with 0."""

    def __init__(self, arguments: Sequence[str], kill_after: float | None = None) -> None:
        """Prepare to run it; it is killed after `kill_after` seconds (None: never).

        Raises ValueError for a command that is not there, or not to be executed.
        """
        if which(arguments[0]) is None:
            raise ValueError(f"{arguments[0]!r} is no command that can be run here")
        self._arguments = arguments
        self._kill_after = kill_after
        self._running: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    def __call__(self, body: Body) -> bytes:
        """Run the command; several frames are one input."""
        text = body if isinstance(body, bytes) else b"".join(body)
        arguments = self._arguments_for(text)
        text = text if arguments is self._arguments else b""
        task = current_task()
        with self._start(arguments, task) as process:  # leaving closes the pipes, whoever else has them open, and waits
            try:
                output, errors = self._exchange(process, text, task)
            except BaseException:
                kill_group(process)
                raise
            finally:
                self._running = None
        if log.isEnabledFor(logging.DEBUG):
            _log_lines(task.name, errors)
        if self._interrupted:
            raise Interrupted(INTERRUPTED)
        if process.returncode:
            raise Fail(_reason(ending(process.returncode), errors))
        return output

    def interrupt(self) -> None:
        """Kill the command that runs now, if any, and any that would be run after this. For a signal handler."""
        self._interrupted = True
        self.kill()

    def kill(self) -> None:
        """Kill the command that runs now, if any; the attempt fails. For any thread, and a signal handler."""
        running = self._running
        if running is not None:
            kill_group(running)

    def _arguments_for(self, text: bytes) -> Sequence[str | bytes]:
        """Return the command for a body: where that is an argument, it stands there as it is, whatever it holds."""
        if BODY not in self._arguments:
            return self._arguments
        if b"\0" in text:
            raise Reject(f"a body with a NUL byte cannot stand in the place of {BODY}")
        return [text if argument == BODY else argument for argument in self._arguments]

    def _start(self, arguments: Sequence[str | bytes], task: CurrentTask) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        surroundings = os.environb | _about(task)
        try:
            return subprocess.Popen(
                arguments, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=surroundings, **OWN_GROUP
            )
        except OSError as error:
            if error.errno == errno.E2BIG and BODY in self._arguments:
                raise Reject(f"the body is too long to stand in the place of {BODY}") from None
            raise Fail(f"cannot run {self._arguments[0]:.100}: {error.strerror}") from None

    def _exchange(self, process: "subprocess.Popen[bytes]", text: bytes, task: CurrentTask) -> tuple[bytes, bytes]:
        """Return what the command has printed and complained of when it ends."""
        self._running = process
        if self._interrupted or task.cancelled:  # between the start and the line above
            kill_group(process)
        exchange = Exchange(process, text, task.progress)
        if not exchange.run(self._kill_after):
            raise Fail(_reason(f"killed after {self._kill_after:g} s", exchange.complaints.text))
        return bytes(exchange.output), bytes(exchange.complaints.text)


def _about(task: CurrentTask) -> dict[bytes, bytes]:
    """Return what the environment of a command says about its task; a key may hold anything."""
    key = (task.key or "").encode(errors="replace").replace(b"\0", b"?")
    queue = task.queue.encode(errors="replace").replace(b"\0", b"?")
    return {b"ZMQBROKER_KEY": key, b"ZMQBROKER_QUEUE": queue, b"ZMQBROKER_ATTEMPT": b"%d" % task.attempt}


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that leads its group, and the whole group; nothing once it was waited for."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # what macOS says of a group that has ended
            os.killpg(process.pid, signal.SIGKILL)


def ending(status: int) -> str:
    """Return in words how a process ended."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-status}"


def _log_lines(name: str, errors: bytes) -> None:
    """Log what a command complained of at a task: the last lines, as that is not to wait for millions of them."""
    lines = errors.decode(errors="replace").splitlines()
    if len(lines) > MOST_LINES:
        log_safely(log.debug, "%s: stderr: %d lines, of which these are the last:", name, len(lines))
    for line in lines[-MOST_LINES:]:
        log_safely(log.debug, "%s: stderr: %s", name, line)


def _reason(what: str, errors: bytes | bytearray) -> str:
    """Return what happened, and the last line of what the command complained of."""
    lines = errors.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{what}: {last}" if last else what
