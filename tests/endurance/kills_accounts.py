"""The accountant of `kills.py`: compares what the broker has promised to clients with what came of it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos_accounts import MOST_UNSEEN, SERIAL
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
    Entry,
    read_journals,
)
from kills_tasks import ACCEPTED, ATTACHED, CANCELLED, CANCELS, FORGETS, NOTHING, STORED, TRIES, UNKNOWN

CLOSELY = 0.5  # seconds by which the broker may be early: it looks at the clock once a turn, and may be held up then
# Seconds after the end of a task in which a worker may begin it that had it before: stopped, or at others before it.
LATE = 6.0
OUTCOMES = (DONE, FAILED, CANCELLED, EXPIRED)


@dataclass
class TaskAccount:
    """What the journals say of one task."""

    sent: float
    flag: str
    tries: int
    queue: str
    expires: float | None
    delay: float
    kind: str
    answer: str
    is_waited_for: bool  # its client lives
    at: dict[str, float] = field(default_factory=dict)  # when something was first said of it
    outcomes: dict[str, float] = field(default_factory=dict)  # when each was first heard
    heard: int = 0  # how often
    unknown: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    unseen: int = 0  # of these, perhaps, without the broker's knowing: see `chaos_accounts`
    released: int = 0


class Accounts:
    """The books of one run."""

    def __init__(self, journals: Path, dead_clients: set[int], deaths: list[float]) -> None:
        """Read the journals; `dead_clients` are process ids, `deaths` those of the broker."""
        self.violations: list[str] = []
        self.tasks: dict[str, TaskAccount] = {}
        self.totals: Counter[str] = Counter()
        self._deaths = deaths
        self._attempts: Counter[str] = Counter()
        entries = list(read_journals(journals))
        for entry in entries:
            if entry.what == SENT:
                self.tasks[entry.name] = _account(entry, entry.process_id not in dead_clients)
        for entry in sorted(entries, key=lambda entry: entry.at):
            self._enter(entry)
        for name, task in self.tasks.items():
            for finding in self._findings(task):
                self.violations.append(f"{name} {finding}: {task}")
            self._add_up(task)
        self.violations += [
            f"{name} was handed out {times} times" for name, times in self._attempts.items() if times > 1
        ]

    def _enter(self, entry: Entry) -> None:
        task, what = self.tasks.get(entry.name), entry.what
        if what == DAMAGED:
            self.violations.append(f"a worker got a damaged body: {entry.name}")
        elif task is None:
            self.violations.append(f"nobody sent {entry.name}, but: {what} {entry.rest}")
        elif what == GOT:
            task.heard += 1
            task.outcomes.setdefault(entry.rest, entry.at)
        elif what == UNKNOWN:
            task.unknown.append(entry.at)
        elif what == TOOK:
            self._take(task, entry)
        elif what == RELEASED:
            task.released += 1
        else:
            task.at.setdefault(what, entry.at)

    def _take(self, task: TaskAccount, entry: Entry) -> None:
        queues, attempt_id = entry.rest.split()
        self._attempts[f"the attempt {attempt_id} of {entry.name}"] += 1
        task.taken.append(entry.at)
        task.unseen += any(kind in entry.author for kind in SERIAL)
        if task.queue not in queues.split(","):
            self.violations.append(f"a worker of {queues} got {entry.name} of the queue {task.queue}")

    def _findings(self, task: TaskAccount) -> list[str]:
        """Hold one task against the promises."""
        return [*self._findings_of_outcome(task), *self._findings_of_attempts(task)]

    def _findings_of_outcome(self, task: TaskAccount) -> list[str]:
        at, found = task.at, []
        is_owed = task.is_waited_for and GAVE_UP not in at and ACCEPTED not in at
        if (is_owed or (ACCEPTED in at and FORGETS not in at)) and not task.outcomes:
            found.append("has no outcome")
        if len(task.outcomes) > 1 or (task.kind == ATTACHED and task.heard > 1):
            found.append("has several outcomes")
        if ACCEPTED in at and any(at[ACCEPTED] < unknown < at.get(FORGETS, unknown + 1) for unknown in task.unknown):
            found.append("was accepted, and is unknown")
        for outcome, heard in task.outcomes.items():
            status, _, rest = outcome.partition(" ")
            if status not in OUTCOMES or (status == DONE and rest != task.answer):
                found.append("has a wrong outcome")
            elif status != CANCELLED and CANCELLED in at:
                found.append("was cancelled, but has another outcome")
            elif status == CANCELLED and CANCELS not in at:
                found.append("was cancelled by nobody")
            elif status == DONE and task.flag == POISON:
                found.append("is poison, but done")
            elif status == EXPIRED and (task.expires is None or heard < task.sent + task.expires - CLOSELY):
                found.append("has expired too early")
            elif status == FAILED and REJECTED not in at and int(rest.split()[0]) != task.tries:
                found.append("has failed, and tries were left")
        return found

    def _findings_of_attempts(self, task: TaskAccount) -> list[str]:
        found = []
        settled = min(task.outcomes.values(), default=task.at.get(CANCELLED, float("inf")))
        if task.taken and task.taken[0] < task.sent + task.delay - CLOSELY:
            found.append("was begun before its delay was over")
        if any(taken > settled + LATE for taken in task.taken):
            found.append("was begun after it was settled")
        seen = len(task.taken) - task.released - min(task.unseen, MOST_UNSEEN)
        if seen > task.tries * self._sendings(task, settled):
            found.append("was begun too often")
        return found

    def _sendings(self, task: TaskAccount, settled: float) -> int:
        """Return how often a task may have been a new one: one that is not stored goes with the broker."""
        if task.kind in STORED:
            return 1
        return 1 + sum(task.sent < death < settled for death in self._deaths)

    def _add_up(self, task: TaskAccount) -> None:
        totals = self.totals
        totals["tasks sent"] += 1
        totals[task.kind] += 1
        totals["accepted"] += ACCEPTED in task.at
        totals["cancelled"] += CANCELLED in task.at
        totals["forgotten before the end"] += FORGETS in task.at
        for outcome in task.outcomes:
            totals[outcome.split()[0]] += 1
        totals["outcomes heard more than once"] += task.heard > 1
        totals["begun by workers"] += len(task.taken)
        totals["begun more than once"] += len(task.taken) > 1
        totals["begun after they were settled"] += any(
            taken > min(task.outcomes.values(), default=taken) for taken in task.taken
        )


def _account(entry: Entry, is_waited_for: bool) -> TaskAccount:
    flag, tries, queue, expires, delay, kind, answer = entry.rest.split()
    return TaskAccount(
        entry.at,
        flag,
        TRIES if tries == NOTHING else int(tries),
        "default" if queue == NOTHING else queue,
        None if expires == NOTHING else float(expires),
        0.0 if delay == NOTHING else float(delay),
        kind,
        answer,
        is_waited_for,
    )
