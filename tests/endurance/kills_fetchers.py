"""The clients of `kills.py` that ask for tasks of others: `fetcher` and `remover`.

What was left with the broker is fetched by a `fetcher` as soon as it is accepted; what that one has, by a `remover`,
which has some of it forgotten. Some is fetched by nobody before the end of the run.
"""

import os
import sys
from collections import deque
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from zlib import crc32

from chaos_tasks import DONE, GOT, JOURNALS, Journal, randomness
from kills_clients import PAUSE, WAIT, WINDOWS, Line, Patience, put, text_of
from kills_tasks import ACCEPTED, FORGETS, UNKNOWN, News, outcome_text

import zmqbroker

CLASSES = 10  # of tasks that were left
FETCHED = range(1, CLASSES)  # the others by who ends the run
FETCHED_TWICE = range(4, CLASSES)
FORGOTTEN = range(7, CLASSES)


class Left:
    """The keys of what others have left, or had, as it comes; and which of those one is to ask for."""

    def __init__(self, journals: Path, life: str, what: str, author: str, classes: range) -> None:
        """Look for what has happened at clients whose name begins like this, to tasks of these classes."""
        self.keys: deque[str] = deque()
        self._role = life.split("-")[0]
        self._what = what
        self._author = author
        self._classes = classes
        self._news = News(journals)
        self._seen: set[str] = set()

    def look(self) -> None:
        """Take in what there is; what has been asked for by an earlier life of this client is done with."""
        for entry in self._news.more():
            if entry.author.startswith(self._role):
                self._seen.add(entry.name)
            elif entry.what == self._what and entry.author.startswith(self._author) and entry.name not in self._seen:
                self._seen.add(entry.name)
                if class_of(entry.name) in self._classes:
                    self.keys.append(entry.name)


def class_of(name: str) -> int:
    """Return what is to become of a task that was left."""
    return crc32(name.encode()) % CLASSES


def be_fetcher(life: str, address: str) -> None:
    """Fetch what others have left, by `zmqbroker.Client`."""
    rng, patience, journal = randomness("client"), Patience(), Journal()
    left, window = Left(journals(), life, ACCEPTED, "client", FETCHED), rng.choice(WINDOWS)
    settled: Queue[tuple[str, Future[Any]]] = Queue()
    outstanding = 0
    with zmqbroker.Client(address) as client:
        while not patience.is_over(outstanding):
            left.look()
            while left.keys and outstanding < window and not patience.is_finishing():
                outstanding += 1
                key = left.keys.popleft()
                client.outcome(key, WAIT).add_done_callback(partial(put, settled, key))
            try:
                key, future = settled.get(timeout=rng.uniform(*PAUSE))
            except Empty:
                continue
            outstanding -= 1
            error = future.exception()
            if isinstance(error, KeyError):
                journal.write(UNKNOWN, key)
            elif isinstance(error, TimeoutError):
                left.keys.append(key)
            else:
                journal.write(GOT, key, text_of(key, future))


def be_remover(life: str, address: str) -> None:
    """Fetch what a fetcher has had, by raw frames, and have some of it forgotten."""
    rng, patience, journal, line = randomness("client"), Patience(), Journal(), Line(address)
    left, window = Left(journals(), life, GOT, "fetcher", FETCHED_TWICE), rng.choice(WINDOWS)
    while not patience.is_over(line.outstanding):
        left.look()
        while left.keys and len(line.outstanding) < window and not patience.is_finishing():
            key = left.keys.popleft()
            fields: dict[str, Any] = {"fetch": WAIT}
            if class_of(key) in FORGOTTEN:
                journal.write(FORGETS, key)
                fields = rng.choice([{"forget": True}, fields | {"forget": True}])
            line.ask(GOT, key, fields, [b""])
        for _, key, header, body in line.hear(rng.uniform(*PAUSE)):
            if header["status"] == "unknown":
                journal.write(UNKNOWN, key)
            elif body != [b""] or header["status"] != DONE:  # else it was forgotten without a fetch
                text = outcome_text(key, header["status"], body, header["attempts"], header.get("reason", ""))
                journal.write(GOT, key, text)


def journals() -> Path:
    """Return where all journals are."""
    return Path(os.environ[JOURNALS])


ROLES = {"fetcher": be_fetcher, "remover": be_remover}

if __name__ == "__main__":
    ROLES[sys.argv[1]](sys.argv[2], sys.argv[3])
