"""One worker process of `zmqbroker work`: a Worker, the user's handler, and the lifeline to the supervisor.

FINISH or the end of file on the lifeline, or SIGTERM: it finishes the task in hand and leaves. AT_ONCE, or SIGINT: it
leaves at once, and the attempt fails.
"""

import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from zmqbroker.wire.chunks import Body
from zmqbroker.worker.command import INTERRUPTED, Command
from zmqbroker.worker.supervisor import AT_ONCE, FINISH, READY
from zmqbroker.worker.worker import Fail, Handler, Interrupted, Worker

CANNOT_GO_ON = 1  # exit status
LOG_FORMAT = "%(asctime)s process %(process)d: %(message)s"

# With the path of whoever starts it, not with that of a new interpreter, which begins with the current directory: there
# may be a queue.py, or another zmqbroker.
STARTER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from zmqbroker.worker.process import main; sys.exit(main(sys.argv))"
)


@dataclass(frozen=True)
class Settings:
    """What a worker process has to know. Seconds and tasks: 0 means that there is no such thing."""

    ready: str
    results: str
    function: str | None  # MODULE:FUNCTION; None: a command
    command: list[str]
    kill_after: float
    touch: float
    max_tasks: int
    slots: int
    connect_timeout: float
    label: str | None
    log_level: int

    def arguments(self) -> list[str]:
        """Return the command line of such a process, but for its last argument: the number of its lifeline."""
        return [sys.executable, "-c", STARTER, json.dumps(sys.path), json.dumps(asdict(self))]


class WorkerProcess:
    """A Worker that leaves after its share of tasks, touches the task in hand, and heeds signals and the lifeline."""

    def __init__(self, settings: Settings) -> None:
        """Load the handler; raises ValueError for what is no function, command or address."""
        self._max_tasks = settings.max_tasks
        self._touch = settings.touch
        self._process_id = os.getpid()
        self._is_busy = False
        self._is_leaving = False  # at once
        self._interrupt_handler: Callable[[], object]
        self._handler: Handler
        if settings.function is None:
            self._handler = command = Command(settings.command, settings.kill_after or None)
            self._interrupt_handler = command.interrupt
        else:
            self._handler = load(settings.function)
            self._interrupt_handler = sys.exit  # whatever the function is at
        self._worker = Worker(
            settings.ready,
            settings.results,
            self._handle,
            label=settings.label,
            slots=settings.slots,
            connect_timeout=settings.connect_timeout or None,
        )

    def run(self, lifeline: socket.socket) -> None:
        """Work until told to leave."""
        signal.signal(signal.SIGTERM, lambda *_: self._worker.stop())
        signal.signal(signal.SIGINT, self._leave_at_once)
        say(lifeline, READY)
        ended = threading.Event()
        threading.Thread(target=self._obey, args=(lifeline,), daemon=True).start()
        if self._touch:
            threading.Thread(target=self._touch_until, args=(ended,), daemon=True).start()
        try:
            self._worker.run()
        finally:
            ended.set()

    def _handle(self, body: Body) -> Body | None:
        if self._max_tasks and self._worker.tasks + 1 >= self._max_tasks:
            self._worker.stop()  # after this one
        self._is_busy = True
        try:
            if self._is_leaving:  # told so between two bodies of a chunk
                raise Interrupted(INTERRUPTED)
            result: Body | None = self._handler(body)
        except SystemExit as end:
            if self._is_leaving or self._process_id != os.getpid():  # or it is a process that the function has forked
                raise
            raise Fail(f"the function called sys.exit({end.code!r:.100})") from None  # it is not for a task to end this
        finally:
            self._is_busy = False
        return result

    def _leave_at_once(self, _number: int, _frame: FrameType | None) -> None:
        self._worker.stop()
        self._is_leaving = True
        if self._is_busy:
            self._interrupt_handler()

    def _obey(self, lifeline: socket.socket) -> None:
        """Do what the supervisor says, until it is gone."""
        word = FINISH
        while word:
            try:
                word = lifeline.recv(1)
            except ConnectionResetError:  # gone before it has read everything
                word = b""
            if word == AT_ONCE:  # to the main thread: a signal to the process might not wake it from a system call
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            else:
                self._worker.stop()

    def _touch_until(self, ended: threading.Event) -> None:
        while not ended.wait(self._touch):
            self._worker.touch()


def say(lifeline: socket.socket, words: bytes) -> None:
    """Tell the supervisor, if it is still there."""
    with suppress(OSError):
        lifeline.sendall(words)


def load(name: str) -> Handler:
    """Return the function that MODULE:FUNCTION names; the current directory comes first.

    Raises ValueError, with what went wrong, where there is no such function.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ValueError(f"{name!r} is no MODULE:FUNCTION; a command goes after --")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot import {module_name}: {type(error).__name__}: {error}{_place(error)}") from None
    try:
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except AttributeError as error:
        raise ValueError(f"cannot find {name}: {error}") from None
    if not callable(found):
        raise ValueError(f"{name} is no function but {type(found).__name__}")
    handler: Handler = found
    return handler


def _place(error: BaseException) -> str:
    """Return where in the user's own module an import failed; nothing if not there, or if the error says it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError) or not os.path.isfile(last.filename) or "importlib" in last.filename:
        return ""
    return f" ({last.filename}, line {last.lineno})"


def main(arguments: Sequence[str]) -> int:
    """Be a worker process, as `Settings.arguments` has it."""
    *_, settings_text, lifeline_number = arguments
    settings = Settings(**json.loads(settings_text))
    lifeline = socket.socket(fileno=int(lifeline_number))
    lifeline.set_inheritable(False)
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    try:
        WorkerProcess(settings).run(lifeline)
    except (ValueError, ConnectionError) as error:
        say(lifeline, str(error).replace("\n", " ").encode(errors="replace"))
        return CANNOT_GO_ON
    return 0
