"""One worker process of `zmqbroker work`: a Worker, the user's handler, and the lifeline to the supervisor.

FINISH or the end of file on the lifeline, or a signal that asks for the end, as a service manager sends it to all there
are: it finishes the task in hand, gives back what it has not begun, and leaves. AT_ONCE: it leaves at once, and the
attempt fails.

What holds up its end then is the user's: threads that run on, functions for the exit, children. They have LEAVE_WITHIN
seconds.
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
from math import inf
from types import FrameType
from typing import Any

from zmqbroker.transport import signals
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.stderr_log import log_to_stderr
from zmqbroker.wire import Announce
from zmqbroker.wire.chunks import Body
from zmqbroker.worker.command import INTERRUPTED, Command
from zmqbroker.worker.forks import handle_here_only
from zmqbroker.worker.handling import Handler
from zmqbroker.worker.json_function import JsonFunction
from zmqbroker.worker.lifeline import AT_ONCE, FINISH, LEAVE_WITHIN, LEAVING, REACHED, READY, Program
from zmqbroker.worker.outcome import Interrupted
from zmqbroker.worker.slot import Slot
from zmqbroker.worker.task_filter import About
from zmqbroker.worker.worker import Worker

CANNOT_START = CANNOT_GO_ON = CRASHED = 1  # exit status
LOG_FORMAT = "%(asctime)s %(about)s: %(message)s"

# With the path of whoever starts it, not with that of a new interpreter, which begins with the current directory: there
# may be a queue.py, or another zmqbroker.
STARTER = (
    "import sys; sys.path[:] = filter(None, sys.path); import json; settings = json.load(sys.stdin); "
    "sys.path[:] = settings.pop('path'); from zmqbroker.worker.process import main; sys.exit(main(settings, sys.argv))"
)


log = logging.getLogger("zmqbroker.process")


@dataclass(frozen=True)
class Settings:
    """What a worker process has to know. Seconds and tasks: 0 means that there is no such thing."""

    ready: str
    function: str | None  # MODULE:FUNCTION; None: a command, or calls
    json: bool  # the function is called with what a body says in JSON
    command: list[str]
    queues: list[str]  # that it asks from, the first first
    kill_after: float
    kill_cancelled: bool
    touch: float
    max_tasks: int
    slots: int  # 0: as many as it finds sensible
    connect_timeout: float
    label: str | None
    identity: str | None  # files; None: those that the environment names
    broker_identity: str | None
    log_level: int
    python: bool = False  # it does calls, as an Executor sends them

    @property
    def is_command(self) -> bool:
        """Tell whether a command does the tasks, and not this process itself."""
        return self.function is None and not self.python

    def program(self) -> Program:
        """Return how such a process is started. A command line would not take a command of any length."""
        return Program([sys.executable, "-c", STARTER], json.dumps({"path": sys.path, **asdict(self)}).encode())


class WorkerProcess:
    """A Worker that leaves after its share of tasks, touches the task in hand, and heeds signals and the lifeline."""

    def __init__(self, settings: Settings, slot: Slot) -> None:
        """Load the handler; raises ValueError for what is no function, command or address.

        Raises RuntimeError where the handler's module has replaced threads, OSError without descriptors, ImportError
        for calls without cloudpickle.
        """
        self._max_tasks = settings.max_tasks
        self._slot = slot
        self._handled = self._failed = 0
        self._is_busy = False
        self._is_leaving = False  # at once
        self._lifeline: socket.socket | None = None  # None: it does not run yet
        self._interrupt_handler: Callable[[], object]
        self._handler: Handler
        if settings.is_command:
            self._handler = command = Command(settings.command, settings.kill_after or None)
            self._interrupt_handler = command.interrupt
            on_cancel: Callable[[], object] | None = command.kill
        else:
            self._handler = load_handler(settings)
            self._interrupt_handler = sys.exit  # whatever the function is at
            on_cancel = self._end_cancelled if settings.kill_cancelled else None
        self._worker = Worker(
            settings.ready,
            self._handle,
            queues=settings.queues,
            label=settings.label,
            slots=settings.slots or None,
            connect_timeout=settings.connect_timeout or None,
            identity=settings.identity,
            broker_identity=settings.broker_identity,
        )
        upkeep = self._worker.upkeep
        upkeep.touch_every = settings.touch or inf
        if not settings.is_command:  # a command has that time for each body of a chunk
            upkeep.touch_until = settings.kill_after or inf
        upkeep.on_welcome = self._say_reached
        upkeep.on_begin, upkeep.on_touch, upkeep.on_end = slot.begin, slot.touch, slot.end
        if on_cancel is not None:
            upkeep.on_cancel = on_cancel

    def run(self, lifeline: socket.socket) -> None:
        """Work until told to leave."""
        heeded = {*signals.heeded(), signal.SIGTERM, signal.SIGINT}  # AT_ONCE comes as the last, ignored or not
        handle_here_only(dict.fromkeys(heeded, self._heed))
        self._lifeline = lifeline
        say(lifeline, READY)
        threading.Thread(target=self._obey, args=(lifeline,), daemon=True).start()
        self._worker.run()

    def _handle(self, body: Body) -> Body | None:
        if self._max_tasks and self._worker.tasks + 1 >= self._max_tasks:
            self._worker.stop()  # after this one
        self._is_busy = True
        self._handled += 1
        self._failed += 1
        try:
            if self._is_leaving:  # told so between two bodies of a chunk
                raise Interrupted(INTERRUPTED)
            result: Body | None = self._handler(body)
            self._failed -= 1
        finally:
            self._is_busy = False
            self._slot.write_counts(self._handled, self._failed)
        return result

    def _heed(self, _number: int, _frame: FrameType | None) -> None:
        self._worker.stop()
        if self._is_leaving and self._is_busy:
            self._interrupt_handler()

    def _say_reached(self, reached: str) -> None:
        """Tell the supervisor which broker has answered, for the first time."""
        self._worker.upkeep.on_welcome = lambda _: None
        if self._lifeline is not None:
            say(self._lifeline, REACHED + reached.encode() + b"\n")

    def _end_cancelled(self) -> None:
        """End this process, whatever its function is at: nobody wants that. Another one takes its place."""
        task = self._slot.in_hand()
        log_safely(log.info, "nobody wants the result of %s any more: it ends", "a task" if task is None else task.name)
        self._slot.end()
        if self._lifeline is not None:
            say(self._lifeline, LEAVING)
        os._exit(0)

    def _obey(self, lifeline: socket.socket) -> None:
        """Do what the supervisor says, until it is gone."""
        word = FINISH
        while word:
            try:
                word = lifeline.recv(1)
            except OSError:  # gone before it has read everything; or a function has closed what was not its own
                word = b""
            if word == AT_ONCE:
                self._is_leaving = True
                # To the main thread: a signal to the process might not wake it from a system call.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            else:
                self._worker.stop()


def say(lifeline: socket.socket, words: bytes) -> None:
    """Tell the supervisor, if it is still there."""
    with suppress(OSError):
        lifeline.sendall(words)


def load_handler(settings: Settings) -> Handler:
    """Return what does the tasks in this process; raises as `load` does, and ImportError without cloudpickle."""
    if settings.function is None:
        return load_calls()
    function = load(settings.function)
    return JsonFunction(function) if settings.json else function


def load(name: str) -> Handler:
    """Return the function that MODULE:FUNCTION names; the current directory comes first.

    Raises ValueError, with what went wrong, where there is no such function.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ValueError(f"{name!r} is no MODULE:FUNCTION; a command goes after --")
    _look_here_first(module_name)
    try:
        found: Any = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
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


def load_calls() -> Handler:
    """Return what calls functions, which are imported from the current directory first, as `load` does."""
    from zmqbroker.worker.calls import Calls  # nobody else needs cloudpickle

    _look_here_first("what is called")
    return Calls()


def _look_here_first(what: str) -> None:
    """Import from the current directory first; raises ValueError, saying what for, where it is gone."""
    try:
        sys.path.insert(0, os.getcwd())
    except OSError as error:
        raise ValueError(f"cannot import {what}: the current directory is gone: {error.strerror}") from None


def _place(error: BaseException) -> str:
    """Return where in the user's own module an import failed; nothing if not there, or if the error says it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError) or not os.path.isfile(last.filename) or "importlib" in last.filename:
        return ""
    return f" ({last.filename}, line {last.lineno})"


def main(settings: dict[str, Any], arguments: Sequence[str]) -> int:
    """Be a worker process, with the descriptors that `Process` names in its arguments; return the exit status."""
    lifeline_number, slot_number = map(int, arguments[-2:])
    lifeline = socket.socket(fileno=lifeline_number)
    lifeline.set_inheritable(False)
    slot = Slot(slot_number)
    os.close(slot_number)
    with open(os.devnull) as nothing:  # what stdin was for has been read
        os.dup2(nothing.fileno(), 0)
    worker = Announce(label=settings["label"] or "", host=socket.gethostname(), pid=os.getpid()).name
    log_to_stderr(settings["log_level"], LOG_FORMAT, About(worker))
    handle_here_only({signals.STATUS: lambda *_: None})  # a question to the supervisor
    signals.let_status_in()
    try:
        process = WorkerProcess(Settings(**settings), slot)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        complain(lifeline, error)
        bound_the_end()
        return CANNOT_START
    try:
        process.run(lifeline)
    except SystemExit:
        pass  # told to leave at once
    except ConnectionError as error:
        complain(lifeline, error)
        bound_the_end()
        return CANNOT_GO_ON
    except BaseException as error:
        log_safely(log.error, "the worker failed", exc_info=error)
        os._exit(CRASHED)  # at once, whatever else runs here
    names = [thread.name for thread in threading.enumerate() if not thread.daemon]
    say(lifeline, LEAVING + ", ".join(names[1:]).encode(errors="replace"))
    bound_the_end()
    return 0


def complain(lifeline: socket.socket, error: Exception) -> None:
    """Tell the supervisor why this process cannot start, or go on."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    say(lifeline, text.replace("\n", " ").encode(errors="replace"))


def bound_the_end() -> None:
    """Have the system end this process where what the user has started does not let it end."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LEAVE_WITHIN)
