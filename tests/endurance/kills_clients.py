"""The clients of `kills.py` that send tasks: `dealer` and `library`.

They do so until the end of file on their stdin, wait for what is outstanding, and end. What they have left with the
broker is for others to fetch: see `kills_fetchers`.
"""

import json
import select
import sys
import time
from concurrent.futures import Future
from functools import partial
from queue import Empty, Queue
from typing import Any

import zmq
from chaos_clients import connect
from chaos_tasks import DONE, GAVE_UP, GOT, WRONG, randomness
from kills_tasks import (
    ACCEPTED,
    ATTACHED,
    CANCELLED,
    CANCELS,
    DETACHED,
    DURABLE,
    KINDS,
    PATIENCE,
    Books,
    Task,
    outcome_text,
)

import zmqbroker

CANCEL_SHARE = 0.03
TWICE_SHARE = 0.05  # of the tasks with a key, which are sent by two clients
WINDOWS = (10, 30, 90)
PAUSE = (0.0, 0.05)  # seconds between looks
SILENCE = 0.5  # seconds after which a client of raw frames connects anew
AGAIN = 0.2  # seconds after which it asks again when the broker did not want to hear of it
WAIT = 0.3  # seconds that somebody waits for an outcome


class Patience:
    """Tells when a client is to end."""

    def __init__(self) -> None:
        self._until: float | None = None  # None: it goes on

    def is_finishing(self) -> bool:
        """Tell whether nothing new is to be begun."""
        if self._until is None and select.select([0], [], [], 0)[0]:
            self._until = time.monotonic() + PATIENCE
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
        question.due = time.monotonic() + PATIENCE
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
    settled: Queue[tuple[Task, Future[Any]]] = Queue()
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
                    future.add_done_callback(partial(put, settled, task))
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


def put(settled: "Queue[tuple[Any, Future[Any]]]", what: Any, future: "Future[Any]") -> None:
    """Have what became of something come out of a queue."""
    settled.put((what, future))


ROLES = {"dealer": be_dealer, "library": be_library}

if __name__ == "__main__":
    ROLES[sys.argv[1]](sys.argv[2], sys.argv[3])
