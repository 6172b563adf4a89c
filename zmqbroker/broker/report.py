"""What a broker tells in its log of tasks and messages."""

import logging
from functools import partial
from math import inf

from zmqbroker import wire
from zmqbroker.broker.queues import Queue
from zmqbroker.broker.refusals import Refused, Stranger
from zmqbroker.broker.task import NOBODY, Record, Task, Worker
from zmqbroker.transport.limited_log import LimitedLog, Text, printable, task_name

BELONGING = {  # sockets, by the broker's
    "REQUESTS": "REQ and DEALER",
    "READY": "REQ and DEALER",
    "RESULTS": "PUSH",
    "CONTROL": "REQ and DEALER",
}
REFUSED_AGAIN = "refused again"  # a kind of lines
MOST_MOVES = 20  # workers that are told of by name when they come, and when they leave, in an interval of the log
MOST_QUEUES = 5  # of a worker, that are named
LONGEST_NAME = 200  # characters of a worker's

log = logging.getLogger("zmqbroker")


class Report:
    """The broker's log: every attempt and outcome for who wants to know, else what goes wrong, at a limited rate."""

    def __init__(self, has_identities: bool = False) -> None:
        self._has_identities = has_identities
        self.is_verbose = log.isEnabledFor(logging.DEBUG)
        self.due = inf  # when `flush` has something to say; inf: nothing is held back
        self._limited = LimitedLog(log, [*BELONGING, REFUSED_AGAIN])
        self._moves = LimitedLog(log, level=logging.INFO, lines=MOST_MOVES)

    def attempt(self, task: Task) -> None:
        """Tell that a task was handed out."""
        log.debug("%s: attempt %d%s", _name(task), task.attempt, _place(task.worker))

    def outcome(self, task: Task) -> None:
        """Tell what became of a task that did not go wrong."""
        log.debug("%s: %s", _name(task), task.status)

    def failure(self, task: Task, now: float) -> None:
        """Tell that a task, or a request, went wrong."""
        if self.is_verbose:
            log.warning("%s", printable(_failure(task, now)))
        else:
            self._warn(task.status, partial(_failure, task, now), now)

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
            what = f"{_name(task)}: attempt {task.attempts} failed{_place(task.worker)}"
            log.debug("%s: %s; %s", what, printable(task.reason), again)

    def came(self, worker: Worker, now: float) -> None:
        """Tell that a worker has announced itself."""
        queues = [queue.name for queue in worker.pool.queues]
        more = f" and {len(queues) - MOST_QUEUES} more" if len(queues) > MOST_QUEUES else ""
        self._move(
            "come",
            f"{_who(worker)}{_whose(worker)} has come: it asks from {', '.join(queues[:MOST_QUEUES])}{more}",
            now,
        )

    def left(self, worker: Worker, now: float) -> None:
        """Tell that the connection of a worker that has announced itself is lost, and what it was at."""
        tasks = [task for attempt_id, task in worker.held.items() if task.charged == task.attempt_id == attempt_id]
        more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
        had = f" with {_name(tasks[0])}{more} in hand" if tasks else ""
        self._move("left", f"{_who(worker)} has left{had}", now)

    def held_back(self, record: Record, now: float) -> None:
        """Tell whose next task comes later."""
        why = f"{record.marks} tasks have failed there that were done elsewhere, and none was done there since"
        self._warn("held back", f"{_who(record.worker)} gets its next task in {record.pause:g} s: {why}", now)

    def unserved(self, queue: Queue, now: float) -> None:
        """Tell that tasks wait in vain; there may be thousands of such queues."""
        self._warn("unserved", f"no worker asks from the queue {queue.name}: {queue.waiting} tasks wait there", now)

    def stranger(self, where: str, now: float) -> None:
        """Tell of a connection that ended before its peer had said what it is, to a socket of this name."""
        wrong = "no identity, or another one expected; or " if self._has_identities else ""
        what = (
            f"{wrong}a wrong address (only {BELONGING[where]} sockets belong there), or who left at once, as a port "
            "scan does"
        )
        self._warn(where, f"a connection to {where} was over before its handshake: {what}", now)

    def refused(self, refused: Refused, now: float) -> None:
        """Tell of somebody who may not come in, or speak; ever more rarely if it is one who was told of before."""
        stranger = refused.stranger
        kind = f"refused at {stranger.where}" if refused.count == 1 else REFUSED_AGAIN
        self._warn(kind, partial(_refusal, stranger, refused.count), now)

    def no_descriptors(self, now: float) -> None:
        """Tell that nobody can connect."""
        why = "no file descriptors are left: new peers wait until others leave; raise `ulimit -Hn` for more"
        self._warn("descriptors", why, now)

    def flush(self, now: float) -> None:
        """Tell what was held back and is due by `now`; inf: all of it."""
        self._limited.flush(now)
        self._moves.flush(now)
        self._plan()

    def _warn(self, kind: str, text: Text, now: float) -> None:
        self._limited.tell(kind, text, now)
        self._plan()

    def _move(self, kind: str, text: str, now: float) -> None:
        self._moves.tell(kind, text, now)
        self._plan()

    def _plan(self) -> None:
        self.due = min(self._limited.next_due(), self._moves.next_due())


def _refusal(stranger: Stranger, count: int) -> str:
    times = f", {count} times so far" if count > 1 else ""
    key = f"with the key {stranger.key}" if stranger.key else "without a key"
    return f"refused at {stranger.where.upper()}: {stranger.address or 'somebody'} {key}{times}: {stranger.reason}"


def _name(task: Task) -> str:
    return task_name(task.number, task.key)


def _who(worker: Worker) -> str:
    return printable(worker.name[:LONGEST_NAME]) or "a plain worker"


def _whose(worker: Worker) -> str:
    """Return whose a worker is, for the log; nothing where it is nobody's in particular."""
    return "" if worker.owner is None else f" of {printable(worker.owner)}"


def _place(worker: Worker) -> str:
    """Return where an attempt is, for the log; nothing for a plain worker, which has no name."""
    return f" at {_who(worker)}" if worker.name else ""


def _failure(task: Task, now: float) -> str:
    """Say what went wrong, where, after how many attempts and seconds, and which worker had it last."""
    if not task.number:
        return f"{_name(task)} {task.status}: {task.reason}"
    attempts = f"{task.attempts} attempt{'' if task.attempts == 1 else 's'}"
    last = "" if task.worker is NOBODY else f", last at {_who(task.worker)}"
    history = f"in the queue {task.queue.name} after {attempts} and {round(now - task.accepted, 3):g} s{last}"
    return f"{_name(task)} {task.status} {history}: {task.reason}"
