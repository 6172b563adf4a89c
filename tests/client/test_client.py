"""The client library on real sockets."""

import asyncio
import enum
import gc
import itertools
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, as_completed, wait
from fractions import Fraction
from math import nan
from time import monotonic
from typing import Any

import pytest
import zmq
from conftest import Running
from helpers import PATIENCE, TOP, bound_addresses, wait_until
from library_support import (
    NOBODY,
    Gate,
    Proxy,
    echo,
    run_in_threads,
    run_script,
    start_broker,
    wait_until_idle,
    working,
)

from zmqbroker import Client, TaskFailed
from zmqbroker.client import conversation

Start = Callable[..., Running]


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.addresses.requests) as client:
        yield client


@pytest.fixture
def echoing(running: Running) -> Iterator[None]:
    with working(running.addresses.ready, echo):
        yield


def failure(future: "Future[Any]") -> TaskFailed:
    error = future.exception(PATIENCE)
    assert isinstance(error, TaskFailed)
    return error


def unsettled(running: Running) -> int:
    counters = running.broker.counters()
    return counters["waiting"] + counters["delayed"] + counters["running"]


# submit and call


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("body", [b"task", b"", b"x" * 1_000_000, [b"task"], [b"a", b"", b"b"], [b""]])
def test_a_result_has_the_form_of_its_body(client: Client, body: Any):
    assert client.submit(body).result(PATIENCE) == body
    assert client.call(body, wait=PATIENCE) == body


def test_a_result_of_several_frames_is_a_list_in_any_case(client: Client, running: Running):
    future = client.submit(b"task")
    worker = running.worker()
    attempt_id, _ = worker.take()
    worker.reply(attempt_id, b"a", b"b")
    assert future.result(PATIENCE) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("text", "a body is bytes or a list of bytes, not str"),
        (7, "a body is bytes or a list of bytes, not int"),
        (None, "a body is bytes or a list of bytes, not NoneType"),
        ([b"a", "text"], "a body is bytes or a list of bytes, not a list with str"),
        ([], "a body has at least one frame: an empty one is b'' or [b'']"),
    ],
)
def test_what_is_no_body_is_refused(client: Client, running: Running, body: Any, error: str):
    for give in (client.submit, client.call, lambda body: next(client.map([body]))):
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(error)}$"):
            give(body)
    assert running.count("accepted") == 0


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize(
    ("body", "result"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        ([bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
        ((b"a",), [b"a"]),
    ],
)
def test_a_body_may_be_of_any_kind_of_bytes(client: Client, body: Any, result: Any):
    assert client.call(body, wait=PATIENCE) == result
    assert client.submit(body).result(PATIENCE) == result
    assert list(client.map([body])) == [result]
    assert list(client.map(iter([body, body]), chunk=2)) == [result] * 2


def test_a_body_is_copied_where_it_may_change(client: Client, running: Running):
    body = bytearray(b"before")
    future = client.submit(body)
    body[:] = b"behind"
    with working(running.addresses.ready, echo):
        assert future.result(PATIENCE) == b"before"


class Number(enum.IntEnum):
    TWO = 2


@pytest.mark.usefixtures("echoing")
def test_options_may_be_numbers_of_any_kind(client: Client):
    number = Fraction(5, 2)
    assert client.call(b"", wait=Fraction(PATIENCE), timeout=number, tries=Number.TWO, delay=Fraction(0)) == b""
    assert list(client.map([b"a"] * 5, window=Number.TWO, chunk=Number.TWO)) == [b"a"] * 5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": "5"}, "timeout must be seconds from 0 to 1e+09, not '5'"),
        ({"timeout": True}, "timeout must be seconds from 0 to 1e+09, not True"),
        ({"tries": 2.0}, "tries must be a whole number, 0 to 1000000000, not 2.0"),
        ({"wait": "5"}, "wait must be a number of seconds, not '5'"),
        ({"wait": nan}, "wait must be a number of seconds, not nan"),
    ],
)
def test_what_is_no_number_is_refused_by_a_true_sentence(client: Client, options: dict[str, Any], error: str):
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        client.call(b"", **options)


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("options", [{}, {"ordered": False}, {"window": 1}])
def test_results_do_not_wait_for_bodies_that_come_slowly(client: Client, options: dict[str, Any]):
    came = threading.Semaphore(0)

    def bodies() -> Iterator[bytes]:
        for number in range(5):
            yield b"%d" % number
            assert came.acquire(timeout=PATIENCE)

    for number, result in enumerate(client.map(bodies(), **options)):
        assert result == b"%d" % number
        came.release()


def test_a_map_that_is_left_does_not_wait_for_the_next_body(client: Client, running: Running):
    forever = threading.Event()

    def bodies() -> Iterator[bytes]:
        yield b"task"
        forever.wait()

    with working(running.addresses.ready, echo):
        results = client.map(bodies())
        assert next(results) == b"task"
        results.close()  # type: ignore[attr-defined]
    forever.set()


@pytest.mark.parametrize(
    "options", [{"timeout": -1}, {"timeout": float("nan")}, {"tries": 1.5}, {"delay": "soon"}, {"priority": 1e3}]
)
def test_an_option_out_of_its_range_is_refused(client: Client, options: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(options))):
        client.submit(b"task", **options)
    with pytest.raises(ValueError, match=next(iter(options))):
        client.map([b"task"], **options)


def test_a_failure_says_why_and_how_often_it_was_tried(client: Client, running: Running):
    worker = running.worker()
    future = client.submit(b"task", tries=2)
    for _ in range(2):
        attempt_id, _ = worker.take()
        worker.say(b"fail", attempt_id, b"ValueError: bad input")
    error = failure(future)
    assert (error.reason, error.attempts, error.status) == ("ValueError: bad input", 2, "failed")
    assert str(error) == "ValueError: bad input"


def test_a_rejected_task_fails_at_its_first_attempt(client: Client, running: Running):
    future = client.submit(b"task", tries=5)
    worker = running.worker()
    attempt_id, _ = worker.take()
    worker.say(b"reject", attempt_id, b"never")
    error = failure(future)
    assert (error.reason, error.attempts, error.status) == ("never", 1, "failed")


def test_a_failure_can_be_pickled():
    error = pickle.loads(pickle.dumps(TaskFailed("why", "failed", 3)))
    assert (error.reason, error.status, error.attempts) == ("why", "failed", 3)


def test_a_timeout_and_tries_of_its_own(client: Client, running: Running):
    one, two = running.worker(), running.worker()
    future = client.submit(b"task", timeout=0.05, tries=2)
    one.take()
    two.take()
    error = failure(future)
    assert (error.reason, error.attempts) == ("timed out after 0.05 s (2 of 2 attempts)", 2)


def test_priorities_of_their_own(client: Client, running: Running):
    client.submit(b"low", priority=-1)
    client.submit(b"plain")
    client.submit(b"high", priority=1)
    running.wait_for("accepted", 3)
    worker = running.worker()
    assert [worker.echo() for _ in range(3)] == [[b"high"], [b"plain"], [b"low"]]


def test_a_delay_of_its_own(client: Client, running: Running):
    submitted = monotonic()
    client.submit(b"delayed", delay=0.2)
    assert running.worker().echo() == [b"delayed"]
    assert monotonic() - submitted >= 0.2


@pytest.mark.usefixtures("echoing")
def test_call_takes_the_options_of_submit(client: Client):
    assert client.call(b"task", timeout=60, tries=1, delay=0.01, priority=3) == b"task"


def test_call_raises_what_the_task_failed_of(client: Client, running: Running):
    with (
        working(running.addresses.ready, lambda body: 1 / len(body)),
        pytest.raises(TaskFailed, match="ZeroDivisionError: division by zero"),
    ):
        client.call(b"", tries=1)


def test_a_call_that_waited_in_vain_cancels_its_task(client: Client, running: Running):
    wait_until_idle(client._link)  # so that the task is sent, however little time there is
    with pytest.raises(TimeoutError, match=r"no reply within 0\.05 s; the task was cancelled"):
        client.call(b"task", wait=0.05)
    running.wait_until(lambda: running.count("accepted") == 1 and not unsettled(running))
    assert running.count("cancelled") == 1


# Futures


def test_cancelling_a_waiting_task_takes_it_from_the_queue(client: Client, running: Running):
    future = client.submit(b"unwanted")
    running.wait_for("accepted", 1)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    running.wait_for("cancelled", 1)
    client.submit(b"wanted")
    assert running.worker().echo() == [b"wanted"]


@pytest.mark.usefixtures("echoing")
def test_the_broker_does_not_hear_of_a_cancel_without_its_task(client: Client, running: Running):
    for number in range(200):
        assert client.submit(b"task", delay=3600 + number).cancel()
    assert client.call(b"the last one", wait=PATIENCE) == b"the last one"
    assert running.count("accepted") == running.count("cancelled") + 1
    assert running.count("refused") == 0


def test_cancelling_a_running_task_drops_its_late_result(client: Client, running: Running):
    worker = running.worker()
    future = client.submit(b"task")
    attempt_id, _ = worker.take()
    assert future.cancel()
    running.wait_for("cancelled", 1)
    worker.reply(attempt_id, b"late")
    running.wait_for("late", 1)
    assert future.cancelled()
    assert running.count("done") == 0


@pytest.mark.usefixtures("echoing")
def test_a_task_that_has_its_result_cannot_be_cancelled(client: Client):
    future = client.submit(b"task")
    assert future.result(PATIENCE) == b"task"
    assert not future.cancel()
    assert future.result(0) == b"task"


def test_threads_that_cancel_the_same_future_agree(client: Client):
    for _ in range(50):
        future = client.submit(b"task")
        barrier, results = threading.Barrier(4), []

        def cancel(future: "Future[Any]" = future, barrier: Any = barrier, results: list[bool] = results) -> None:
            barrier.wait(PATIENCE)
            results.append(future.cancel())

        threads = [threading.Thread(target=cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [True] * 4


@pytest.mark.usefixtures("echoing")
def test_as_completed_and_wait_take_the_futures(client: Client):
    futures = {client.submit(b"%d" % number): number for number in range(100)}
    assert all(future.result() == b"%d" % futures[future] for future in as_completed(futures, PATIENCE))
    done, not_done = wait(futures, PATIENCE)
    assert (len(done), len(not_done)) == (100, 0)


def test_wait_and_as_completed_see_cancelled_futures(client: Client):
    one, two = client.submit(b"one"), client.submit(b"two")
    one.cancel()
    done, not_done = wait([one, two], PATIENCE, return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({one}, {two})
    two.cancel()
    assert set(as_completed([one, two], PATIENCE)) == {one, two}


@pytest.mark.usefixtures("echoing")
def test_futures_can_be_awaited(client: Client):
    async def main() -> list[bytes]:
        tasks = (asyncio.wrap_future(client.submit(b"%d" % number)) for number in range(100))
        return await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)

    assert asyncio.run(main()) == [b"%d" % number for number in range(100)]


def test_an_asyncio_task_that_is_cancelled_cancels_its_task_here(client: Client, running: Running):
    async def main() -> None:
        task = asyncio.wrap_future(client.submit(b"task"))
        running.wait_for("accepted", 1)
        await asyncio.wait_for(task, 0.05)

    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(main())
    running.wait_until(lambda: running.count("accepted") == 1 and not unsettled(running))
    assert running.count("cancelled") == 1


@pytest.mark.usefixtures("echoing")
def test_a_callback_of_a_future_may_use_the_client(client: Client):
    second: Future[Any] = Future()

    def go_on(first: "Future[Any]") -> None:
        inner = client.submit(first.result() + b" again")
        inner.add_done_callback(lambda inner: second.set_result(inner.result()))

    client.submit(b"task").add_done_callback(go_on)
    assert second.result(PATIENCE) == b"task again"


# map


def bodies(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize(("count", "window"), [(0, 10), (1, 10), (1, 1), (100, 1), (500, 7), (1200, 1000)])
def test_map_yields_the_results_in_order(client: Client, count: int, window: int):
    assert list(client.map(bodies(count), window=window)) == bodies(count)


@pytest.mark.usefixtures("echoing")
def test_map_takes_bodies_of_both_forms(client: Client):
    assert list(client.map([b"a", [b"b"], [b"c", b"d"]])) == [b"a", [b"b"], [b"c", b"d"]]


def test_unordered_map_yields_what_comes_first(client: Client, running: Running):
    head_may_end = threading.Event()

    def handle(body: bytes) -> bytes:
        if body == b"0":
            assert head_may_end.wait(PATIENCE)
        return body

    with working(running.addresses.ready, handle, count=2):
        replies = client.map(bodies(100), ordered=False, window=10)
        before = [next(replies) for _ in range(99)]
        head_may_end.set()
        assert list(replies) == [b"0"]
    assert sorted(before) == sorted(bodies(100)[1:])


def odd_ones_fail(body: bytes) -> bytes:
    if int(body) % 2:
        raise ValueError("odd")
    return body


def test_map_raises_the_failure_of_a_task_and_cancels_the_others(client: Client, running: Running):
    with working(running.addresses.ready, odd_ones_fail):
        replies = client.map(bodies(10), window=5, tries=1)
        assert next(replies) == b"0"
        with pytest.raises(TaskFailed, match="ValueError: odd"):
            next(replies)
        assert list(replies) == []
        running.wait_until(lambda: not unsettled(running))


@pytest.mark.parametrize("ordered", [True, False])
def test_map_returns_failures_in_their_places_when_asked(client: Client, running: Running, ordered: bool):
    with working(running.addresses.ready, odd_ones_fail):
        replies = list(client.map(bodies(100), ordered=ordered, return_failures=True, tries=1))
    assert [reply if isinstance(reply, bytes) else reply.reason for reply in replies] == [
        b"%d" % number if number % 2 == 0 else "ValueError: odd" for number in range(100)
    ]


@pytest.mark.usefixtures("echoing")
def test_map_takes_an_endless_iterable(client: Client):
    replies = client.map(b"%d" % number for number in itertools.count())
    assert list(itertools.islice(replies, 1500)) == bodies(1500)


class Watched:
    """An iterable that records how far ahead of what was yielded it has been read."""

    def __init__(self, count: int) -> None:
        self.count, self.taken, self.yielded, self.furthest = count, 0, 0, 0

    def __iter__(self) -> Iterator[bytes]:
        for body in bodies(self.count):
            self.taken += 1
            self.furthest = max(self.furthest, self.taken - self.yielded)
            yield body

    def drain(self, replies: Iterator[Any]) -> None:
        for _ in replies:
            self.yielded += 1


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 2, 10])
def test_map_is_never_further_ahead_than_its_window(client: Client, running: Running, window: int, ordered: bool):
    watched = Watched(500)
    watched.drain(client.map(watched, window=window, ordered=ordered))
    assert watched.furthest <= window
    assert watched.yielded == 500


def test_a_blocked_head_stops_an_ordered_map_at_its_window(client: Client, running: Running):
    last_of_window = threading.Event()

    def handle(body: bytes) -> bytes:
        if body == b"9":
            last_of_window.set()
        if body == b"0":
            assert last_of_window.wait(PATIENCE)  # so nothing is yielded before
        return body

    watched = Watched(50)
    with working(running.addresses.ready, handle, count=2):
        watched.drain(client.map(watched, window=10))
    assert watched.furthest == 10
    assert watched.yielded == 50


def test_leaving_a_map_early_cancels_what_is_outstanding(client: Client, running: Running):
    worker = running.worker()

    def echo_one() -> None:
        running.wait_for("accepted", 10)
        worker.echo()

    replies = client.map((b"%d" % number for number in itertools.count()), window=10)
    threading.Thread(target=echo_one, daemon=True).start()
    for reply in replies:
        assert reply == b"0"
        break
    replies.close()
    running.wait_until(lambda: not unsettled(running))
    assert running.count("cancelled") >= 9


def test_an_error_of_the_iterable_comes_through_and_cancels_what_is_outstanding(client: Client, running: Running):
    def broken() -> Iterator[bytes]:
        yield from bodies(5)
        running.wait_for("accepted", 5)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(client.map(broken()))
    running.wait_for("cancelled", 5)


@pytest.mark.parametrize("name", ["window", "chunk"])
@pytest.mark.parametrize("number", [0, 2.5, 10**30])
def test_a_map_in_portions_of_no_whole_number_is_refused_at_once(client: Client, name: str, number: Any):
    with pytest.raises(ValueError, match=rf"{name} must be a whole number, 1 or more, not {number}"):
        client.map([b"task"], **{name: number})


# Threads and processes


@pytest.mark.usefixtures("echoing")
def test_eight_threads_submit_and_each_gets_its_own_results(client: Client):
    wrong: list[bytes] = []

    def use(name: int) -> None:
        tasks = [b"%d %d" % (name, number) for number in range(150)]
        futures = [client.submit(task) for task in tasks]
        wrong.extend(task for task, future in zip(tasks, futures, strict=True) if future.result(PATIENCE) != task)
        wrong.extend(task for task in tasks[:10] if client.call(task, wait=PATIENCE) != task)

    run_in_threads(8, use)
    assert wrong == []


@pytest.mark.usefixtures("echoing")
def test_several_clients_get_their_own_results(running: Running):
    clients = [Client(running.addresses.requests) for _ in range(5)]
    maps = [client.map([b"%d %d" % (name, i) for i in range(50)]) for name, client in enumerate(clients)]
    for i in range(50):
        assert [next(replies) for replies in maps] == [b"%d %d" % (name, i) for name in range(5)]
    for client in clients:
        client.close()


def test_a_shared_context_reaches_inproc_addresses(start: Start):
    running = start(requests="inproc://requests", ready="inproc://ready", results="inproc://results")
    with (
        working(running.addresses.ready, echo, context=running.context),
        Client(running.addresses.requests, context=running.context) as client,
    ):
        assert list(client.map(bodies(100))) == bodies(100)
    assert not running.context.closed


@pytest.mark.parametrize(
    "address", ["", "nowhere", "localhost:4161", "tcp://127.0.0.1", "tcp://*:4161", "ipc:///\udcff"]
)
def test_a_wrong_address_is_a_value_error(address: str):
    with pytest.raises(ValueError, match="is no address to connect to"):
        Client(address)


def test_closing_fails_what_is_outstanding_at_once(running: Running):
    client = Client(running.addresses.requests)
    waiting = [client.submit(b"task") for _ in range(10)]
    client.close()
    for future in waiting:
        error = future.exception(timeout=0)
        assert isinstance(error, TaskFailed)
        assert (error.status, error.reason) == ("closed", "the client was closed before the reply came")


def test_closing_wakes_a_thread_that_waits():
    client = Client(NOBODY)
    futures = client.submit(b"task"), client.submit(b"task")
    threading.Thread(target=client.close).start()
    assert [failure(future).status for future in futures] == ["closed", "closed"]


def test_a_closed_client_says_so(running: Running):
    client = Client(running.addresses.requests)
    future = client.submit(b"task")
    client.close()
    client.close()
    for use in (client.submit, client.call, lambda body: next(client.map([body]))):
        with pytest.raises(RuntimeError, match="this client is closed"):
            use(b"task")
    assert not future.cancel()


def test_a_client_may_be_closed_by_a_callback(running: Running):
    client = Client(running.addresses.requests)
    first, second = client.submit(b"first"), client.submit(b"second")
    first.add_done_callback(lambda _: client.close())
    running.worker().echo()
    assert first.result(PATIENCE) == b"first"
    assert failure(second).status == "closed"


def test_closing_the_context_first_fails_what_is_outstanding():
    context: zmq.Context[Any] = zmq.Context()
    client = Client(NOBODY, context=context)
    future = client.submit(b"task")
    closing = threading.Thread(target=context.term, daemon=True)
    closing.start()
    assert failure(future).status == "closed"
    closing.join(PATIENCE)
    assert not closing.is_alive()
    client.close()


def test_what_was_cancelled_just_before_closing_is_cancelled_at_the_broker(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(conversation, "LAST_CANCELS", PATIENCE)  # a second is not much for a machine that is busy
    with Client(running.addresses.requests) as client:
        futures = [client.submit(body) for body in bodies(500)]
        running.wait_for("accepted", 500)
        assert all(future.cancel() for future in futures)
    running.wait_for("cancelled", 500)


def test_a_cancel_is_sent_again_when_the_connection_was_cut(running: Running):
    with Proxy(running.addresses.requests) as proxy, Client(proxy.address) as client:
        future = client.submit(b"task")
        running.wait_for("accepted", 1)
        proxy.cut()
        future.cancel()
        running.wait_for("cancelled", 1)
        assert not unsettled(running)


EXIT = """
import sys, zmq
from zmqbroker import Client
client = Client(sys.argv[1], context={context})
futures = [client.submit(b"task") for _ in range(2000)]
replies = client.map([b"task"] * 10)
print("end")
"""


@pytest.mark.parametrize("context", ["None", "zmq.Context()"])
@pytest.mark.parametrize("listening", [True, False])
def test_the_interpreter_exits_without_a_close(running: Running, context: str, listening: bool):
    ended = run_script(EXIT.format(context=context), running.addresses.requests if listening else NOBODY)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


FORK = """
import os, sys, warnings
from zmqbroker import Client
warnings.simplefilter("ignore")
client = Client(sys.argv[1])
future = client.submit(b"of the parent")
outcomes = client.map([b"mapped"] * 5, window=2)
next(outcomes)
child = os.fork()
if child == 0:
    for use in (client.submit, client.call, lambda body: list(client.map([body]))):
        try:
            use(b"task")
        except RuntimeError as error:
            print(error, flush=True)
    future.cancel()
    outcomes.close()
    client.close()
    with Client(sys.argv[1]) as own:
        print(own.call(b"of the child"), flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), future.result(20), list(outcomes))
"""


@pytest.mark.usefixtures("echoing")
def test_a_forked_child_is_told_to_make_a_client_of_its_own(running: Running):
    ended = run_script(FORK, running.addresses.requests)
    told = "this client was made in another process; make one after the fork"
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [told] * 3 + [
        "b'of the child'",
        f"7 b'of the parent' {[b'mapped'] * 4}",
    ]
    assert running.count("cancelled") == 0


FORK_AND_WAIT = """
import os, sys, warnings
from zmqbroker import Client
warnings.simplefilter("ignore")
client = Client(sys.argv[1])
done, later = client.submit(b"done"), client.submit(b"later", delay=3600)
done.result(20)
child = os.fork()
if child == 0:
    for wait in (later.result, later.exception):
        try:
            wait()
        except RuntimeError as error:
            print(error, flush=True)
    print(done.result(), flush=True)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.usefixtures("echoing")
def test_a_forked_child_does_not_wait_for_its_parents_futures(running: Running):
    ended = run_script(FORK_AND_WAIT, running.addresses.requests)
    told = "this task was submitted in another process; wait for it there"
    assert (ended.stdout.splitlines(), ended.stderr) == ([told] * 2 + ["b'done'", "7"], "")


# Restarts and cut connections


def test_a_killed_broker_loses_nothing_that_a_client_waits_for():
    brokers = [start_broker()]
    try:
        addresses = bound_addresses(brokers[0])
        gate = Gate(b"task 100")
        with working(addresses[1], gate), Client(addresses[0]) as client:
            tasks = [b"task %d" % number for number in range(1000)]
            futures = [client.submit(task) for task in tasks]
            gate.wait_for(b"task 100")
            brokers[0].end(signal.SIGKILL)
            brokers.append(start_broker(*addresses))
            bound_addresses(brokers[1])
            gate.open(b"task 100")
            assert [future.result(PATIENCE) for future in futures] == [task.upper() for task in tasks]
            assert client.call(b"another", wait=PATIENCE) == b"ANOTHER"
    finally:
        for broker in brokers:
            broker.clean_up()


def test_a_cut_connection_loses_nothing_and_runs_nothing_twice(running: Running):
    stops = [b"task %d" % number for number in (0, 1, 50, 999)]
    gate = Gate(*stops)
    tasks = [b"task %d" % number for number in range(1000)]
    with (
        Proxy(running.addresses.requests) as proxy,
        working(running.addresses.ready, gate),
        Client(proxy.address) as client,
    ):
        futures = [client.submit(task) for task in tasks]
        for number, stop in enumerate(stops):
            gate.wait_for(stop)
            connections = proxy.connections
            proxy.cut()
            if number % 2 == 0:
                proxy.wait_for(connections + 1)  # else replies come while there is no connection
            gate.open(stop)
        assert [future.result(PATIENCE) for future in futures] == [task.upper() for task in tasks]
        assert client.call(b"another", wait=PATIENCE) == b"ANOTHER"
    assert gate.counts == Counter([*tasks, b"another"])
    assert running.count("joined") > 0


def test_cuts_at_any_moment_lose_nothing_and_run_nothing_twice(running: Running):
    tasks = [b"task %d" % number for number in range(1500)]
    counts: Counter[bytes] = Counter()

    def handle(body: bytes) -> bytes:
        counts[body] += 1
        return body

    with (
        Proxy(running.addresses.requests) as proxy,
        working(running.addresses.ready, handle),
        Client(proxy.address) as client,
    ):
        futures = [client.submit(task) for task in tasks]
        for number in range(100, 1500, 400):
            running.wait_for("done", number)
            proxy.cut()
        assert [future.result(PATIENCE) for future in futures] == tasks
    assert counts == Counter(tasks)


def test_a_cut_connection_is_survived_by_a_map(running: Running):
    with (
        Proxy(running.addresses.requests) as proxy,
        working(running.addresses.ready, echo),
        Client(proxy.address) as client,
    ):
        results = []
        for result in client.map(bodies(1000), window=100):
            results.append(result)
            if len(results) % 250 == 0:
                proxy.cut()
    assert results == bodies(1000)


def test_a_client_waits_for_a_broker_that_starts_later():
    brokers = [start_broker()]
    try:
        addresses = bound_addresses(brokers[0])
        assert brokers[0].end() == 0
        with Client(addresses[0]) as client:
            future = client.submit(b"task")
            brokers.append(start_broker(*addresses))
            bound_addresses(brokers[1])
            with working(addresses[1], echo):
                assert future.result(PATIENCE) == b"task"
    finally:
        for broker in brokers:
            broker.clean_up()


# What others do to it


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("error", [ValueError(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_a_callback_that_raises_ends_nothing(client: Client, error: BaseException):
    called = []

    def fail(_: object) -> None:
        called.append("first")
        raise error

    future = client.submit(b"task")
    future.add_done_callback(fail)
    future.add_done_callback(lambda _: called.append("second"))
    assert [other.result(PATIENCE) for other in [client.submit(b"a"), client.submit(b"b"), future]] == [
        b"a",
        b"b",
        b"task",
    ]
    wait_until(lambda: len(called) == 2)
    future.add_done_callback(fail)  # it is done: this calls it here
    assert called == ["first", "second", "first"]


def test_a_log_that_raises_ends_nothing(running: Running, caplog: pytest.LogCaptureFixture):
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.msg)

    log, broken = logging.getLogger("zmqbroker.client"), Broken()
    caplog.set_level(logging.INFO, log.name)
    log.addHandler(broken)
    try:
        with Proxy(running.addresses.requests) as proxy, Client(proxy.address) as client:
            future = client.submit(b"task")
            running.wait_for("accepted", 1)
            proxy.cut()  # which is worth a line
            with working(running.addresses.ready, echo):
                assert future.result(PATIENCE) == b"task"
    finally:
        log.removeHandler(broken)


def test_a_client_says_where_it_is_and_what_is_outstanding():
    client = Client(NOBODY)
    assert repr(client) == f"<Client of {NOBODY}, 0 tasks outstanding>"
    client.submit(b"task")
    assert repr(client) == f"<Client of {NOBODY}, 1 tasks outstanding>"
    client.close()
    assert repr(client) == f"<Client of {NOBODY}, closed>"


def resources() -> tuple[int, int]:
    gc.collect()
    return len(os.listdir("/dev/fd")), threading.active_count()


def test_a_client_that_is_dropped_is_closed_and_leaves_nothing_behind(running: Running):
    before = resources()
    for _ in range(5):
        with pytest.warns(ResourceWarning, match="a client was not closed: tcp://.*, 0 tasks outstanding"):
            Client(running.addresses.requests)
    wait_until(lambda: resources() <= before)


@pytest.mark.filterwarnings("ignore:a client was not closed")
def test_a_client_that_is_dropped_gets_the_replies_to_what_it_has_submitted(running: Running):
    before = resources()
    future = Client(running.addresses.requests).submit(b"task")
    gc.collect()
    with working(running.addresses.ready, echo):
        assert future.result(PATIENCE) == b"task"
    del future
    wait_until(lambda: resources() <= before)


def test_a_client_without_real_threads_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: 0)
    with pytest.raises(RuntimeError, match="real threads"):
        Client(NOBODY)


EXITS = {
    "a daemon thread waits in a call": """
threading.Thread(target=client.call, args=(b"task",), daemon=True).start()
""",
    "a thread waits in a call": """
threading.Thread(target=client.call, args=(b"task",)).start()
""",
    "a thread waits for a future": """
threading.Thread(target=client.submit(b"task").result).start()
""",
    "an executor waits for a call": """
executor = ThreadPoolExecutor(1)
executor.submit(client.call, b"task")
""",
    "a map is at a slow body": """
client.submit(b"task")
results = client.map(iter(threading.Event().wait, None))
threading.Thread(target=next, args=(results,), daemon=True).start()
""",
    "a task is outstanding": """
client.submit(b"task")
""",
}


@pytest.mark.parametrize("what", EXITS)
def test_an_interpreter_ends_whatever_waits(running: Running, what: str):
    before = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from zmqbroker import Client
from zmqbroker.client import last_wait
last_wait.LAST_REPLIES, last_wait.LOOK = 0.3, 0.1
client = Client(sys.argv[1])
"""
    behind = """
while not client._link._shared.session: time.sleep(0.01)
"""
    ended = run_script(before + EXITS[what] + behind, running.addresses.requests)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_an_interpreter_ends_while_a_map_waits_for_stdin(running: Running):
    script = """
import sys
from zmqbroker import Client
client = Client(sys.argv[1])
print(next(client.map(sys.stdin.buffer)))
"""
    command = [sys.executable, "-c", script, running.addresses.requests]
    with (
        working(running.addresses.ready, echo),
        subprocess.Popen(command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()  # and it stays open
        try:
            assert (process.wait(PATIENCE), process.stdout.read()) == (0, b"b'one\\n'\n")
        finally:
            process.kill()


def test_a_program_whose_main_thread_has_ended_waits_for_replies_that_come(running: Running):
    script = """
import sys, threading, time
from zmqbroker import Client
from zmqbroker.client import last_wait
last_wait.LAST_REPLIES, last_wait.LOOK = 0.3, 0.05
client = Client(sys.argv[1])
def work():
    threading.main_thread().join()
    for number in range(10):
        time.sleep(0.1)
        print(client.call(b"%d" % number).decode())
threading.Thread(target=work).start()
"""
    with working(running.addresses.ready, echo):
        ended = run_script(script, running.addresses.requests)
    assert (ended.returncode, ended.stdout.split()) == (0, [str(number) for number in range(10)])
