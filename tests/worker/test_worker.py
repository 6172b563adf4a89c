"""The worker library on real sockets."""

import asyncio
import gc
import math
import signal
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, PATIENCE_MS, Running
from helpers import PATIENCE, TOP, Program, bound_addresses, wait_until
from library_support import NOBODY, echo, working

from zmqbroker import Client, Fail, Reject, TaskFailed, Worker


class BareBroker:
    """The two sockets that a worker talks to, in the hands of the test."""

    def __init__(self, ready: str = LOOPBACK, results: str = LOOPBACK) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ready = self._bind(zmq.ROUTER, ready)
        self._results = self._bind(zmq.PULL, results)
        self.ready, self.results = (opened.get_string(zmq.LAST_ENDPOINT) for opened in (self._ready, self._results))

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        opened = self._context.socket(kind)
        opened.linger, opened.rcvtimeo = 0, PATIENCE_MS
        opened.bind(address)
        return opened

    def asked(self) -> tuple[bytes, list[bytes]]:
        """Wait for a ready message: who sent it, and what it says."""
        worker, empty, *body = self._ready.recv_multipart()
        assert empty == b""
        return worker, body

    def has_question(self) -> bool:
        return bool(self._ready.poll(0))

    def give(self, worker: bytes, attempt_id: bytes, *body: bytes) -> None:
        self._ready.send_multipart([worker, b"", attempt_id, *body])

    def answer(self) -> list[bytes]:
        """Wait for a result or a verb."""
        return self._results.recv_multipart()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> "BareBroker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    with working(bare.ready, bare.results, lambda _: returned):
        bare.give(bare.asked()[0], b"id", b"task")
        assert bare.answer() == [b"id", *result]


@pytest.mark.parametrize("returned", ["text", 7, {}, [b"a", "b"], [None], True])
def test_what_is_no_result_fails_the_attempt(bare: BareBroker, returned: Any):
    with working(bare.ready, bare.results, lambda _: returned):
        bare.give(bare.asked()[0], b"id", b"task")
        empty, verb, attempt_id, reason = bare.answer()
        assert (empty, verb, attempt_id) == (b"", b"fail", b"id")
        kind = type(returned).__name__
        assert reason.decode() == f"TypeError: the handler returned {kind}: not bytes, a list of bytes or None"
        assert bare.asked()  # it lives on


@pytest.mark.parametrize(("body", "given"), [([b"task"], b"task"), ([b""], b""), ([b"a", b"b"], [b"a", b"b"])])
def test_a_handler_gets_bytes_or_a_list_of_them(bare: BareBroker, body: list[bytes], given: Any):
    seen: list[Any] = []
    with working(bare.ready, bare.results, seen.append):
        bare.give(bare.asked()[0], b"id", *body)
        bare.answer()
    assert seen == [given]


def test_an_exception_fails_the_attempt_and_the_worker_lives_on(running: Running, client: Client):
    def handle(body: bytes) -> bytes:
        if body == b"bad":
            raise ValueError("bad input")
        return body

    with working(running.addresses.ready, running.addresses.results, handle) as (worker,):
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

    with working(bare.ready, bare.results, handle):
        bare.give(bare.asked()[0], b"id", b"task")
        assert bare.answer() == [b"", verb, b"id", said]
        assert bare.asked()  # it lives on


def test_a_rejected_task_is_not_tried_again(running: Running, client: Client):
    def handle(body: bytes) -> bytes:
        raise Reject(body.decode())

    with working(running.addresses.ready, running.addresses.results, handle):
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

    with working(bare.ready, bare.results, handle):
        for _ in range(2):
            bare.give(bare.asked()[0], b"id", b"task")
            assert bare.answer() == [b"", b"fail", b"id", said]


def test_a_keyboard_interrupt_ends_a_worker_and_fails_the_attempt_first(bare: BareBroker):
    def handle(_: bytes) -> bytes:
        raise KeyboardInterrupt

    outcome: Future[None] = Future()

    def work() -> None:
        try:
            Worker(bare.ready, bare.results, handle).run()
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    bare.give(bare.asked()[0], b"id", b"task")
    assert bare.answer() == [b"", b"fail", b"id", b"the handler was interrupted"]
    assert isinstance(outcome.exception(PATIENCE), KeyboardInterrupt)


SIGNALLED = """
import os, signal, sys
from zmqbroker import Worker
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
Worker(sys.argv[1], sys.argv[2], lambda body: os.kill(os.getpid(), signal.SIGTERM)).run()
"""


def test_a_signal_handler_may_end_the_program_of_a_worker_that_is_busy(bare: BareBroker):
    command = [sys.executable, "-c", SIGNALLED, bare.ready, bare.results]
    with subprocess.Popen(command, cwd=TOP) as process:
        try:
            bare.give(bare.asked()[0], b"id", b"task")
            assert bare.answer() == [b"", b"fail", b"id", b"the handler was interrupted"]
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
worker = Worker(sys.argv[1], sys.argv[2], handle)
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
    command = [sys.executable, "-c", FORKING, bare.ready, bare.results]
    with subprocess.Popen(command, cwd=TOP, stderr=subprocess.DEVNULL) as process:
        try:
            bare.give(bare.asked()[0], b"id", body)
            assert bare.answer() == [b"id", status]
            assert bare.asked()
            assert not bare.has_question()
        finally:
            process.kill()


def test_a_large_body_is_not_held_while_the_next_one_is_waited_for(bare: BareBroker):
    def large_frames() -> int:
        gc.collect()
        return sum(isinstance(held, zmq.Frame) and len(held) > 1_000_000 for held in gc.get_objects())

    with working(bare.ready, bare.results, lambda body: b"%d" % len(body)):
        for slot in (1, 2):
            bare.give(bare.asked()[0], b"%d" % slot, bytes(5_000_000 * slot))
            assert bare.answer() == [b"%d" % slot, b"%d" % (5_000_000 * slot)]
        bare.asked()
        wait_until(lambda: large_frames() == 0)


# What is said to the broker


@pytest.mark.parametrize(("label", "said"), [(None, b"ready"), ("gpu 1", b"gpu 1"), ("größer", "größer".encode())])
def test_a_worker_asks_with_its_label(bare: BareBroker, label: str | None, said: bytes):
    with working(bare.ready, bare.results, echo, label=label):
        assert bare.asked()[1] == [said]


def test_a_worker_asks_once_for_each_task(bare: BareBroker):
    with working(bare.ready, bare.results, echo):
        for number in range(5):
            worker, _ = bare.asked()
            assert not bare.has_question()
            bare.give(worker, b"%d" % number, b"task")
            assert bare.answer() == [b"%d" % number, b"task"]


def test_four_slots_are_four_tasks_in_hand(bare: BareBroker):
    with working(bare.ready, bare.results, echo, slots=4):
        for turn in range(3):
            workers = [bare.asked()[0] for _ in range(4)]
            assert len(set(workers)) == 1
            assert not bare.has_question()
            tasks = [b"%d %d" % (turn, slot) for slot in range(4)]
            for task in tasks:
                bare.give(workers[0], task, b"task")
            assert [bare.answer()[0] for _ in range(4)] == tasks


@pytest.mark.parametrize("slots", [0, 1.5, "2"])
def test_what_is_no_number_of_slots_is_refused(slots: Any):
    with pytest.raises(ValueError, match=f"slots must be a whole number, 1 or more, not {slots!r}"):
        Worker(NOBODY, NOBODY, echo, slots=slots)


def test_a_handler_that_is_no_function_is_refused():
    handler: Any = "tasks:echo"
    with pytest.raises(ValueError, match="the handler must be a function, not 'tasks:echo'"):
        Worker(NOBODY, NOBODY, handler)


@pytest.mark.parametrize("address", ["", "nowhere", "localhost:4162", "tcp://127.0.0.1", "tcp://*:4162"])
def test_a_wrong_address_is_a_value_error(address: str):
    with pytest.raises(ValueError, match="is no address to connect to"):
        Worker(address, NOBODY, echo)
    with pytest.raises(ValueError, match="is no address to connect to"):
        Worker(NOBODY, address, echo)


def test_a_touch_says_how_long(bare: BareBroker):
    def handle(_: bytes) -> None:
        worker.touch()
        worker.touch(2)
        thread = threading.Thread(target=worker.touch, args=(0.5,))
        thread.start()
        thread.join(PATIENCE)

    with working(bare.ready, bare.results, handle) as (worker,):
        asking, _ = bare.asked()
        worker.touch(99)  # there is nothing in hand
        bare.give(asking, b"id", b"task")
        assert [bare.answer() for _ in range(4)] == [
            [b"", b"touch", b"id"],
            [b"", b"touch", b"id", b"2.0"],
            [b"", b"touch", b"id", b"0.5"],
            [b"id", b""],
        ]
        bare.asked()
        worker.touch(99)
        bare.give(asking, b"next", b"task")
        assert bare.answer()[:3] == [b"", b"touch", b"next"]
    worker.touch()  # nor has one that has ended


@pytest.mark.parametrize("seconds", ["soon", "", [], {}, 0, -1, math.nan, math.inf, 1e10, 10**400, b"x", object])
def test_a_touch_of_nonsense_is_a_value_error(seconds: Any):
    worker = Worker(NOBODY, NOBODY, echo)
    with pytest.raises(ValueError, match="touch takes seconds above 0 and up to 1,000,000,000, not"):
        worker.touch(seconds)
    worker.stop()
    worker.run()  # closes it


def test_a_worker_runs_once(bare: BareBroker):
    worker = Worker(bare.ready, bare.results, echo)
    thread = run(worker)
    bare.asked()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a Worker runs once"):
            worker.run()
        worker.stop()
        assert ended(thread)


def test_a_worker_without_real_threads_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: 0)
    with pytest.raises(RuntimeError, match="a Worker needs real threads"):
        Worker(NOBODY, NOBODY, echo)


def test_a_task_that_is_touched_outlives_its_timeout(running: Running, client: Client):
    touched, may_end = threading.Event(), threading.Event()

    def handle(body: bytes) -> bytes:
        worker.touch(60)
        touched.set()
        assert may_end.wait(PATIENCE)
        return body

    with working(running.addresses.ready, running.addresses.results, handle) as (worker,):
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


def test_a_worker_that_waits_for_a_task_stops(bare: BareBroker):
    worker = Worker(bare.ready, bare.results, echo)
    thread = run(worker)
    bare.asked()
    worker.stop()
    worker.stop()
    assert ended(thread)
    worker.stop()


def test_a_worker_stops_where_no_broker_listens():
    worker = Worker(NOBODY, NOBODY, echo)
    thread = run(worker)
    worker.stop()
    assert ended(thread)


def test_a_worker_stopped_before_it_runs_asks_for_nothing(bare: BareBroker):
    worker = Worker(bare.ready, bare.results, echo)
    worker.stop()
    assert ended(run(worker))
    assert not bare.has_question()


@pytest.mark.parametrize("from_the_handler", [True, False])
def test_the_task_in_hand_is_finished_and_answered(bare: BareBroker, from_the_handler: bool):
    in_hand, may_end = threading.Event(), threading.Event()

    def handle(body: bytes) -> bytes:
        if from_the_handler:
            worker.stop()
        in_hand.set()
        assert may_end.wait(PATIENCE)
        return body

    worker = Worker(bare.ready, bare.results, handle)
    thread = run(worker)
    bare.give(bare.asked()[0], b"id", b"task")
    assert in_hand.wait(PATIENCE)
    if not from_the_handler:
        worker.stop()
    may_end.set()
    assert bare.answer() == [b"id", b"task"]
    assert ended(thread)
    assert not bare.has_question()


def test_tasks_that_came_before_the_stop_are_released(bare: BareBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zmqbroker.worker.worker.LAST_LOOK_MS", 500)  # for a machine that is busy
    given = threading.Barrier(2)
    worker = Worker(bare.ready, bare.results, lambda _: (given.wait(PATIENCE), worker.stop())[1], slots=3)
    thread = run(worker)
    asking = [bare.asked()[0] for _ in range(3)]
    for number, connection in enumerate(asking):
        bare.give(connection, b"%d" % number, b"task")
    given.wait(PATIENCE)
    assert [bare.answer() for _ in range(3)] == [[b"0", b""], [b"", b"release", b"1"], [b"", b"release", b"2"]]
    assert ended(thread)


def test_a_task_that_crosses_with_leaving_is_released(bare: BareBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zmqbroker.worker.worker.LAST_LOOK_MS", 500)
    worker = Worker(bare.ready, bare.results, echo)
    thread = run(worker)
    asking, _ = bare.asked()
    worker.stop()
    bare.give(asking, b"id", b"task")
    assert bare.answer() in ([b"", b"release", b"id"], [b"id", b"task"])
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

        worker = Worker(running.addresses.ready, running.addresses.results, handle, slots=2)
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
worker = Worker(sys.argv[1], sys.argv[2], lambda body: body)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: worker.stop())
worker.run()
print("left", worker.tasks)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_handler_may_stop_a_worker(bare: BareBroker, number: signal.Signals):
    command = [sys.executable, "-c", SCRIPT, bare.ready, bare.results]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        try:
            bare.give(bare.asked()[0], b"id", b"task")
            assert bare.answer() == [b"id", b"task"]
            bare.asked()
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
        with working(*addresses[1:], echo, count=2):
            for number in range(4):
                with Client(addresses[0]) as client:
                    assert list(client.map([b"%d" % number] * 20)) == [b"%d" % number] * 20
                if number < 3:
                    broker.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
                    broker = Program("broker.py", "--drain", 0, *addresses)
                    bound_addresses(broker)
    finally:
        broker.clean_up()


def test_a_worker_that_was_busy_during_a_restart_asks_over_a_connection_that_lasts(bare: BareBroker):
    in_hand, may_end = threading.Event(), threading.Event()

    def handle(body: bytes) -> bytes:
        if body == b"long":
            in_hand.set()
            assert may_end.wait(PATIENCE)
        return body

    def restart() -> BareBroker:
        bare.close()
        return BareBroker(bare.ready, bare.results)

    with working(bare.ready, bare.results, handle):
        bare.give(bare.asked()[0], b"id", b"long")
        assert in_hand.wait(PATIENCE)
        with restart() as new:
            may_end.set()
            answers = []
            worker, _ = new.asked()
            new.give(worker, b"next", b"task")
            while answers[-1:] != [[b"next", b"task"]]:  # the result for the old broker may come first
                answers.append(new.answer())
            assert new.asked()[0] == worker


def test_tasks_that_came_before_the_connection_was_lost_are_done(bare: BareBroker):
    at_first, may_go_on = threading.Event(), threading.Event()
    seen = []

    def handle(body: bytes) -> bytes:
        seen.append(body)
        if body == b"0":
            at_first.set()
            assert may_go_on.wait(PATIENCE)
        return body

    with working(bare.ready, bare.results, handle, slots=3):
        for number in range(3):
            bare.give(bare.asked()[0], b"id %d" % number, b"%d" % number)
        assert at_first.wait(PATIENCE)
        bare.close()
        with BareBroker(bare.ready, bare.results) as new:
            may_go_on.set()
            assert [new.asked()[1] for _ in range(3)] == [[b"ready"]] * 3
            assert seen == [b"0", b"1", b"2"]
