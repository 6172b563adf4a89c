"""The accountant of `chaos.py`: reads the journals of all clients and workers, and says what does not add up."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos_tasks import (
    DAMAGED,
    DONE,
    EXPIRED,
    FAILED,
    GAVE_UP,
    GOT,
    POISON,
    REJECTED,
    RELEASED,
    SENT,
    TOOK,
    WRONG,
    read_journals,
)

# The workers that have several tasks and do one after the other. One of them may begin the next one and die before the
# outcome of the one before has left it, or while the broker hands the next one to somebody else: then it is not counted
# that this one was tried.
SERIAL = ("-library", "-work")
MOST_UNSEEN = 4  # times that this may happen to one task


@dataclass
class TaskAccount:
    """What the journals say of one task."""

    flag: str
    tries: int
    queue: str = "default"
    may_expire: bool = False
    replies: list[str] = field(default_factory=list)
    given_up: bool = False
    is_waited_for: bool = True  # its client lives
    taken: int = 0
    taken_unseen: int = 0  # of these, perhaps, without the broker's knowing: see `SERIAL`
    released: int = 0
    rejected: bool = False


class Accounts:
    """The books of one run."""

    def __init__(self, journals: Path, dead_clients: set[int]) -> None:
        """Read the journals; `dead_clients` are the process ids of those that did not live to the end."""
        self.violations: list[str] = []
        self.tasks: dict[str, TaskAccount] = {}
        self.totals: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        entries = list(read_journals(journals))
        for _, process_id, _, what, name, rest in entries:
            if what == SENT:
                flag, tries, *kind = rest.split()
                account = self.tasks[name] = TaskAccount(flag, int(tries), is_waited_for=process_id not in dead_clients)
                if kind:
                    account.queue, account.may_expire = kind[0], kind[1] == EXPIRED
        for author, _, _, what, name, rest in entries:
            self._enter(author, what, name, rest)
        for name, task in self.tasks.items():
            self._judge(name, task)

    def _enter(self, author: str, what: str, name: str, rest: str) -> None:
        task = self.tasks.get(name)
        if what == DAMAGED:
            self.violations.append(f"a worker got a damaged body: {name}")
        elif what == GOT and (task is None or rest.startswith(WRONG)):
            self.violations.append(f"a wrong reply to {name}: {rest}")
        elif task is None:
            self.violations.append(f"nobody sent {name}, but: {what} {rest}")
        elif what == GOT:
            task.replies.append(rest)
        elif what == GAVE_UP:
            task.given_up = True
        elif what == TOOK:
            task.taken += 1
            queues, _ = rest.split()
            if task.queue not in queues.split(","):
                self.violations.append(f"a worker of {queues} got {name} of the queue {task.queue}")
            task.taken_unseen += any(kind in author for kind in SERIAL)
        elif what == RELEASED:
            task.released += 1
        elif what == REJECTED:
            task.rejected = True

    def _judge(self, name: str, task: TaskAccount) -> None:
        """Hold one task against the promises, and add it to the totals."""
        expects_reply = task.is_waited_for and not task.given_up
        if len(task.replies) > 1 or (expects_reply and not task.replies):
            self.violations.append(f"{name} has {len(task.replies)} replies: {task}")
        seen = task.taken - task.released - min(task.taken_unseen, MOST_UNSEEN)
        if task.tries and seen > task.tries:
            self.violations.append(f"{name} was taken {task.taken} times, and released {task.released}: {task}")
        if task.flag == POISON and DONE in task.replies:
            self.violations.append(f"{name} is poison, but done: {task}")
        if EXPIRED in task.replies and not task.may_expire:
            self.violations.append(f"{name} expired: {task}")
        self.totals["tasks sent"] += 1
        self.totals["by clients that lived"] += task.is_waited_for
        self.totals["given up or cancelled"] += task.given_up
        self.totals["done"] += task.replies == [DONE]
        failed = any(reply.startswith(FAILED) for reply in task.replies)
        self.totals["failed: poison"] += failed and task.flag == POISON
        self.totals["failed: rejected"] += failed and task.rejected and task.flag != POISON
        self.totals["failed: no tries left"] += failed and not task.rejected and task.flag != POISON
        self.totals["expired"] += EXPIRED in task.replies
        self.totals["of other queues than the default one"] += task.queue != "default"
        self.totals["taken by workers"] += task.taken
        self.totals["taken more than once"] += task.taken > 1
        self.totals["released"] += task.released
