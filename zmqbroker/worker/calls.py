"""The handler of `zmqbroker work --python`: it calls the functions that an `Executor` sends.

What a function raises is a result of its call. An attempt at a call fails only where its process is lost, and where it
cannot even be unpickled: by another Python, or without a module. Another worker may be able to.
"""

import os
import traceback
from collections.abc import Callable
from pickle import PicklingError
from typing import Any

from zmqbroker.transport import pickling, signals
from zmqbroker.wire import Frames, MalformedError
from zmqbroker.wire.calls import CALL, RAISED, RETURNED, first_frame, parse_call, raised_body
from zmqbroker.worker.current import current_task
from zmqbroker.worker.handling import MAY_END
from zmqbroker.worker.outcome import Refused

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Calls:
    """Calls functions. It unpickles what comes, so whoever may send tasks may have any code run."""

    def __init__(self) -> None:
        """Prepare; raises ImportError without cloudpickle."""
        self._own = pickling.own_python("work --python")
        self._call, self._returned, self._raised = (first_frame(mark, self._own) for mark in (CALL, RETURNED, RAISED))
        self._process_id = os.getpid()

    def __call__(self, body: Any) -> Any:
        """Do a call and return its result; raises Refused for what is none, and for that of another Python."""
        function, arguments, options = self._read(body if isinstance(body, list) else [body])
        try:
            result = function(*arguments, **options)
        except BaseException as error:
            if self._is_our_own(error):
                raise
            return self._tell(error, error.__traceback__ and error.__traceback__.tb_next)
        try:
            return [self._returned, *pickling.dump(result)]
        except BaseException as error:
            if self._is_our_own(error):
                raise
            name, kind = getattr(function, "__qualname__", repr(function)), type(result).__name__
            why = PicklingError(f"the result of {name}, a {kind}, cannot be pickled: {pickling.described(error)}")
            return self._tell(why, error.__traceback__)

    def _read(self, body: Frames) -> Call:
        """Unpickle a call, which runs from now on."""
        versions = ""
        if body[0] != self._call:
            versions = self._check(body)
        current_task().progress(0)
        try:
            function, arguments, options = pickling.load(body[1:])
        except BaseException as error:
            if self._is_our_own(error):
                raise
            worker = current_task().worker
            raise Refused(f"worker {worker} cannot unpickle the call{versions}: {pickling.described(error)}") from None
        return function, arguments, options

    def _check(self, body: Frames) -> str:
        """Return how the two versions of cloudpickle differ, for who cannot unpickle a call."""
        try:
            theirs, _ = parse_call(body)
        except MalformedError as error:
            why = f"{error}: this queue is for those that a zmqbroker.Executor sends"
            raise Refused(why, is_final=True) from None
        if theirs.python != self._own.python:
            raise Refused(
                f"the call comes from {theirs.python}, and worker {current_task().worker} runs {self._own.python}: "
                "use the same Python at both ends, or a queue python.NAME of its own for each"
            )
        return f" (cloudpickle {theirs.cloudpickle} there, {self._own.cloudpickle} here)"

    def _is_our_own(self, error: BaseException) -> bool:
        """Tell whether a signal for this process has raised it, or another process, that the function has forked."""
        if os.getpid() != self._process_id:
            return True
        return isinstance(error, SystemExit) and signals.is_of_a_handler(error, MAY_END)

    def _tell(self, error: BaseException, trace: Any) -> Frames:
        """Build the result of a call that has raised this, there."""
        text = "".join(traceback.format_exception(type(error), error, trace))
        try:
            pickled = pickling.dump(error)
        except BaseException as why:
            if self._is_our_own(why):
                raise
            what = f"what the call has raised ({pickling.described(error)}) cannot be pickled"
            pickled = pickling.dump(PicklingError(f"{what}: {pickling.described(why)}"))
        return raised_body(self._raised, text, pickled)
