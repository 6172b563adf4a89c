"""What the records of `logging` tell about the task in hand."""

import logging

from zmqbroker.transport.limited_log import printable
from zmqbroker.worker.current import in_hand


class TaskFilter(logging.Filter):
    """Has each record tell which task it belongs to; for a handler of `logging`. It holds nothing back.

    A record gets `task` (`task NUMBER (KEY)`, as in the broker's log; empty: none is in hand), `task_number` and
    `task_key` (None: none), and `worker`.
    """

    def __init__(self, worker: str = "") -> None:
        """Prepare; `worker` is what records that belong to no task say of it."""
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        """Add to a record what there is to be told."""
        task = in_hand.get()
        if task is None:
            record.__dict__.update(task="", task_number=None, task_key=None, worker=self._worker)
        else:
            record.__dict__.update(
                task=task.name, task_number=task.number or None, task_key=task.key, worker=task.worker
            )
        return True


class About(TaskFilter):
    """Has each record have an `about` too, for the log of `zmqbroker work`: the worker, and the task."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add to a record what there is to be told; our own lines name their tasks themselves."""
        super().filter(record)
        parts = [record.__dict__["worker"]]
        if record.__dict__["task"] and not record.name.startswith("zmqbroker."):
            parts.append(record.__dict__["task"])
        record.__dict__["about"] = ": ".join(map(printable, parts))
        return True
