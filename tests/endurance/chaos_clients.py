"""The clients of `chaos.py`: `req`, `relaxed`, `dealer` and `library`.

They send tasks until the end of file on their stdin, wait for what is outstanding, and end. Each task and each reply is
in their journal. A reply that is never to come is told by its absence.
"""

import json
import random
import select
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, Queue
from typing import Any

import zmq
from chaos_tasks import (
    CLIENT_PATIENCE,
    DONE,
    EXPIRED,
    FAILED,
    GAVE_UP,
    GOT,
    PLAIN,
    POISON,
    QUEUES,
    SENT,
    TRIES,
    WRONG,
    Journal,
    make_answer,
    make_body,
    randomness,
)

import zmqbroker

SECOND_REPLIES_MS = 300  # time in which a client that has all its replies looks out for more
POISON_SHARE = 0.0008
CANCEL_SHARE = 0.03
WINDOWS = (1, 5, 40)
PAUSE_MS = (0, 30)  # between tasks
GIVING_UP_MS = (5, 3000)

Body = list[bytes]


class Desk:
    """The tasks of one client: what is outstanding, and what is written down."""

    def __init__(self, name: str) -> None:
        self.outstanding: dict[str, Body] = {}  # by name: the right answer
        self.rng = randomness("client")
        self._name = name
        self._journal = Journal()
        self._count = 0
        self._until: float | None = None  # when it stops waiting for what is outstanding; None: it still sends

    def new_task(self, fields: dict[str, Any] | None = None) -> tuple[str, Body]:
        """Return the name and the body of a task, which is sent next, with these fields; None: it has no header."""
        wishes = fields or {}
        self._count += 1
        name = f"{self._name}:{self._count}"
        body = make_body(name, POISON if self.rng.random() < POISON_SHARE else PLAIN, self.rng)
        self.outstanding[name] = make_answer(body)
        kind = wishes.get("queue", "default"), EXPIRED if "expires" in wishes else "-"
        self._journal.write(SENT, name, body[0].split()[2].decode(), wishes.get("tries", TRIES), *kind)
        return name, body

    def judge(self, name: str, reply: Sequence[bytes] | None, note: str = "", status: str = FAILED) -> None:
        """Write down a reply; None: it is none, but a status."""
        right = self.outstanding.pop(name, None)
        if right is None:
            self._journal.write(GOT, name, WRONG, "nobody waits for it (any more)", note)
        elif reply is None:
            self._journal.write(GOT, name, *([status, note] if status == FAILED else [status]))
        elif list(reply) == right:
            self._journal.write(GOT, name, DONE)
        else:
            self._journal.write(GOT, name, WRONG, [frame[:40] for frame in reply], note)

    def complain(self, what: str) -> None:
        """Write down a reply that belongs to no task."""
        self._journal.write(GOT, "?", WRONG, what)

    def give_up(self, name: str) -> None:
        """Write down that a reply is not waited for any more, and may come or not."""
        del self.outstanding[name]
        self._journal.write(GAVE_UP, name)

    def is_finishing(self) -> bool:
        """Tell whether no more tasks are to be sent."""
        if self._until is None and select.select([0], [], [], 0)[0]:
            self._until = time.monotonic() + CLIENT_PATIENCE
        return self._until is not None

    def is_finished(self) -> bool:
        """Tell whether there is nothing left to wait for, or no patience."""
        return self.is_finishing() and (not self.outstanding or time.monotonic() > (self._until or 0.0))


def connect(kind: int, address: str, **options: int) -> "zmq.Socket[Any]":
    """Connect a socket."""
    opened: zmq.Socket[Any] = zmq.Context.instance().socket(kind)
    opened.linger = 0
    for name, value in options.items():
        setattr(opened, name, value)
    opened.connect(address)
    return opened


def judge_plain(desk: Desk, reply: Body) -> None:
    """Judge the reply to the one task of a REQ client."""
    (name,) = desk.outstanding
    desk.judge(name, None if reply == [b""] else reply)


def be_req(desk: Desk, address: str) -> None:
    """Be a plain REQ client, which waits for its reply, come what may."""
    client = connect(zmq.REQ, address)
    while not desk.is_finished():
        if not desk.outstanding and not desk.is_finishing():
            _, body = desk.new_task()
            client.send_multipart(body)
        if client.poll(100):
            judge_plain(desk, client.recv_multipart())
            time.sleep(desk.rng.uniform(*PAUSE_MS) / 1000)


def be_relaxed(desk: Desk, address: str) -> None:
    """Be a REQ client that asks anew when it has lost its patience."""
    client = connect(zmq.REQ, address, req_correlate=1, req_relaxed=1)
    while not desk.is_finished():
        if not desk.is_finishing():
            for name in list(desk.outstanding):
                desk.give_up(name)
            _, body = desk.new_task()
            client.send_multipart(body)
        if client.poll(desk.rng.randint(*GIVING_UP_MS)):
            judge_plain(desk, client.recv_multipart())
            time.sleep(desk.rng.uniform(*PAUSE_MS) / 1000)


def be_dealer(desk: Desk, address: str) -> None:
    """Be a DEALER client with a window; half of its tasks have a header."""
    client = connect(zmq.DEALER, address)
    window = desk.rng.choice(WINDOWS)
    while not desk.is_finished():
        while len(desk.outstanding) < window and not desk.is_finishing():
            header = random_fields(desk.rng) | random_kind(desk.rng) if desk.rng.random() < 0.5 else None
            name, body = desk.new_task(header)
            frames = [] if header is None else [b"ZB1 " + json.dumps(header | {"key": name}).encode()]
            client.send_multipart([b"hop", name.encode(), *frames, b"", *body])
        if client.poll(desk.rng.randint(*PAUSE_MS)):
            judge_dealer(desk, client.recv_multipart())
    while client.poll(SECOND_REPLIES_MS):
        judge_dealer(desk, client.recv_multipart())


def judge_dealer(desk: Desk, message: Body) -> None:
    """Judge the envelope and the body of a reply."""
    if b"" not in message or message[0] != b"hop":
        desk.complain(f"not our envelope: {message}")
        return
    envelope, reply = message[: message.index(b"")], message[message.index(b"") + 1 :]
    name = envelope[1].decode()
    if len(envelope) == 2:
        desk.judge(name, None if reply == [b""] else reply)
        return
    header = json.loads(envelope[2].removeprefix(b"ZB1 "))
    if header["key"] != name or header["status"] not in (DONE, FAILED, EXPIRED):
        desk.complain(f"not our header: {header}")
    reason = header.get("reason", "").replace("\n", " ")
    desk.judge(name, reply if header["status"] == DONE else None, reason, header["status"])


def be_library(desk: Desk, address: str) -> None:
    """Be a `zmqbroker.Client` that submits, and cancels some of what it has submitted."""
    window = desk.rng.choice(WINDOWS)
    settled: Queue[tuple[str, Future[Any]]] = Queue()
    with zmqbroker.Client(address) as client:
        futures: dict[str, Future[Any]] = {}
        while not desk.is_finished():
            while len(desk.outstanding) < window and not desk.is_finishing():
                fields = random_fields(desk.rng)
                name, body = desk.new_task(fields)
                futures[name] = client.submit(body, **fields)
                futures[name].add_done_callback(partial(_put, settled, name))
                if desk.rng.random() < CANCEL_SHARE:
                    futures[desk.rng.choice(list(futures))].cancel()
            try:
                name, future = settled.get(timeout=desk.rng.uniform(*PAUSE_MS) / 1000)
            except Empty:
                continue
            del futures[name]
            if future.cancelled():
                desk.give_up(name)
                continue
            error = future.exception()
            desk.judge(name, future.result() if error is None else None, str(error).replace("\n", " "))


def _put(settled: "Queue[tuple[str, Future[Any]]]", name: str, future: "Future[Any]") -> None:
    settled.put((name, future))


def random_fields(rng: random.Random) -> dict[str, Any]:
    """Return some of the fields that a header may have."""
    fields: dict[str, Any] = {}
    if rng.random() < 0.3:
        fields["priority"] = rng.randint(-2, 2)
    if rng.random() < 0.2:
        fields["delay"] = round(rng.uniform(0, 0.5), 3)
    if rng.random() < 0.2:
        fields["timeout"] = round(rng.uniform(0.2, 2), 3)
    if rng.random() < 0.2:
        fields["tries"] = rng.randint(2, 8)
    return fields


def random_kind(rng: random.Random) -> dict[str, Any]:
    """Return some of the fields of a header that say where a task waits, for how long, and when it is tried again."""
    fields: dict[str, Any] = {"queue": rng.choice(QUEUES)}
    if rng.random() < 0.5:
        fields["group"] = rng.choice("abc")
    if rng.random() < 0.3:
        fields["expires"] = round(rng.uniform(0.6, 3), 3)  # later than any delay is over
    if rng.random() < 0.3:
        fields |= {"retry_delay": round(rng.uniform(0, 0.2), 3), "retry_factor": 2, "retry_most": 0.5}
    return fields


KINDS = {"req": be_req, "relaxed": be_relaxed, "dealer": be_dealer, "library": be_library}

if __name__ == "__main__":
    KINDS[sys.argv[1]](Desk(sys.argv[2]), sys.argv[3])
