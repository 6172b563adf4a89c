"""What a broker tells in its log of tasks and messages."""

import logging
from math import inf

from zmqbroker import wire
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.task import Record, Task
from zmqbroker.transport.limited_log import LimitedLog, printable

BELONGING = {"REQUESTS": "REQ and DEALER", "READY": "REQ and DEALER", "RESULTS": "PUSH"}  # sockets, by the broker's

log = logging.getLogger("zmqbroker")


class Report:
    """The broker's log: every attempt and outcome for who wants to know, else what goes wrong, at a limited rate."""

    def __init__(self) -> None:
        self.is_verbose = log.isEnabledFor(logging.DEBUG)
        self.due = inf  # when `flush` has something to say; inf: nothing is held back
        self._limited = LimitedLog(log, BELONGING)

    def attempt(self, task: Task) -> None:
        """Tell that a task was handed out."""
        where = f" at {task.worker.name}" if task.worker.name else ""
        log.debug("%s: attempt %d%s", _name(task), task.attempt, printable(where))

    def outcome(self, task: Task) -> None:
        """Tell what became of a task that did not go wrong."""
        log.debug("%s: %s", _name(task), task.status)

    def failure(self, task: Task, now: float) -> None:
        """Tell that a task, or a request, went wrong."""
        text = f"{_name(task)} {task.status}: {task.reason}"
        if self.is_verbose:
            log.warning("%s", printable(text))
        else:
            self._warn(task.status, text, now)

    def undeliverable(self, now: float) -> None:
        """Tell of a reply that could not be sent."""
        self._warn("undeliverable", "a reply was dropped: its client is gone or does not read", now)

    def malformed(self, where: str, error: wire.MalformedError, now: float) -> None:
        """Tell of a message that is none of the protocol."""
        self._warn(where, f"ignored what is no message of the protocol: {error}", now)

    def lost(self, task: Task, pause: float) -> None:
        """Tell that an attempt has failed, and after how many seconds there is another one."""
        if self.is_verbose:
            again = f"again in {pause:g} s" if pause else "again"
            log.debug("%s: attempt %d failed: %s; %s", _name(task), task.attempts, printable(task.reason), again)

    def held_back(self, record: Record, now: float) -> None:
        """Tell whose next task comes later."""
        why = f"{record.marks} tasks have failed there that were done elsewhere, and none was done there since"
        self._warn("held back", f"{record.worker.name} gets its next task in {record.pause:g} s: {why}", now)

    def unserved(self, queue: Queue, now: float) -> None:
        """Tell that tasks wait in vain; there may be thousands of such queues."""
        self._warn("unserved", f"no worker asks from the queue {queue.name}: {queue.waiting} tasks wait there", now)

    def stranger(self, where: str, now: float) -> None:
        """Tell of a connection that ended before its peer had said what it is, to REQUESTS, READY or RESULTS."""
        what = (
            f"a wrong address (only {BELONGING[where]} sockets belong there), or who left at once, as a port scan does"
        )
        self._warn(where, f"a connection to {where} was over before its handshake: {what}", now)

    def no_descriptors(self, now: float) -> None:
        """Tell that nobody can connect."""
        why = "no file descriptors are left: new peers wait until others leave; raise `ulimit -Hn` for more"
        self._warn("descriptors", why, now)

    def flush(self, now: float) -> None:
        """Tell what was held back and is due by `now`; inf: all of it."""
        self._limited.flush(now)
        self.due = self._limited.next_due()

    def _warn(self, kind: str, text: str, now: float) -> None:
        self._limited.warn(kind, text, now)
        self.due = self._limited.next_due()


def _name(task: Task) -> str:
    return f"task {task.number}" if task.number else "a request"
