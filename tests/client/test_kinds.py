"""Queues, groups, expiry and back-off as a client asks for them, on real sockets."""

import enum
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import monotonic, sleep
from typing import Any

import pytest
import zmq
from conftest import Peers, Running
from helpers import PATIENCE, wait_until
from library_support import NOBODY, Gate, echo, wait_until_idle, working

from zmqbroker import Client, TaskFailed

Start = Callable[..., Running]


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.addresses.requests) as client:
        yield client


def failure(call: Callable[[], object]) -> TaskFailed:
    with pytest.raises(TaskFailed) as caught:
        call()
    return caught.value


def test_tasks_go_to_the_workers_of_their_queue(running: Running, client: Client):
    with (
        working(running.addresses.ready, lambda _: b"gpu", queues=["gpu"]),
        working(running.addresses.ready, lambda _: b"default"),
    ):
        futures = [client.submit(b"", queue=queue) for queue in ("gpu", "default", None)]
        assert [future.result(PATIENCE) for future in futures] == [b"gpu", b"default", b"default"]
        assert client.call(b"", PATIENCE, queue="gpu") == b"gpu"
        assert list(client.map([b""] * 5, queue="gpu")) == [b"gpu"] * 5
        assert list(client.map([b""] * 5, chunk=2, queue="gpu")) == [b"gpu"] * 5


def test_groups_take_turns(running: Running, client: Client):
    for body in (b"A1", b"A2", b"A3", b"A4", b"B1"):
        client.submit(body, group=body[:1].decode())
    running.wait_for("accepted", 5)
    worker = running.worker()
    assert b" ".join(worker.echo()[0] for _ in range(5)) == b"A1 B1 A2 A3 A4"


def test_connections_take_turns_where_the_broker_is_fair(start: Start):
    running = start(fair=True)
    with Client(running.addresses.requests) as one, Client(running.addresses.requests) as other:
        for number in range(1, 4):
            one.submit(b"A%d" % number)
        running.wait_for("accepted", 3)
        other.submit(b"B1")
        running.wait_for("accepted", 4)
        worker = running.worker()
        assert b" ".join(worker.echo()[0] for _ in range(4)) == b"A1 B1 A2 A3"


def test_a_task_that_waits_in_vain_expires(running: Running, client: Client):
    wait_until_idle(client._link)  # so that there is time left when it is sent
    error = failure(lambda: client.call(b"task", PATIENCE, expires=1))
    assert (error.status, error.attempts, error.number) == ("expired", 0, 1)
    assert re.fullmatch(r"no result within (1|0\.\d+) s", error.reason)
    outcomes = client.map([b"one", b"two"], expires=1, return_failures=True)
    assert [outcome.status for outcome in outcomes] == ["expired"] * 2
    assert running.count("expired") == 3


def test_a_task_that_runs_for_too_long_expires_and_its_worker_is_told(running: Running, client: Client):
    gate = Gate(b"task")
    with working(running.addresses.ready, gate) as (worker,):
        client.call(b"another", PATIENCE)  # so that all are connected
        future = client.submit(b"task", expires=2)
        gate.wait_for(b"task")
        error = failure(lambda: future.result(PATIENCE))
        assert (error.status, error.attempts) == ("expired", 1)
        running.wait_until(lambda: worker._session.is_cancelled)
        gate.open(b"task")
        running.wait_for("late", 1)


@pytest.mark.usefixtures("running")
def test_a_task_that_has_its_result_in_time_does_not_expire(running: Running, client: Client):
    with working(running.addresses.ready, echo):
        assert client.call(b"task", PATIENCE, delay=0.1, expires=PATIENCE) == b"task"
    assert running.count("expired") == 0


def test_a_call_that_has_expired_before_it_is_sent_is_told_so(running: Running, client: Client):
    for _ in range(3):
        wait_until_idle(client._link)  # so that the call would send it itself
        error = failure(lambda: client.call(b"task", PATIENCE, expires=1e-9))
        assert (error.status, error.reason) == ("expired", "no result came in time: it could not be sent before")
    assert running.count("accepted") == 0


def test_a_task_that_expires_while_there_is_no_broker_is_not_sent_to_the_next_one(start: Start):
    with Peers() as peers:
        bound = peers.context.socket(zmq.ROUTER)
        address = f"tcp://127.0.0.1:{bound.bind_to_random_port('tcp://127.0.0.1')}"
        bound.close(linger=0)
    with Client(address) as client:
        submitted = monotonic()
        late = client.submit(b"late", expires=0.05)
        client.submit(b"in time", expires=3600)
        wait_until(lambda: monotonic() > submitted + 0.05)
        running = start(requests=address)
        assert failure(lambda: late.result(PATIENCE)).status == "expired"
        assert running.worker().echo() == [b"in time"]
        assert running.count("accepted") == 1


def test_what_a_full_queue_refuses_is_sent_again(start: Start):
    running = start(limits_waiting={"api": 1})
    with Client(running.addresses.requests) as client:
        futures = [client.submit(body, queue="api") for body in (b"one", b"two")]
        running.wait_for("refused", 1)
        expired = client.submit(b"three", queue="api", expires=0.2)
        assert failure(lambda: expired.result(PATIENCE)).status == "expired"
        assert running.count("expired") == 0
        with working(running.addresses.ready, echo, queues=["api"]):
            assert [future.result(PATIENCE) for future in futures] == [b"one", b"two"]


def test_no_more_tasks_run_at_once_than_the_limit_of_their_queue(start: Start):
    running = start(limits={"api": 2})
    at_work: list[bytes] = []
    most = [0]

    def handle(body: bytes) -> None:
        at_work.append(body)
        sleep(0.002)  # what the work takes: without the limit, more of it would run at once
        most[0] = max(most[0], len(at_work))
        at_work.remove(body)

    with (
        working(running.addresses.ready, handle, count=4, queues=["api"]),
        Client(running.addresses.requests) as client,
    ):
        assert len(list(client.map([b"task"] * 200, queue="api"))) == 200
    assert most == [2]


def test_a_client_says_after_how_long_its_task_is_tried_again(running: Running, client: Client):
    attempts: list[float] = []

    def handle(_: bytes) -> None:
        attempts.append(monotonic())
        raise ValueError

    with working(running.addresses.ready, handle):
        options = {"tries": 4, "retry_delay": 0.1, "retry_factor": 3, "retry_most": 0.2}
        assert failure(lambda: client.call(b"", PATIENCE, **options)).attempts == 4  # type: ignore[arg-type]
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.2), strict=True)] == [True] * 3


def test_a_broker_says_after_how_long_tasks_are_tried_again(start: Start):
    running = start(retry_delay=3600.0, retry_factor=2.0, retry_most=7200.0)
    with Client(running.addresses.requests) as client:
        client.submit(b"late")
        worker = running.worker()
        attempt_id, _ = worker.take()
        worker.say(b"fail", attempt_id, b"no")
        running.wait_until(lambda: running.count("delayed") == 1)
        soon = client.submit(b"soon", retry_delay=0)
        attempt_id, _ = worker.take()
        worker.say(b"fail", attempt_id, b"no")
        assert worker.echo() == [b"soon"]
        assert soon.result(PATIENCE) == b"soon"


class Name(str, enum.Enum):
    GPU = "gpu"


def test_the_name_of_a_queue_may_be_text_of_any_kind(running: Running, client: Client):
    with working(running.addresses.ready, echo, queues=["gpu"]):
        assert client.call(b"task", PATIENCE, queue=Name.GPU, group=Name.GPU) == b"task"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": "a b"}, "queue must be a name of 1 to 128 of the characters A-Z a-z 0-9 . _ / -, not 'a b'"),
        ({"queue": ["gpu"]}, "queue must be a name of 1 to 128 of the characters A-Z a-z 0-9 . _ / -, not ['gpu']"),
        ({"group": ""}, "group must be text of 1 to 64 characters, not ''"),
        ({"group": 7}, "group must be text of 1 to 64 characters, not 7"),
        ({"expires": 0}, "expires must be seconds above 0 and up to 1e+09, not 0"),
        ({"expires": "5"}, "expires must be seconds above 0 and up to 1e+09, not '5'"),
        ({"expires": 5, "delay": 5}, "expires must be more than delay: both are seconds from the acceptance"),
        ({"retry_delay": -1}, "retry_delay must be seconds from 0 to 1e+09, not -1"),
        ({"retry_factor": 0.5}, "retry_factor must be a number from 1 to 1000, not 0.5"),
        ({"retry_most": float("inf")}, "retry_most must be seconds from 0 to 1e+09, not inf"),
    ],
)
def test_what_no_broker_would_take_is_refused_by_a_true_sentence(options: dict[str, Any], error: str):
    with Client(NOBODY) as client:
        for give in (client.submit, client.call, lambda body, **options: client.map([body], **options)):
            with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
                give(b"task", **options)
