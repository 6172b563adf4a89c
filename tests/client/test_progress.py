"""How far a task has come, from a broker that tells it to a client that asked."""

import logging
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Peers
from helpers import PATIENCE, wait_until
from told_broker import ToldBroker

from zmqbroker import Client, TaskFailed
from zmqbroker.wire import CANCELLED, DONE, FAILED, PROGRESS


@pytest.fixture
def broker() -> Iterator[ToldBroker]:
    with Peers() as peers:
        broker = ToldBroker(peers)
        yield broker
        broker.close()


@pytest.fixture
def client(broker: ToldBroker) -> Iterator[Client]:
    with Client(broker.address) as client:
        yield client


def test_progress_is_told_as_it_comes_before_the_result(client: Client, broker: ToldBroker):
    told: list[dict[str, Any]] = []
    future = client.submit(b"task", on_progress=told.append)
    assert broker.receive()["progress"] is True
    assert future.progress is None
    for done in (1, 2):
        broker.reply(PROGRESS, b'{"done": %d}' % done)
        wait_until(lambda number=done: future.progress == {"done": number})  # type: ignore[misc]
        assert not future.done()
    broker.reply(DONE, b"result")
    assert future.result(PATIENCE) == b"result"
    assert told == [{"done": 1}, {"done": 2}]
    assert future.progress == {"done": 2}


def test_who_does_not_ask_is_not_told(client: Client, broker: ToldBroker):
    future = client.submit(b"task")
    assert "progress" not in broker.receive()
    broker.reply(PROGRESS, b'{"done": 1}')
    broker.reply(DONE, b"result")
    assert future.result(PATIENCE) == b"result"
    assert future.progress is None


def test_a_hook_that_raises_ends_nothing_and_is_not_called_again(
    client: Client, broker: ToldBroker, caplog: pytest.LogCaptureFixture
):
    def fail(_: dict[str, Any]) -> None:
        raise SystemExit("hook")

    future = client.submit(b"task", on_progress=fail)
    broker.receive()
    with caplog.at_level(logging.WARNING, "zmqbroker.client"):
        for done in (1, 2):
            broker.reply(PROGRESS, b'{"done": %d}' % done)
            wait_until(lambda number=done: future.progress == {"done": number})  # type: ignore[misc]
        broker.reply(DONE, b"result")
        assert future.result(PATIENCE) == b"result"
    assert [re.sub(r"\w{32}", "KEY", line) for line in caplog.messages] == ["task 17 (KEY-0): a callback failed"]


def test_progress_that_cannot_be_read_is_one_line(client: Client, broker: ToldBroker, caplog: pytest.LogCaptureFixture):
    told: list[dict[str, Any]] = []
    future = client.submit(b"task", on_progress=told.append)
    broker.receive()
    with caplog.at_level(logging.WARNING, "zmqbroker.client"):
        broker.reply(PROGRESS, b"no JSON")
        wait_until(lambda: len(caplog.records) == 1)
        broker.reply(PROGRESS, b'{"done": 1}')
        broker.reply(DONE, b"result")
        assert future.result(PATIENCE) == b"result"
    (line,) = caplog.messages
    assert re.fullmatch(r"task 17 \(\w+-0\): a progress that cannot be read: it is not JSON", line)
    assert (caplog.records[0].exc_info, told) == (None, [{"done": 1}])


def test_a_hook_is_a_function(client: Client):
    with pytest.raises(ValueError, match="on_progress must be a function, not 'print'"):
        client.submit(b"task", on_progress="print")  # type: ignore[arg-type]


def test_a_task_that_is_cancelled_tells_nothing_more(client: Client, broker: ToldBroker):
    told: list[dict[str, Any]] = []
    future = client.submit(b"task", on_progress=told.append)
    broker.receive()
    future.withdraw()
    assert broker.receive()["cancel"] is True
    broker.reply(PROGRESS, b'{"done": 1}')
    broker.reply(CANCELLED, reason="cancelled by its client")
    with pytest.raises(TaskFailed, match="cancelled by its client"):
        future.result(PATIENCE)
    assert told == []


def test_a_failure_tells_the_number_of_its_task(client: Client, broker: ToldBroker):
    future = client.submit(b"task")
    broker.receive()
    broker.reply(FAILED, reason="no luck")
    error = future.exception(PATIENCE)
    assert isinstance(error, TaskFailed)
    assert error.number == future.number == 17
    assert error.key == future.key == broker.fields["key"]
    assert error.task == pickle.loads(pickle.dumps(error)).task == f"task 17 ({future.key})"


def test_a_verbose_log_has_each_failure(client: Client, broker: ToldBroker, caplog: pytest.LogCaptureFixture):
    for level in (logging.INFO, logging.DEBUG):
        caplog.set_level(level, "zmqbroker.client")
        future = client.submit(b"task")
        broker.receive()
        broker.reply(FAILED, reason="no\nluck")
        assert future.exception(PATIENCE)
    assert caplog.messages == [rf"task 17 ({future.key}) failed after 1 attempt: no\nluck"]


def test_a_callback_that_raises_is_told_with_its_task(
    client: Client, broker: ToldBroker, caplog: pytest.LogCaptureFixture
):
    def fail(_: object) -> None:
        raise SystemExit("callback")

    future = client.submit(b"task")
    future.add_done_callback(fail)
    broker.receive()
    broker.reply(DONE, b"result")
    assert future.result(PATIENCE) == b"result"
    wait_until(lambda: bool(caplog.messages))
    assert caplog.messages == [f"task 17 ({future.key}): a callback of its future failed"]
