"""The clients of `kills.py`: `dealer` and `library` send tasks, `fetcher` and `remover` ask for those of others.

They do so until the end of file on their stdin, wait for what is outstanding, and end. What was left with the broker
is fetched by a `fetcher` as soon as it is accepted; what that one has, by a `remover`, which has some of it forgotten.
Some is fetched by nobody before the end of the run.
"""

import json
import os
import select
import sys
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from zlib import crc32

import zmq
from chaos_clients import connect
from chaos_tasks import CLIENT_PATIENCE, DONE, GAVE_UP, GOT, JOURNALS, WRONG, Journal, randomness
from kills_tasks import (
    ACCEPTED,
    ATTACHED,
    CANCELLED,
    CANCELS,
    DETACHED,
    DURABLE,
    FORGETS,
    KINDS,
    UNKNOWN,
    Books,
    News,
    Task,
    outcome_text,
)

import zmqbroker

CANCEL_SHARE = 0.03
TWICE_SHARE = 0.05  # of the tasks with a key, which are sent by two clients
WINDOWS = (10, 40, 160)
PAUSE = (0.0, 0.05)  # seconds between looks
SILENCE = 0.5  # seconds after which a client of raw frames connects anew
AGAIN = 0.2  # seconds after which it asks again when the broker did not want to hear of it
WAIT = 0.3  # seconds that somebody waits for an outcome
CLASSES = 10  # of tasks that were left
FETCHED = range(1, CLASSES)  # the others by who ends the run
FETCHED_TWICE = range(4, CLASSES)
FORGOTTEN = range(7, CLASSES)


class Patience:
    """Tells when a client is to end."""

    def __init__(self) -> None:
        self._until: float | None = None  # None: it goes on

    def is_finishing(self) -> bool:
        """Tell whether nothing new is to be begun."""
        if self._until is None and select.select([0], [], [], 0)[0]:
            self._until = time.monotonic() + CLIENT_PATIENCE
        return self._until is not None

    def is_over(self, outstanding: object) -> bool:
        """Tell whether nothing is outstanding any more, or has been for too long."""
        return self.is_finishing() and (not outstanding or time.monotonic() > (self._until or 0.0))


class Question:
    """A request of a client of raw frames: what it is about, and when it is sent again."""

    def __init__(self, what: str, key: str, message: list[bytes]) -> None:
        self.what = what
        self.key = key
        self.message = message
        self.due = 0.0


class Line:
    """A client of raw frames: it sends each request until it is answered, by a new connection after a silence."""

    def __init__(self, address: str) -> None:
        self.outstanding: dict[str, Question] = {}  # by id
        self._address = address
        self._socket = connect(zmq.DEALER, address)
        self._count = 0
        self._heard = time.monotonic()

    def ask(self, what: str, key: str, fields: dict[str, Any], body: list[bytes]) -> None:
        """Send a request with a header."""
        self._count += 1
        header = b"ZB1 " + json.dumps(fields | {"key": key, "id": str(self._count)}).encode()
        if not self.outstanding:
            self._heard = time.monotonic()
        question = self.outstanding[str(self._count)] = Question(what, key, [header, b"", *body])
        self._send(question)

    def hear(self, seconds: float) -> list[tuple[str, str, dict[str, Any], list[bytes]]]:
        """Return, of the answers that come within so many seconds: what it is about, key, header, and body."""
        answers = []
        if self._socket.poll(int(seconds * 1000)):
            while self._socket.poll(0):
                self._heard = time.monotonic()
                header, _, *body = self._socket.recv_multipart()
                fields = json.loads(header.removeprefix(b"ZB1 "))
                question = self.outstanding.get(fields["id"])
                if question is not None and fields["status"] == "unavailable":
                    question.due = self._heard + AGAIN
                elif question is not None:  # else it was sent twice
                    del self.outstanding[fields["id"]]
                    answers.append((question.what, question.key, fields, body))
        self._send_again()
        return answers

    def _send_again(self) -> None:
        now = time.monotonic()
        if self.outstanding and now > self._heard + SILENCE + WAIT:
            self._socket.close(linger=0)
            self._socket = connect(zmq.DEALER, self._address)
            self._heard = now
            for question in self.outstanding.values():
                question.due = now
        for question in self.outstanding.values():
            if question.due <= now:
                self._send(question)

    def _send(self, question: Question) -> None:
        question.due = time.monotonic() + CLIENT_PATIENCE
        self._socket.send_multipart(question.message)


def be_dealer(life: str, address: str) -> None:
    """Leave tasks, and wait for durable ones; cancel some; send some twice."""
    rng, patience, lines = randomness("client"), Patience(), [Line(address), Line(address)]
    books, window = Books(life, rng), rng.choice(WINDOWS)
    missing: dict[str, int] = {}  # answers, by task
    while not patience.is_over(any(line.outstanding for line in lines)):
        while len(lines[0].outstanding) < window and not patience.is_finishing():
            task = books.new_task((DURABLE, DETACHED))
            missing[task.name] = 2 if rng.random() < TWICE_SHARE else 1
            for line in lines[: missing[task.name]]:
                line.ask(task.kind, task.name, task.fields | KINDS[task.kind], task.body)
            if rng.random() < CANCEL_SHARE:
                books.journal.write(CANCELS, task.name)
                lines[1].ask(CANCELS, task.name, {"cancel": True}, [b""])
        for line in lines:
            for answer in line.hear(rng.uniform(*PAUSE)):
                judge(books, missing, *answer)


def judge(
    books: Books, missing: dict[str, int], what: str, key: str, header: dict[str, Any], body: list[bytes]
) -> None:
    """Write down an answer to one of the `dealer`'s requests."""
    status = header["status"]
    if what == CANCELS:
        if status == "cancelled":
            books.journal.write(CANCELLED, key)
        return
    missing[key] -= 1
    if status != "accepted":
        books.journal.write(GOT, key, outcome_text(key, status, body, header["attempts"], header.get("reason", "")))
    elif not missing[key]:
        books.journal.write(ACCEPTED, key)


def be_library(life: str, address: str) -> None:
    """Do all this by `zmqbroker.Client`, and wait for tasks that are not stored too."""
    rng, patience = randomness("client"), Patience()
    books, window = Books(life, rng), rng.choice(WINDOWS)
    settled: SimpleQueue[tuple[Task, Future[Any]]] = SimpleQueue()
    missing: dict[str, int] = {}  # answers, by task
    with zmqbroker.Client(address) as client, zmqbroker.Client(address) as other:
        while not patience.is_over(missing):
            while len(missing) < window and not patience.is_finishing():
                task = books.new_task(tuple(KINDS))
                key = {} if task.kind == ATTACHED else {"key": task.name}
                clients = [client, other] if key and rng.random() < TWICE_SHARE else [client]
                missing[task.name] = len(clients)
                for each in clients:
                    future = each.submit(task.body, **task.fields, **KINDS[task.kind], **key)
                    future.add_done_callback(partial(_put, settled, task))
                if rng.random() < CANCEL_SHARE:
                    cancel(books, other, task, future)
            try:
                task, future = settled.get(timeout=rng.uniform(*PAUSE))
            except Empty:
                continue
            missing[task.name] -= 1
            note(books, task, future, is_last=not missing[task.name])
            if not missing[task.name]:
                del missing[task.name]


def cancel(books: Books, client: zmqbroker.Client, task: Task, future: "Future[Any]") -> None:
    """Cancel a task: one with a key as anybody could."""
    books.journal.write(CANCELS, task.name)
    if task.kind == ATTACHED:
        future.cancel()
        return
    try:
        client.cancel(task.name)
    except KeyError:  # it is settled, or was cancelled when the answer was lost
        return
    books.journal.write(CANCELLED, task.name)


def note(books: Books, task: Task, future: "Future[Any]", is_last: bool) -> None:
    """Write down what became of a task that was submitted."""
    if future.cancelled():
        books.journal.write(GAVE_UP, task.name)
    elif task.kind != DETACHED or future.exception() is not None:
        books.journal.write(GOT, task.name, text_of(task.name, future))
    elif is_last:
        books.journal.write(ACCEPTED, task.name)


def text_of(name: str, future: "Future[Any]") -> str:
    """Return the outcome that a future has."""
    error = future.exception()
    if isinstance(error, zmqbroker.TaskFailed):
        return outcome_text(name, error.status, [], error.attempts, error.reason)
    return f"{WRONG} {error!r}" if error is not None else outcome_text(name, DONE, future.result(), 0, "")


def _put(settled: "SimpleQueue[tuple[Any, Future[Any]]]", what: Any, future: "Future[Any]") -> None:
    settled.put((what, future))


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
    settled: SimpleQueue[tuple[str, Future[Any]]] = SimpleQueue()
    outstanding = 0
    with zmqbroker.Client(address) as client:
        while not patience.is_over(outstanding):
            left.look()
            while left.keys and outstanding < window and not patience.is_finishing():
                outstanding += 1
                key = left.keys.popleft()
                client.outcome(key, WAIT).add_done_callback(partial(_put, settled, key))
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


ROLES = {"dealer": be_dealer, "library": be_library, "fetcher": be_fetcher, "remover": be_remover}

if __name__ == "__main__":
    ROLES[sys.argv[1]](sys.argv[2], sys.argv[3])
