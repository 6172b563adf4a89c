"""`current_task()`: what a handler knows of the task in hand, and says of it."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from math import nan
from typing import Any

import pytest
from conftest import Running
from helpers import PATIENCE, wait_until
from library_support import echo, working
from worker_support import BareBroker

from zmqbroker import Client, Worker, current_task
from zmqbroker.worker.current import CurrentTask


@pytest.fixture
def bare() -> Iterator[BareBroker]:
    with BareBroker() as bare:
        yield bare


def test_a_task_tells_about_itself(bare: BareBroker):
    seen: list[Any] = []

    def handle(_: bytes) -> None:
        task = current_task()
        seen.append((task.key, task.queue, task.attempt, task.tries, task.timeout, task.number, task.attempt_id))

    with working(bare.ready, handle):
        worker = bare.met()
        bare.give(worker, b"id", b"task", number=7, key="resize-1", queue="gpu", attempt=2, tries=5, timeout=1.5)
        bare.answer()
        bare.give(worker, b"plain", b"task")
        bare.answer()
    assert seen == [
        ("resize-1", "gpu", 2, 5, 1.5, 7, b"id"),
        (None, "default", 1, 0, None, 0, b"plain"),
    ]


def test_a_broker_tells_workers_about_their_tasks(running: Running):
    def handle(_: bytes) -> bytes:
        task = current_task()
        return json.dumps([bool(task.key), task.queue, task.attempt, task.tries, task.timeout, task.number]).encode()

    with working(running.addresses.ready, handle), Client(running.addresses.requests) as client:
        told = json.loads(client.submit(b"task", tries=4, timeout=9.5).result(PATIENCE))
    assert told == [True, "default", 1, 4, 9.5, 1]


def test_there_is_a_task_in_hand_in_a_handler_and_in_what_it_awaits_only(bare: BareBroker):
    seen: list[bytes] = []

    async def awaited() -> None:
        seen.append(current_task().attempt_id)
        await asyncio.to_thread(lambda: seen.append(current_task().attempt_id))

    with working(bare.ready, lambda _: asyncio.run(awaited())):
        bare.give(bare.met(), b"id", b"task")
        assert bare.answer() == [b"done", b"id", b""]
    assert seen == [b"id", b"id"]
    with pytest.raises(RuntimeError, match="there is no task in hand"):
        current_task()


def test_the_last_word_on_progress_is_sent(bare: BareBroker):
    may_end = threading.Event()

    def handle(_: bytes) -> None:
        task = current_task()
        for done in range(1000):
            task.progress(done, 1000, "going on")
        task.progress(1000)
        assert may_end.wait(PATIENCE)

    with working(bare.ready, handle):
        bare.give(bare.met(), b"id", b"task")
        heard = []
        while not heard or heard[-1]["done"] < 1000:
            verb, attempt_id, said = bare.answer()
            assert (verb, attempt_id) == (b"progress", b"id")
            heard.append(json.loads(said))
        may_end.set()
        assert bare.answer() == [b"done", b"id", b""]
    assert heard[0] == {"done": 0, "total": 1000, "text": "going on"}
    assert heard[-1] == {"done": 1000, "total": None, "text": ""}
    assert len(heard) < 500  # ten a second


def test_progress_of_nonsense_is_an_error(bare: BareBroker):
    errors: list[str] = []

    def handle(_: bytes) -> None:
        for done, text, kind in ((1, "x" * 4097, ValueError), (nan, "", ValueError), (1, b"bytes", TypeError)):
            with pytest.raises(kind) as caught:
                current_task().progress(done, 2, text)  # type: ignore[arg-type]
            errors.append(str(caught.value))

    with working(bare.ready, handle):
        bare.give(bare.met(), b"id", b"task")
        assert bare.answer() == [b"done", b"id", b""]
    assert errors[0] == "progress of 4,132 bytes: 4,096 is the most"


def test_what_is_said_of_a_task_that_is_done_counts_no_more(bare: BareBroker):
    tasks: list[CurrentTask] = []

    def handle(body: bytes) -> None:
        tasks.append(current_task())
        if body == b"second":
            tasks[0].touch(5)
            tasks[0].progress(1)
            assert not tasks[0].cancelled

    with working(bare.ready, handle):
        worker = bare.met()
        for number, body in enumerate((b"first", b"second")):
            bare.give(worker, b"%d" % number, body)
            assert bare.answer() == [b"done", b"%d" % number, b""]


@pytest.mark.parametrize("seconds", ["soon", 0, -1])
def test_a_touch_of_a_task_refuses_nonsense(bare: BareBroker, seconds: Any):
    def handle(_: bytes) -> None:
        with pytest.raises(ValueError, match="touch takes seconds above 0"):
            current_task().touch(seconds)

    with working(bare.ready, handle):
        bare.give(bare.met(), b"id", b"task")
        assert bare.answer() == [b"done", b"id", b""]


def test_a_child_that_the_handler_has_forked_has_no_say(bare: BareBroker):
    def handle(_: bytes) -> bytes:
        child = os.fork()
        if child == 0:
            refused = 0
            for say in (current_task().touch, lambda: current_task().progress(1)):
                try:
                    say()
                except RuntimeError:
                    refused += 1
            os._exit(refused)
        return b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with working(bare.ready, handle):
        bare.give(bare.met(), b"id", b"task")
        assert bare.answer() == [b"done", b"id", b"2"]


def test_the_keeper_sleeps_when_no_task_comes(bare: BareBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zmqbroker.worker.keeper.SLEEP_AFTER", 0.1)
    with working(bare.ready, echo) as (worker,):
        asking = bare.met()
        for number in range(2):
            bare.give(asking, b"%d" % number, b"task")
            assert bare.answer()[0] == b"done"
            wait_until(lambda: worker._keeper.is_asleep)


def test_a_worker_ends_when_its_context_is_closed_at_a_long_task():
    """What the program does to a context that it has made is an error to `run`, not a thread that hangs."""
    import zmq

    context: zmq.Context[Any] = zmq.Context()
    with BareBroker() as bare:
        gate = threading.Event()
        worker = Worker(bare.ready, lambda _: gate.wait(PATIENCE) and None, context=context)
        failed: list[BaseException] = []

        def work() -> None:
            try:
                worker.run()
            except zmq.ZMQError as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        bare.give(bare.met(), b"id", b"task")
        wait_until(lambda: worker._keeper._is_keeping)
        ending = threading.Thread(target=context.term, daemon=True)
        ending.start()
        wait_until(lambda: worker._keeper._thread is not None and not worker._keeper._thread.is_alive())
        gate.set()
        thread.join(PATIENCE)
        ending.join(PATIENCE)
        assert not thread.is_alive()
        assert not ending.is_alive()
    assert len(failed) == 1
