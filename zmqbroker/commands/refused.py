"""When a broker takes none of the tasks of a submission, as it has no store, say. Pure.

All of them ask for the same. So what is invalid about the first that it answers is so about all, unless that is the
size of the body.
"""

from zmqbroker.client.futures import TaskFailed
from zmqbroker.wire import INVALID

LARGE = 1 << 29  # bytes of a body; fewer are stored by every broker that has a store


class RefusedError(Exception):
    """The broker takes none of the tasks. Its text says why."""


class Refusals:
    """Tells what holds for all tasks from what holds for one."""

    def __init__(self) -> None:
        self._takes_some = False

    def look(self, error: BaseException | None, size: int) -> BaseException | None:
        """Look at why a task with a body of so many bytes has no result (None: it has one).

        Return that, or a RefusedError if it holds for all.
        """
        is_invalid = isinstance(error, TaskFailed) and error.status == INVALID
        if is_invalid and size < LARGE and not self._takes_some:
            return RefusedError(str(error))
        self._takes_some |= not is_invalid and (error is None or isinstance(error, TaskFailed))
        return error
