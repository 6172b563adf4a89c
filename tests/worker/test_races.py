"""Messages that cross: workers that leave, are cut off, are stopped, have what others have; a broker that dies."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from math import inf

import pytest
from conftest import Running
from helpers import PATIENCE, bound_addresses, wait_until
from library_support import Gate, Proxy, echo, start_broker, working

from zmqbroker import Client, Worker, current_task

Start = Callable[..., Running]

WORKER = """
import sys, zmqbroker
def handle(body):
    print(body.decode(), flush=True)
    sys.stdin.readline()
    return b"by the other process"
zmqbroker.Worker(sys.argv[1], handle).run()
"""


def test_workers_that_leave_in_the_middle_of_it_cost_no_task_an_attempt(start: Start):
    running = start(tries=1)
    tasks = [b"%d" % number for number in range(2000)]
    with Client(running.addresses.requests) as client, working(running.addresses.ready, echo, slots=4):
        replies = client.map(tasks, window=500)
        found = []
        while len(found) < len(tasks) - 500:
            leaving = Worker(running.addresses.ready, echo, slots=64)
            thread = threading.Thread(target=leaving.run)
            thread.start()
            found += [next(replies) for _ in range(50)]
            leaving.stop()
            thread.join(PATIENCE)
        assert found + list(replies) == tasks
    assert (running.count("done"), running.count("retried")) == (len(tasks), 0)


@pytest.mark.parametrize("span", [0.009, 0.011])
def test_tasks_about_as_long_as_those_behind_wait_are_replied_to_once(start: Start, span: float):
    running = start(tries=1)
    pause = threading.Event()

    def handle(body: bytes) -> bytes:
        pause.wait(span)
        return body

    tasks = [b"%d" % number for number in range(150)]
    with working(running.addresses.ready, handle, count=3, slots=5), Client(running.addresses.requests) as client:
        assert list(client.map(tasks, window=40)) == tasks
        wait_until(lambda: running.count("running") == 0)
    assert (running.count("done"), running.count("failed")) == (len(tasks), 0)


@pytest.mark.parametrize("slots", [1, 5, None])
def test_two_workers_behind_a_proxy_that_cuts_both_do_all_tasks(start: Start, slots: int | None):
    running = start(tries=0)
    tasks = [b"%d" % number for number in range(200)]
    with Proxy(running.addresses.ready) as proxy:

        def handle(body: bytes) -> bytes:
            if int(body) % 40 == 17:
                proxy.cut()
            return body

        with working(proxy.address, handle, count=2, slots=slots), Client(running.addresses.requests) as client:
            assert list(client.map(tasks, window=50)) == tasks


def test_a_result_that_comes_late_by_the_next_connection_calls_off_whoever_has_the_task_by_then(start: Start):
    running = start()
    first, second, was_cancelled = Gate(b"task"), threading.Event(), threading.Event()
    may_connect = threading.Event()
    may_connect.set()

    def other(body: bytes) -> bytes:
        task = current_task()
        assert task is not None
        second.set()
        wait_until(lambda: task.cancelled)
        was_cancelled.set()
        return b"too late"

    with (
        Proxy(running.addresses.ready, lambda _: inf if may_connect.is_set() else 0) as proxy,
        Client(running.addresses.requests) as client,
        working(proxy.address, first),
    ):
        future = client.submit(b"task")
        first.wait_for(b"task")
        may_connect.clear()
        proxy.cut()
        with working(running.addresses.ready, other):
            assert second.wait(PATIENCE)
            first.open(b"task")
            may_connect.set()
            assert future.result(PATIENCE) == b"TASK"
            assert was_cancelled.wait(PATIENCE)
    assert running.count("done") == 1


def test_a_worker_that_was_stopped_beyond_its_deadline_goes_on_and_its_late_result_harms_nobody(start: Start):
    running = start(timeout=0.3)
    command = [sys.executable, "-c", WORKER, running.addresses.ready]
    with (
        Client(running.addresses.requests) as client,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            future = client.submit(b"first")
            assert process.stdout.readline() == b"first\n"
            process.send_signal(signal.SIGSTOP)
            with working(running.addresses.ready, bytes.upper):
                assert future.result(PATIENCE) == b"FIRST"
            late = running.count("late")
            os.write(process.stdin.fileno(), b"\n\n")
            process.send_signal(signal.SIGCONT)
            assert client.submit(b"second", timeout=PATIENCE).result(PATIENCE) == b"by the other process"
            assert running.count("late") > late
        finally:
            process.kill()


def test_what_is_in_hand_when_its_broker_dies_is_called_off_by_the_next_one_which_has_it_run_again():
    broker = start_broker()
    addresses = bound_addresses(broker)
    runs: list[bytes] = []
    begun = threading.Event()

    def handle(body: bytes) -> bytes:
        task = current_task()
        assert task is not None
        runs.append(body)
        if len(runs) == 1:
            begun.set()
            wait_until(lambda: task.cancelled)
            return b"of the broker before"
        return body

    with working(addresses[1], handle, slots=3), Client(addresses[0]) as client:
        futures = [client.submit(b"%d" % number) for number in range(3)]
        assert begun.wait(PATIENCE)
        broker.end(signal.SIGKILL)
        again = start_broker(*addresses)
        try:
            assert [future.result(PATIENCE) for future in futures] == [b"0", b"1", b"2"]
        finally:
            again.end()
    assert runs == [b"0", b"0", b"1", b"2"]
