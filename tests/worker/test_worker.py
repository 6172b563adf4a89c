"""The worker library on real sockets."""

import asyncio
import gc
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import Future
from time import monotonic
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, Running
from helpers import PATIENCE, TOP, Program, bound_addresses, wait_until
from library_support import NOBODY, Gate, Proxy, echo, working
from worker_support import BareBroker, Outcome

from zmqbroker import Client, Fail, Reject, TaskFailed, Worker, __version__, current_task
from zmqbroker.wire import Announce


@pytest.fixture
def bare() -> Iterator[BareBroker]:
    with BareBroker() as bare:
        yield bare


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.addresses.requests) as client:
        yield client


def run(worker: Worker) -> threading.Thread:
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE)
    return not thread.is_alive()


# What a handler gets and returns


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        (b"result", [b"result"]),
        (b"", [b""]),
        (None, [b""]),
        ([b"a", b"", b"b"], [b"a", b"", b"b"]),
        ((b"a", b"b"), [b"a", b"b"]),
        ([], [b""]),
        (bytearray(b"result"), [b"result"]),
        (memoryview(b"result"), [b"result"]),
        (memoryview(b"rXeXsXuXlXtX")[::2], [b"result"]),
        ([b"a", memoryview(array("H", [0, 0]))], [b"a", bytes(4)]),
    ],
)
def test_what_a_handler_returns_is_the_result(bare: BareBroker, returned: Any, result: list[bytes]):
    with working(bare.ready, lambda _: returned):
        bare.give(bare.met(), b"id", b"task")
        assert bare.answer() == [b"done", b"id", *result]


@pytest.mark.parametrize("returned", ["text", 7, {}, [b"a", "b"], [None], True])
def test_what_is_no_result_fails_the_attempt(bare: BareBroker, returned: Any):
    with working(bare.ready, lambda _: returned):
        bare.give(bare.met(), b"id", b"task")
        _, outcome = bare.said()
        assert (outcome.verb, outcome.attempt_id, outcome.asks) == (b"fail", b"id", 1)  # it lives on
        (reason,) = outcome.argument
        kind = type(returned).__name__
        assert reason.decode() == f"TypeError: the handler returned {kind}: not bytes, a list of bytes or None"


@pytest.mark.parametrize(("body", "given"), [([b"task"], b"task"), ([b""], b""), ([b"a", b"b"], [b"a", b"b"])])
def test_a_handler_gets_bytes_or_a_list_of_them(bare: BareBroker, body: list[bytes], given: Any):
    seen: list[Any] = []
    with working(bare.ready, seen.append):
        bare.give(bare.met(), b"id", *body)
        bare.answer()
    assert seen == [given]


def test_an_exception_fails_the_attempt_and_the_worker_lives_on(running: Running, client: Client):
    def handle(body: bytes) -> bytes:
        if body == b"bad":
            raise ValueError("bad input")
        return body

    with working(running.addresses.ready, handle) as (worker,):
        failures = [client.submit(b"bad", tries=2) for _ in range(3)]
        assert client.call(b"good", wait=PATIENCE) == b"good"
        for future in failures:
            with pytest.raises(TaskFailed, match="ValueError: bad input") as caught:
                future.result(PATIENCE)
            assert (caught.value.status, caught.value.attempts) == ("failed", 2)
    assert worker.tasks == 7


@pytest.mark.parametrize(
    ("kind", "verb", "said"),
    [(Exception, b"fail", b"MuteError"), (Fail, b"fail", b"failed"), (Reject, b"reject", b"rejected")],
)
def test_an_exception_that_has_no_text_counts_all_the_same(
    bare: BareBroker, kind: type[Exception], verb: bytes, said: bytes
):
    class MuteError(kind):  # type: ignore[valid-type,misc]
        def __str__(self) -> str:
            raise ValueError

    def handle(_: bytes) -> bytes:
        raise MuteError

    with working(bare.ready, handle):
        bare.give(bare.met(), b"id", b"task")
        assert bare.said()[1] == Outcome(verb, b"id", (said,), asks=1)  # it lives on


def test_a_rejected_task_is_not_tried_again(running: Running, client: Client):
    def handle(body: bytes) -> bytes:
        raise Reject(body.decode())

    with working(running.addresses.ready, handle):
        for body, reason in ((b"no such account", "no such account"), (b"", "rejected")):
            with pytest.raises(TaskFailed) as caught:
                client.call(body, wait=PATIENCE, tries=5)
            assert (caught.value.reason, caught.value.attempts) == (reason, 1)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (SystemExit(3), b"the function called sys.exit(3)"),
        (GeneratorExit(), b"GeneratorExit"),
        (asyncio.CancelledError(), b"CancelledError"),
        (BaseException("all of it"), b"BaseException: all of it"),
    ],
)
def test_whatever_is_raised_fails_the_attempt_with_its_name(bare: BareBroker, end: BaseException, said: bytes):
    def handle(_: bytes) -> bytes:
        raise end

    with working(bare.ready, handle):
        worker = bare.met()
        for _ in range(2):
            bare.give(worker, b"id", b"task")
            assert bare.answer() == [b"fail", b"id", said]


def test_a_keyboard_interrupt_ends_a_worker_and_fails_the_attempt_first(bare: BareBroker):
    def handle(_: bytes) -> bytes:
        raise KeyboardInterrupt

    outcome: Future[None] = Future()

    def work() -> None:
        try:
            Worker(bare.ready, handle).run()
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    bare.give(bare.met(), b"id", b"task")
    assert bare.answer() == [b"fail", b"id", b"the handler was interrupted"]
    assert isinstance(outcome.exception(PATIENCE), KeyboardInterrupt)


SIGNALLED = """
import os, signal, sys
from zmqbroker import Worker
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
Worker(sys.argv[1], lambda body: os.kill(os.getpid(), signal.SIGTERM)).run()
"""


def test_a_signal_handler_may_end_the_program_of_a_worker_that_is_busy(bare: BareBroker):
    command = [sys.executable, "-c", SIGNALLED, bare.ready]
    with subprocess.Popen(command, cwd=TOP) as process:
        try:
            bare.give(bare.met(), b"id", b"task")
            assert bare.answer() == [b"fail", b"id", b"the handler was interrupted"]
            assert process.wait(PATIENCE) == 3
        finally:
            process.kill()


FORKING = """
import os, sys
from zmqbroker import Worker
def handle(body):
    if os.fork() == 0:
        exec(body)
        return b"child"
    return b"%d" % os.waitstatus_to_exitcode(os.wait()[1])
worker = Worker(sys.argv[1], handle)
worker.run()
"""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", b"0"),
        (b"raise ValueError", b"1"),
        (b"sys.exit(3)", b"3"),
        (b"worker.run()", b"1"),
        (b"try: worker.touch(1)\nexcept RuntimeError: sys.exit(5)", b"5"),
    ],
)
def test_a_child_that_the_handler_has_forked_never_becomes_a_worker(bare: BareBroker, body: bytes, status: bytes):
    command = [sys.executable, "-c", FORKING, bare.ready]
    with subprocess.Popen(command, cwd=TOP, stderr=subprocess.DEVNULL) as process:
        try:
            bare.give(bare.met(), b"id", body)
            assert bare.said()[1] == Outcome(b"done", b"id", (status,), asks=1)
            assert not bare.has_message()
        finally:
            process.kill()


def test_a_large_body_is_not_held_while_the_next_one_is_waited_for(bare: BareBroker):
    def large_frames() -> int:
        gc.collect()
        return sum(isinstance(held, zmq.Frame) and len(held) > 1_000_000 for held in gc.get_objects())

    with working(bare.ready, lambda body: b"%d" % len(body)):
        worker = bare.met()
        for number in (1, 2):
            bare.give(worker, b"%d" % number, bytes(5_000_000 * number))
            assert bare.answer() == [b"done", b"%d" % number, b"%d" % (5_000_000 * number)]
        wait_until(lambda: large_frames() == 0)


# What is said to the broker


def test_a_worker_says_who_it_is_and_then_asks_for_one_task(bare: BareBroker):
    with working(bare.ready, echo, label="gpu 1"):
        worker, announce, attempt_ids = bare.announced(welcome=False)
        assert announce == Announce(("default",), "gpu 1", socket.gethostname(), os.getpid(), serial=True, headers=True)
        assert attempt_ids == []
        assert not bare.has_message(50)  # it waits for the welcome
        bare.welcome(worker)
        assert bare.said() == (worker, Outcome(b"ready", b"", asks=1))


def test_each_outcome_asks_for_the_next_task(bare: BareBroker):
    with working(bare.ready, echo, slots=1):
        worker = bare.met()
        for number in range(5):
            bare.give(worker, b"%d" % number, b"task")
            assert bare.said() == (worker, Outcome(b"done", b"%d" % number, (b"task",), asks=1))
            assert not bare.has_message()


def test_four_slots_are_four_tasks_at_a_time(bare: BareBroker):
    with working(bare.ready, echo, slots=4):
        worker = bare.met()
        for turn in range(3):
            assert bare.asked == 4
            tasks = [b"%d %d" % (turn, slot) for slot in range(4)]
            for task in tasks:
                bare.give(worker, task, b"task")
            assert [bare.answer()[1] for _ in range(4)] == tasks


def test_more_slots_than_one_message_asks_for_are_asked_for_in_several(bare: BareBroker):
    with working(bare.ready, echo, slots=150):
        bare.met()
        assert [bare.said()[1].asks for _ in range(2)] == [64, 22]


def test_a_worker_of_short_tasks_asks_ahead(bare: BareBroker):
    with working(bare.ready, echo):
        worker = bare.met()
        while bare.asked < 32:
            for number in range(bare.asked):
                bare.give(worker, b"%d" % number, b"task")
                bare.said()


@pytest.mark.parametrize("slots", [0, 1.5, "2"])
def test_what_is_no_number_of_slots_is_refused(slots: Any):
    with pytest.raises(ValueError, match=f"slots must be a whole number, 1 or more, not {slots!r}"):
        Worker(NOBODY, echo, slots=slots)


def test_a_label_that_is_no_text_is_refused():
    label: Any = b"resizer"
    with pytest.raises(ValueError, match="a label must be text, not b'resizer'"):
        Worker(NOBODY, echo, label=label)


def test_a_handler_that_is_no_function_is_refused():
    handler: Any = "tasks:echo"
    with pytest.raises(ValueError, match="the handler must be a function, not 'tasks:echo'"):
        Worker(NOBODY, handler)


@pytest.mark.parametrize("address", ["", "nowhere", "localhost:4162", "tcp://127.0.0.1", "tcp://*:4162"])
def test_a_wrong_address_is_a_value_error(address: str):
    with pytest.raises(ValueError, match="is no address to connect to"):
        Worker(address, echo)


def test_a_touch_says_how_long(bare: BareBroker):
    def handle(_: bytes) -> None:
        worker.touch()
        current_task().touch(2)
        thread = threading.Thread(target=worker.touch, args=(0.5,))
        thread.start()
        thread.join(PATIENCE)

    with working(bare.ready, handle) as (worker,):
        asking = bare.met()
        worker.touch(99)  # there is nothing in hand
        bare.give(asking, b"id", b"task")
        assert [bare.answer() for _ in range(4)] == [
            [b"touch", b"id", b""],
            [b"touch", b"id", b"2.0"],
            [b"touch", b"id", b"0.5"],
            [b"done", b"id", b""],
        ]
        worker.touch(99)
        bare.give(asking, b"next", b"task")
        assert bare.answer()[:2] == [b"touch", b"next"]
    worker.touch()  # nor has one that has ended


@pytest.mark.parametrize("seconds", ["soon", "", [], {}, 0, -1, math.nan, math.inf, 1e10, 10**400, b"x", object])
def test_a_touch_of_nonsense_is_a_value_error(seconds: Any):
    worker = Worker(NOBODY, echo)
    with pytest.raises(ValueError, match="touch takes seconds above 0 and up to 1,000,000,000, not"):
        worker.touch(seconds)
    worker.stop()
    worker.run()  # closes it


def test_a_worker_runs_once(bare: BareBroker):
    worker = Worker(bare.ready, echo)
    thread = run(worker)
    bare.met()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a Worker runs once"):
            worker.run()
        worker.stop()
        assert ended(thread)


def test_a_worker_without_real_threads_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: 0)
    with pytest.raises(RuntimeError, match="a Worker needs real threads"):
        Worker(NOBODY, echo)


def test_a_task_that_is_touched_outlives_its_timeout(running: Running, client: Client):
    touched, may_end = threading.Event(), threading.Event()

    def handle(body: bytes) -> bytes:
        worker.touch(60)
        touched.set()
        assert may_end.wait(PATIENCE)
        return body

    with working(running.addresses.ready, handle) as (worker,):
        long = client.submit(b"long", timeout=1, tries=1)
        assert touched.wait(PATIENCE)
        silent = running.worker()
        clock = client.submit(b"clock", timeout=1.2, tries=1)
        silent.take()
        with pytest.raises(TaskFailed, match="timed out"):
            clock.result(PATIENCE)  # so the timeout of the first is over by now
        may_end.set()
        assert long.result(PATIENCE) == b"long"


# Stopping


def test_a_worker_that_waits_for_a_task_takes_back_what_it_asked_for_and_stops(bare: BareBroker):
    worker = Worker(bare.ready, echo, slots=3)
    thread = run(worker)
    asking = bare.met()
    worker.stop()
    worker.stop()
    assert bare.said() == (asking, Outcome(b"withdraw", b"", asks=3))
    bare.tell(asking, b"withdrawn", b"3")
    assert ended(thread)
    worker.stop()


def test_a_worker_stops_where_no_broker_listens():
    worker = Worker(NOBODY, echo)
    thread = run(worker)
    worker.stop()
    assert ended(thread)


def test_a_worker_stopped_before_it_runs_asks_for_nothing(bare: BareBroker):
    worker = Worker(bare.ready, echo)
    worker.stop()
    assert ended(run(worker))
    assert not bare.has_message()


@pytest.mark.parametrize("from_the_handler", [True, False])
def test_the_task_in_hand_is_finished_and_answered(bare: BareBroker, from_the_handler: bool):
    in_hand, may_end = threading.Event(), threading.Event()

    def handle(body: bytes) -> bytes:
        if from_the_handler:
            worker.stop()
        in_hand.set()
        assert may_end.wait(PATIENCE)
        return body

    worker = Worker(bare.ready, handle)
    thread = run(worker)
    bare.give(bare.met(), b"id", b"task")
    assert in_hand.wait(PATIENCE)
    if not from_the_handler:
        worker.stop()
    may_end.set()
    assert bare.said()[1] == Outcome(b"done", b"id", (b"task",), asks=0)
    assert ended(thread)
    assert not bare.has_message()


def test_tasks_that_came_before_the_stop_are_released(bare: BareBroker):
    given = threading.Barrier(2)
    worker = Worker(bare.ready, lambda _: (given.wait(PATIENCE), worker.stop())[1], slots=4)
    thread = run(worker)
    asking = bare.met()
    for number in range(3):
        bare.give(asking, b"%d" % number, b"task")
    given.wait(PATIENCE)
    said = sorted(bare.said()[1][:2] for _ in range(4))
    assert said == [(b"done", b"0"), (b"release", b"1"), (b"release", b"2"), (b"withdraw", b"")]
    bare.tell(asking, b"withdrawn", b"1")
    assert ended(thread)


def test_a_worker_that_is_stopped_at_a_long_task_gives_back_the_others_at_once(bare: BareBroker):
    gate = Gate(b"long")
    worker = Worker(bare.ready, gate, slots=2)
    thread = run(worker)
    asking = bare.met()
    for number, body in enumerate((b"long", b"short")):
        bare.give(asking, b"%d" % number, body)
    gate.wait_for(b"long")
    wait_until(lambda: bool(worker._session.tasks))
    worker.stop()
    assert bare.said()[1] == Outcome(b"release", b"1")
    gate.open(b"long")
    assert bare.answer() == [b"done", b"0", b"LONG"]
    assert ended(thread)


def test_a_task_that_crosses_with_leaving_is_released(bare: BareBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zmqbroker.worker.worker.LAST_LOOK_MS", 10_000)
    worker = Worker(bare.ready, echo, slots=2)
    thread = run(worker)
    asking = bare.met()
    worker.stop()
    assert bare.said()[1] == Outcome(b"withdraw", b"", asks=2)
    bare.give(asking, b"id", b"task")
    bare.tell(asking, b"withdrawn", b"1")
    assert bare.said()[1] == Outcome(b"release", b"id")
    assert ended(thread)


def test_workers_that_come_and_go_lose_nothing(running: Running, client: Client):
    tasks = [b"%d" % number for number in range(400)]
    futures = [client.submit(task, tries=1) for task in tasks]

    workers: list[Worker] = []

    def work_for_a_while() -> None:
        def handle(body: bytes) -> bytes:
            if worker.tasks == 20:
                worker.stop()
            return body

        worker = Worker(running.addresses.ready, handle, slots=2)
        workers.append(worker)
        worker.run()

    def come_and_go() -> None:
        while not all(future.done() for future in futures):
            work_for_a_while()

    def all_have_gone() -> bool:
        for worker in workers:
            worker.stop()
        return not any(thread.is_alive() for thread in threads)

    threads = [threading.Thread(target=come_and_go, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert [future.result(PATIENCE) for future in futures] == tasks
    wait_until(all_have_gone)


SCRIPT = """
import signal, sys
from zmqbroker import Worker
worker = Worker(sys.argv[1], lambda body: body)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: worker.stop())
worker.run()
print("left", worker.tasks)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_handler_may_stop_a_worker(bare: BareBroker, number: signal.Signals):
    command = [sys.executable, "-c", SCRIPT, bare.ready]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        try:
            bare.give(bare.met(), b"id", b"task")
            assert bare.answer() == [b"done", b"id", b"task"]
            process.send_signal(number)
            assert process.communicate(timeout=PATIENCE)[0] == "left 1\n"
        finally:
            process.kill()
    assert process.returncode == 0


# Restarts


def test_a_worker_survives_any_number_of_restarts():
    broker = Program("broker.py", "--drain", 0, *(LOOPBACK,) * 3)
    try:
        addresses = bound_addresses(broker)
        with working(addresses[1], echo, count=2):
            for number in range(4):
                with Client(addresses[0]) as client:
                    assert list(client.map([b"%d" % number] * 20)) == [b"%d" % number] * 20
                if number < 3:
                    broker.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
                    broker = Program("broker.py", "--drain", 0, *addresses)
                    bound_addresses(broker)
    finally:
        broker.clean_up()


def test_a_task_in_hand_outlives_a_restart(bare: BareBroker):
    gate = Gate(b"long")
    with working(bare.ready, gate) as (ours,):
        bare.give(bare.met(), b"id", b"long")
        gate.wait_for(b"long")
        bare.close()
        wait_until(lambda: not ours._session.is_welcome)
        with BareBroker(bare.ready) as new:
            worker, _, attempt_ids = new.announced()  # while the handler runs
            assert attempt_ids == [b"id"]
            wait_until(lambda: ours._session.is_welcome)
            gate.open(b"long")
            assert new.said() == (worker, Outcome(b"done", b"id", (b"LONG",), asks=1))


def test_what_lies_behind_is_named_and_what_was_done_is_said_again_after_a_restart(bare: BareBroker):
    gate = Gate(b"1")
    with working(bare.ready, gate, slots=4):
        worker = bare.met()
        for number in range(3):
            bare.give(worker, b"id %d" % number, b"%d" % number)
        assert bare.answer() == [b"done", b"id 0", b"0"]
        gate.wait_for(b"1")
        bare.close()
        with BareBroker(bare.ready) as new:
            worker, _, attempt_ids = new.announced()
            assert attempt_ids == [b"id 1", b"id 2"]
            assert new.said()[1] == Outcome(b"done", b"id 0", (b"0",), asks=0)
            assert new.said()[1] == Outcome(b"ready", b"", asks=2)
            gate.open(b"1")
            assert [new.answer()[1] for _ in range(2)] == [b"id 1", b"id 2"]
        assert gate.counts == {b"0": 1, b"1": 1, b"2": 1}


def test_an_outcome_that_no_broker_was_there_for_is_said_before_a_worker_leaves(bare: BareBroker):
    gate = Gate(b"long")
    worker = Worker(bare.ready, gate)
    thread = run(worker)
    bare.give(bare.met(), b"id", b"long")
    gate.wait_for(b"long")
    bare.close()
    with BareBroker(bare.ready) as new:
        again, _, _ = new.announced(welcome=False)
        worker.stop()
        gate.open(b"long")
        wait_until(lambda: worker._session.has_unsaid)
        new.welcome(again)
        assert new.said()[1] == Outcome(b"done", b"id", (b"LONG",), asks=0)
        assert ended(thread)


# What the broker says of tasks


def test_a_task_that_is_dropped_before_it_began_is_not_run(bare: BareBroker):
    gate = Gate(b"long")
    with working(bare.ready, gate, slots=3):
        worker = bare.met()
        for number, body in enumerate((b"long", b"dropped", b"next")):
            bare.give(worker, b"%d" % number, body)
        gate.wait_for(b"long")
        bare.tell(worker, b"drop", b"1")
        bare.tell(worker, b"drop", b"0")  # has begun
        bare.tell(worker, b"drop", b"unknown")
        assert bare.said()[1] == Outcome(b"release", b"1", asks=0)
        gate.open(b"long")
        assert bare.said()[1] == Outcome(b"done", b"0", (b"LONG",), asks=2)
        assert bare.said()[1] == Outcome(b"done", b"2", (b"NEXT",), asks=1)
    assert gate.counts == {b"long": 1, b"next": 1}


def test_what_came_while_nobody_could_hear_it_is_read_before_the_next_task_begins(
    bare: BareBroker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zmqbroker.worker.keeper.KEEP_AFTER", math.inf)  # as for a handler that holds the interpreter
    begun = threading.Event()

    def handle(body: bytes) -> bytes:
        begun.set()
        wait_until(lambda: bool(worker._line.socket.get(zmq.EVENTS) & zmq.POLLIN))  # by looks 20 ms apart
        return body

    with working(bare.ready, handle, slots=2) as (worker,):
        asking = bare.met()
        bare.give(asking, b"0", b"task")
        assert begun.wait(PATIENCE)
        bare.give(asking, b"1", b"dropped")
        bare.tell(asking, b"drop", b"1")
        assert bare.answer() == [b"done", b"0", b"task"]
        assert bare.said()[1] == Outcome(b"release", b"1", asks=1)


def test_a_task_that_nobody_wants_any_more_is_told_so(bare: BareBroker):
    begun = threading.Event()
    heard: list[bytes] = []

    def handle(body: bytes) -> bytes:
        task = current_task()
        assert not task.cancelled
        begun.set()
        wait_until(lambda: task.cancelled)
        return body

    with working(bare.ready, handle) as (worker,):
        worker.upkeep.on_cancel = lambda: heard.append(b"cancel")
        asking = bare.met()
        bare.give(asking, b"id", b"task")
        assert begun.wait(PATIENCE)
        for _ in range(2):
            bare.tell(asking, b"cancel", b"id")
        assert bare.answer() == [b"done", b"id", b"task"]
    assert heard == [b"cancel"]


def test_a_worker_touches_a_long_task_by_itself_up_to_a_limit(bare: BareBroker):
    gate = Gate(b"long")
    with working(bare.ready, gate) as (worker,):
        worker.upkeep.touch_every, worker.upkeep.touch_until = 0.08, 0.2
        touched: list[float | None] = []
        worker.upkeep.on_touch = touched.append
        bare.give(bare.met(), b"id", b"long")
        gate.wait_for(b"long")
        assert bare.answer() == [b"touch", b"id", b""]
        wait_until(lambda: monotonic() > worker._session.begun_at + 0.3)
        gate.open(b"long")
        answers = [bare.answer()]
        while answers[-1][0] != b"done":
            answers.append(bare.answer())
    assert len(answers) <= 2  # a second touch, perhaps, and the result
    assert touched == [None] * len(answers)


def test_what_lies_behind_a_long_task_is_done_by_another_worker_and_by_it_alone(running: Running, client: Client):
    slow, quick = Gate(b"long"), Gate()
    long = client.submit(b"long")
    short = [client.submit(b"%d" % number, tries=1) for number in range(7)]
    with working(running.addresses.ready, slow, slots=8) as (stuck,):
        slow.wait_for(b"long")
        with working(running.addresses.ready, quick):
            assert [future.result(PATIENCE) for future in short] == [b"%d" % number for number in range(7)]
        assert not long.done()
        wait_until(lambda: not stuck._session.tasks)  # it has been told to drop them
        slow.open(b"long")
        assert long.result(PATIENCE) == b"LONG"
    assert slow.counts == {b"long": 1}
    assert sum(quick.counts.values()) == 7


def test_a_task_that_is_cancelled_is_told_so(running: Running, client: Client):
    begun = threading.Event()
    ended: list[bytes] = []

    def handle(body: bytes) -> bytes:
        task = current_task()
        begun.set()
        wait_until(lambda: task.cancelled)
        ended.append(body)
        return body

    with working(running.addresses.ready, handle):
        future = client.submit(b"task")
        assert begun.wait(PATIENCE)
        assert future.cancel()
        wait_until(lambda: ended == [b"task"])


# Who answers


def test_a_broker_that_takes_no_workers_ends_a_worker_with_its_reason(bare: BareBroker):
    failed: Future[None] = Future()

    def work() -> None:
        try:
            Worker(bare.ready, echo).run()
        except ConnectionError as error:
            failed.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    worker, _, _ = bare.announced(welcome=False)
    bare.refuse(worker, "workers belong elsewhere")
    with pytest.raises(ConnectionError, match=f"{bare.ready} takes no workers: workers belong elsewhere"):
        failed.result(PATIENCE)


def test_who_does_not_welcome_a_worker_is_no_broker_of_this_version(
    bare: BareBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("zmqbroker.worker.line.WELCOME_WITHIN", 0.2)
    with working(bare.ready, echo):
        first, announce, _ = bare.announced(welcome=False)
        bare.send(first, announce.name.encode(), b"", b"id", b"task")  # as one does that takes it for a plain worker
        second, _, _ = bare.announced()
        assert first != second
        assert bare.said() == (second, Outcome(b"ready", b"", asks=1))
    lines = [record.getMessage() for record in caplog.records if "version" in record.getMessage()]
    assert lines == [f"what answers at {bare.ready} is no zmqbroker of this version"]


def test_who_never_welcomes_a_worker_is_given_up_after_the_timeout_to_connect(bare: BareBroker):
    with pytest.raises(ConnectionError, match=f"what answers at {bare.ready} is no zmqbroker of this version"):
        Worker(bare.ready, echo, connect_timeout=0.2).run()


def test_nonsense_is_counted_for_nothing(bare: BareBroker, caplog: pytest.LogCaptureFixture):
    with working(bare.ready, echo):
        worker = bare.met()
        for frames in ((b"",), (b"", b"id"), (b"ZB1 {", b""), (b"nonsense",), (b"ZB1 {}", b"")):
            bare.send(worker, *frames)
        bare.give(worker, b"id", b"task")
        assert bare.answer() == [b"done", b"id", b"task"]
    assert "a message without a header" in caplog.text or "a task without an attempt id" in caplog.text


# Workers that fail where others succeed


@pytest.mark.parametrize("seconds", [0.0, 0.005])
def test_a_broken_worker_beside_a_good_one_does_not_eat_the_tasks(running: Running, client: Client, seconds: float):
    def fail(_: bytes) -> bytes:
        raise OSError("no device")

    def work(body: bytes) -> bytes:
        time.sleep(seconds)  # a task takes its time
        return body

    bodies = [b"%d" % number for number in range(1000)]
    with working(running.addresses.ready, work, label="good"), working(running.addresses.ready, fail, label="broken"):
        futures = [client.submit(body) for body in bodies]
        done = sum(future.exception(PATIENCE) is None for future in futures)
    assert done >= 950
    assert running.count("held_back") >= 1


def test_tasks_that_fail_everywhere_hold_nobody_back(running: Running, client: Client):
    def fail_if_bad(body: bytes) -> bytes:
        if body == b"bad":
            raise ValueError("a bad input")
        return body

    with working(running.addresses.ready, fail_if_bad, count=2):
        futures = [client.submit(b"bad" if number % 3 else b"good") for number in range(1000)]
        failures = sum(future.exception(PATIENCE) is not None for future in futures)
    assert failures == 666
    assert running.count("held_back") == 0


def test_a_worker_says_when_it_has_reached_a_broker_again(running: Running, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "zmqbroker.worker")
    with (
        Proxy(running.addresses.ready) as proxy,
        working(proxy.address, echo),
        Client(running.addresses.requests) as client,
    ):
        assert client.call(b"once", PATIENCE) == b"once"
        assert "reached" not in caplog.text
        proxy.cut()
        wait_until(lambda: f"reached zmqbroker {__version__} at {proxy.address}" in caplog.messages)
        assert client.call(b"twice", PATIENCE) == b"twice"
