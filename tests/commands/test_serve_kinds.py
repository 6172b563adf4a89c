"""What `serve` tells of queues, limits, expiry and back-off, as a user sees it."""

from collections.abc import Callable
from time import monotonic

import pytest
from helpers import PATIENCE, Program, bound_addresses
from library_support import wait_until_idle, working

from zmqbroker import Client, TaskFailed

ANY_PORTS = ("tcp://127.0.0.1:*",) * 3
NOBODY_ASKS = r" no worker asks from the queue gpu: (\d+) tasks wait there$"

Serve = Callable[..., Program]


@pytest.fixture
def serve(start_program: Callable[..., Program]) -> Serve:
    return lambda *options: start_program("broker.py", "--drain", 0, *options, *ANY_PORTS)


def test_a_broker_says_at_its_start_which_limits_it_has(serve: Serve):
    limits = ("--limit", "gpu=1", "--limit", "a/b=0", "--limit", "gpu=2", "--limit-waiting", "default=100")
    backing_off = ("--retry-delay", 1, "--retry-factor", 2, "--retry-most", 60)
    broker = serve("--fair", *limits, *backing_off)
    said = broker.wait_for("^limits +(.*)$")[1].split(", ")
    assert "retry after 1 s" in said
    assert "then 2 times that" in said
    assert "60 s at most" in said
    assert said[-3:] == ["clients take turns", "at most 2 tasks of gpu running", "at most 100 tasks of default waiting"]


def test_a_broker_says_in_its_totals_how_many_tasks_have_expired(serve: Serve):
    broker = serve()
    requests, _, _ = bound_addresses(broker)
    with Client(requests) as client:
        wait_until_idle(client._link)  # so that there is time left when it is sent
        with pytest.raises(TaskFailed, match=r"^no result within [\d.]+ s$"):
            client.call(b"task", PATIENCE, expires=1)
    broker.wait_for(r" task 1 expired: no result within [\d.]+ s$")
    assert broker.end() == 0
    assert broker.lines[-1].startswith("0 tasks done, 0 failed, 1 expired, 0 attempts retried; ")


def test_a_verbose_log_says_after_how_long_a_task_is_tried_again(serve: Serve):
    broker = serve("-v", "-t", 3, "--retry-delay", 0.1, "--retry-factor", 2)
    requests, ready, _ = bound_addresses(broker)

    def fail(_: bytes) -> None:
        raise ValueError("bad input")

    with working(ready, fail), Client(requests) as client:
        with pytest.raises(TaskFailed):
            client.call(b"task", PATIENCE)
        with pytest.raises(TaskFailed):
            client.call(b"task", PATIENCE, retry_delay=0, tries=2)
    for line in (
        r" task 1: attempt 1 failed: ValueError: bad input; again in 0\.1 s$",
        r" task 1: attempt 2 failed: ValueError: bad input; again in 0\.2 s$",
        r" task 1 failed: ValueError: bad input$",
        r" task 2: attempt 1 failed: ValueError: bad input; again$",
    ):
        broker.wait_for(line)


def test_a_broker_says_that_tasks_wait_where_no_worker_asks(serve: Serve):
    broker = serve()
    requests, ready, _ = bound_addresses(broker)
    with Client(requests) as client:
        futures = [client.submit(b"task", queue="gpu") for _ in range(2)]
        begun = monotonic()
        assert broker.wait_for(NOBODY_ASKS)[1] == "2"
        assert monotonic() - begun > 4.5
        with working(ready, bytes.upper, queues=["cpu", "gpu"]):
            assert [future.result(PATIENCE) for future in futures] == [b"TASK"] * 2
    assert broker.end() == 0
    assert broker.output.count("no worker asks") == 1


@pytest.mark.slow
def test_a_broker_says_so_again_later(serve: Serve):
    broker = serve()
    requests, _, _ = bound_addresses(broker)
    with Client(requests) as client:
        client.submit(b"task", queue="gpu")
        broker.wait_for(NOBODY_ASKS)
        said = monotonic()
        broker.wait_for(NOBODY_ASKS, 2)
        assert monotonic() - said > 9.5
