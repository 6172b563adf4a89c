"""What the peers of `kills.py` have in common, beyond what is in `chaos_tasks`: what clients write, and read of others.

A task is *attached*, *durable* or *detached*, as its client wants it.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chaos_clients import random_kind
from chaos_tasks import (
    DONE,
    PLAIN,
    POISON,
    SENT,
    WRONG,
    Entry,
    Journal,
    make_answer,
    make_body,
    read_entries,
)

ATTACHED, DURABLE, DETACHED = "attached", "durable", "detached"
KINDS: dict[str, dict[str, Any]] = {
    ATTACHED: {},
    DURABLE: {"durable": True, "keep": 3600.0},
    DETACHED: {"detach": True},
}
STORED = (DURABLE, DETACHED)

# What clients write, besides `sent`, `got` and `gave-up`: that a task was accepted, or that its outcome is unknown, as
# the broker says; that it is going to be cancelled or forgotten; that it was cancelled, as the broker says.
ACCEPTED, UNKNOWN, CANCELS, CANCELLED, FORGETS = "accepted", "unknown", "cancels", "cancelled", "forgets"

TRIES = 3  # attempts of a task, where its client does not say
PATIENCE = 240.0  # seconds for what is outstanding when nobody is killed any more
POISON_SHARE = 0.003
NOTHING = "-"


class Task(NamedTuple):
    """A task as its client sends it."""

    name: str  # and its key, if it has one
    kind: str
    fields: dict[str, Any]  # of its header, but for the key and the kind
    body: list[bytes]


class Books:
    """Makes the tasks of one client, and writes down what becomes of them."""

    def __init__(self, life: str, rng: random.Random) -> None:
        self.journal = Journal()
        self._life = life
        self._rng = rng
        self._count = 0

    def new_task(self, kinds: Sequence[str]) -> Task:
        """Return a task of one of these kinds, which is sent next."""
        self._count += 1
        rng, name = self._rng, f"{self._life}:{self._count}"
        body = make_body(name, POISON if rng.random() < POISON_SHARE else PLAIN, rng)
        task = Task(name, rng.choice(kinds), random_wishes(rng), body)
        wishes = [task.fields.get(field, NOTHING) for field in ("tries", "queue", "expires", "delay")]
        self.journal.write(SENT, name, body[0].split()[2].decode(), *wishes, task.kind, make_answer(body)[1].hex())
        return task


def random_wishes(rng: random.Random) -> dict[str, Any]:
    """Return some of the fields of a header."""
    fields = random_kind(rng)
    if rng.random() < 0.3:
        fields["priority"] = rng.randint(-2, 2)
    if rng.random() < 0.2:
        fields["delay"] = round(min(rng.expovariate(1), 0.9 * fields.get("expires", 3)), 3)
    if rng.random() < 0.2:
        fields["timeout"] = round(rng.uniform(0.2, 2), 3)
    if rng.random() < 0.6:
        fields["tries"] = rng.randint(1, 3)
    return fields


def outcome_text(name: str, status: str, body: Sequence[bytes], attempts: int, reason: str) -> str:
    """Return an outcome in one line: whoever has it, it is the same."""
    if status != DONE:
        return f"{status} {attempts} {' '.join(reason.split())}"
    if len(body) != 2 or body[0] != name.encode():
        return f"{WRONG} {[frame[:40] for frame in body]}"
    return f"{DONE} {body[1].hex()}"


class News:
    """What all processes of a run have written, as it comes."""

    def __init__(self, journals: Path) -> None:
        self._journals = journals
        self._read: dict[Path, int] = {}  # bytes, of each file

    def more(self) -> Iterator[Entry]:
        """Yield what has been written since."""
        for path in sorted(self._journals.glob("*.journal")):
            with open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                lines, end, _ = file.read().rpartition(b"\n")  # a line may be there in part
            self._read[path] = self._read.get(path, 0) + len(lines + end)
            yield from read_entries(path, lines)
