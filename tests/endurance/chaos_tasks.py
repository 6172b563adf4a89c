"""What the peers of `chaos.py` have in common: tasks that can be checked, decisions of a seed, and a journal.

A task's body is three frames: its words (`task ID FLAG`), a payload, and a checksum of both. Its answer is two: the ID,
and a digest that only who has the whole body can make.

A journal is a file with one line for each thing that happened, written at once and in one piece, so that it is complete
up to the death of its process. A line begins with the instant, by a clock that all processes have. The file's name says
whose it is: NAME.PROCESS-ID.journal.
"""

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

PLAIN = "plain"  # the flag of a task that does no harm
POISON = "poison"  # of one that kills whoever takes it

# What clients write: a task that is sent, with its flag, the limit on its attempts, its queue, and whether it expires;
# its reply; that nobody waits for it any more.
SENT, GOT, GAVE_UP = "sent", "got", "gave-up"
# What workers write: a task that was taken, with the queues that were asked from and the id of the attempt; that it was
# done, or was to fail, before the broker is told; one given back; a damaged body.
TOOK, ENDED, RELEASED, REJECTED, DAMAGED = "took", "ended", "released", "rejected", "damaged"
DONE, FAILED, EXPIRED, WRONG = "done", "failed", "expired", "wrong"  # what a reply is

SEED, NAME, JOURNALS = "ZMQBROKER_CHAOS_SEED", "ZMQBROKER_CHAOS_NAME", "ZMQBROKER_CHAOS_JOURNALS"
QUEUES = ("default", "gpu", "cpu")
LISTS = (("gpu", "default"), ("cpu",), ("cpu", "gpu"), ("gpu",))  # that workers ask from
TRIES = 5  # attempts of a task, where its client does not say
CLIENT_PATIENCE = 60.0  # seconds for what is outstanding when the chaos is over
LARGE = 100_000  # bytes; the broker passes such frames on without copying them
LARGE_SHARE = 0.02  # of all tasks


class Journal:
    """Where a process writes what it does."""

    def __init__(self) -> None:
        path = Path(os.environ[JOURNALS]) / f"{os.environ[NAME]}.{os.getpid()}.journal"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *words: object) -> None:
        """Write one line; it has happened when this returns, whatever becomes of the process."""
        os.write(self._descriptor, (" ".join(map(str, (f"{monotonic():.6f}", *words))) + "\n").encode())


class Entry(NamedTuple):
    """A line of a journal."""

    author: str  # the name of the file
    process_id: int
    at: float  # when
    what: str
    name: str  # of the task
    rest: str


def read_journals(journals: Path) -> Iterator[Entry]:
    """Yield what all processes of a run have written."""
    for path in sorted(journals.glob("*.journal")):
        yield from read_entries(path, path.read_bytes())


def read_entries(path: Path, lines: bytes) -> Iterator[Entry]:
    """Yield what there is in some lines of a journal."""
    process_id = int(path.suffixes[-2][1:])
    for line in lines.decode(errors="replace").splitlines():
        at, what, name, *rest = line.split(" ", 3)
        yield Entry(path.name, process_id, float(at), what, name, "".join(rest))


def randomness(*names: object) -> random.Random:
    """Return a source of randomness of this process's own, given by the seed of the whole run."""
    return random.Random(" ".join(map(str, (os.environ[SEED], os.environ[NAME], *names))))


def make_body(name: str, flag: str, rng: random.Random) -> list[bytes]:
    """Return the body of a new task."""
    words = f"task {name} {flag}".encode()
    payload = rng.randbytes(LARGE if rng.random() < LARGE_SHARE else rng.randrange(500))
    return [words, payload, _digest(b"body", words, payload)]


def read_body(body: Sequence[bytes]) -> tuple[str, str] | None:
    """Return the name and the flag of a task; None for one that is damaged, or is somebody's garbage."""
    words = body[0].split()
    if len(body) != 3 or len(words) != 3 or body[2] != _digest(b"body", body[0], body[1]):
        return None
    return words[1].decode(), words[2].decode()


def looks_like_ours(body: Sequence[bytes]) -> bool:
    """Tell whether a body is that of a task, if a damaged one."""
    return any(frame.startswith(b"task ") for frame in body)


def make_answer(body: Sequence[bytes]) -> list[bytes]:
    """Return the right answer to a body."""
    return [body[0].split()[1], _digest(b"answer", *body)]


def _digest(*frames: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=12)
    for frame in frames:
        digest.update(len(frame).to_bytes(8, "big") + frame)
    return digest.digest()
