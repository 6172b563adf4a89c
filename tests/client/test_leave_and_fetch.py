"""Tasks that are left with a broker, and what is asked about them later: a broker that says what it is told to."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from math import inf
from typing import Any

import pytest
from conftest import Peers
from helpers import PATIENCE, wait_until
from library_support import NOBODY, Proxy
from told_broker import ToldBroker

from zmqbroker import Client, TaskFailed
from zmqbroker.client import client as client_module
from zmqbroker.wire import (
    ACCEPTED,
    CANCELLED,
    DONE,
    EXPIRED,
    FAILED,
    INVALID,
    LONGEST_SPAN,
    UNAVAILABLE,
    UNKNOWN,
    UNSETTLED,
)

Call = Callable[..., "Future[Any]"]


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


@pytest.fixture
def aside() -> Iterator[Call]:
    """Return a function that calls another one in a thread of its own, and returns a future of what it returns."""
    with ThreadPoolExecutor() as executor:
        yield executor.submit


def error_of(future: "Future[Any]") -> BaseException:
    error = future.exception(PATIENCE)
    assert error is not None
    return error


def outstanding(client: Client) -> int:
    return len(client._link._shared.session)


# To leave


def test_the_result_of_a_task_that_is_left_is_its_key(client: Client, broker: ToldBroker):
    futures = [client.submit(b"task", key=key, detach=True, keep=60) for key in ("mine", None)]
    mine, made_up = broker.receive(), broker.receive()
    assert mine == {"key": "mine", "id": "1", "detach": True, "keep": 60}
    assert made_up == {"key": futures[1].key, "detach": True, "keep": 60}
    for fields in (mine, made_up):
        broker.reply(ACCEPTED, to=fields)
    assert [future.result(PATIENCE) for future in futures] == ["mine", futures[1].key]
    assert [future.number for future in futures] == [17, 17]


def test_to_leave_many_is_no_round_trip_for_each(client: Client, broker: ToldBroker):
    futures = [client.submit(b"%d" % number, detach=True) for number in range(100)]
    asked = [broker.receive() for _ in futures]  # before any answer
    for fields in asked:
        broker.reply(ACCEPTED, to=fields)
    assert [future.result(PATIENCE) for future in futures] == [fields["key"] for fields in asked]


def test_to_send_returns_the_key_when_the_task_is_stored(client: Client, broker: ToldBroker, aside: Call):
    sent = aside(client.send, b"task", key="mine", keep=60, queue="gpu", expires=3600)
    fields = broker.receive()
    assert fields.pop("expires") == pytest.approx(3600, abs=PATIENCE)
    assert fields == {"key": "mine", "id": "1", "detach": True, "keep": 60, "queue": "gpu"}
    assert broker.body == [b"task"]
    assert not sent.done()
    broker.reply(ACCEPTED)
    assert sent.result(PATIENCE) == "mine"


def test_a_task_that_cannot_be_left_fails_with_what_the_broker_says(client: Client, broker: ToldBroker, aside: Call):
    for leave in (lambda: client.send(b"task"), lambda: client.submit(b"task", detach=True).result(PATIENCE)):
        left = aside(leave)
        broker.answer(INVALID, reason="detach needs a broker with --store")
        error = error_of(left)
        assert isinstance(error, TaskFailed)
        assert (error.status, str(error)) == (INVALID, "detach needs a broker with --store")


def test_durable_tasks_say_so_and_are_waited_for_as_ever(client: Client, broker: ToldBroker, aside: Call):
    called = aside(client.call, b"one", PATIENCE, key="mine", durable=True, keep=60)
    assert broker.answer(DONE, b"1") == {"key": "mine", "id": "1", "durable": True, "keep": 60}
    assert called.result(PATIENCE) == b"1"
    mapped = aside(lambda: list(client.map([b"one", b"two"], durable=True)))
    for _ in range(2):
        assert broker.answer(DONE, b"1").items() >= {"durable": True}.items()
    assert mapped.result(PATIENCE) == [b"1", b"1"]
    future = client.submit(b"task", durable=True, detach=False)
    assert broker.answer(DONE, b"1") == {"key": future.key, "durable": True, "detach": False}
    assert future.result(PATIENCE) == b"1"


@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": "k" * 257},
        {"key": 1},
        {"detach": "yes"},
        {"durable": 1},
        {"keep": 5},
        {"keep": 0, "detach": True},
        {"detach": True, "on_progress": print},
    ],
)
def test_what_no_broker_would_take_is_refused_at_once(client: Client, options: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(options))):
        client.submit(b"task", **options)
    assert outstanding(client) == 0


def test_tasks_of_one_client_with_the_same_key_are_told_apart(client: Client, broker: ToldBroker):
    futures = [client.submit(b"task", key="same") for _ in range(2)]
    first, second = broker.receive(), broker.receive()
    assert [(fields["key"], fields["id"]) for fields in (first, second)] == [("same", "1"), ("same", "2")]
    broker.reply(DONE, b"result", to=second)
    assert futures[1].result(PATIENCE) == b"result"
    assert not futures[0].done()
    broker.reply(DONE, b"result", to=first)
    assert futures[0].result(PATIENCE) == b"result"


def test_a_task_that_is_cancelled_before_it_was_stored_is_cancelled_though_it_was_accepted(
    client: Client, broker: ToldBroker
):
    future = client.submit(b"task", key="mine", detach=True)
    task = broker.receive()
    future.withdraw()
    cancel = broker.receive()
    assert cancel == {"key": "mine", "id": task["id"], "cancel": True}
    broker.reply(ACCEPTED, to=task)
    broker.reply(CANCELLED, reason="cancelled by its client", to=cancel)
    error = error_of(future)
    assert isinstance(error, TaskFailed)
    assert error.status == CANCELLED


# To ask


def test_what_is_fetched_is_the_result(client: Client, broker: ToldBroker, aside: Call):
    for body in ([b"one"], [b"one", b"two"], [b""]):
        fetched = aside(client.fetch, "mine")
        fields = broker.answer(DONE, *body)
        assert fields == {"key": "mine", "fetch": 0.0, "id": fields["id"]}
        assert broker.body == [b""]
        assert fetched.result(PATIENCE) == (body if len(body) > 1 else body[0])


@pytest.mark.parametrize("status", UNSETTLED)
def test_to_fetch_what_has_no_outcome_in_time_is_a_timeout(
    client: Client, broker: ToldBroker, aside: Call, status: str
):
    fetched = aside(client.fetch, "mine", 5)
    assert 0 < broker.answer(status)["fetch"] <= 5
    error = error_of(fetched)
    assert type(error) is TimeoutError
    assert status in str(error)


def test_to_fetch_what_is_not_known_is_a_key_error(client: Client, broker: ToldBroker, aside: Call):
    fetched = aside(client.fetch, "mine")
    broker.answer(UNKNOWN, reason="there is neither a task with this key nor an outcome")
    error = error_of(fetched)
    assert type(error) is KeyError
    assert error.args == ("mine",)


@pytest.mark.parametrize("status", [FAILED, CANCELLED, EXPIRED, INVALID])
def test_to_fetch_what_has_no_result_raises_why(client: Client, broker: ToldBroker, aside: Call, status: str):
    fetched = aside(client.fetch, "mine")
    broker.answer(status, reason="no luck")
    error = error_of(fetched)
    assert isinstance(error, TaskFailed)
    assert (error.status, error.reason, error.number, error.key) == (status, "no luck", 17, "mine")


def test_a_fetch_may_wait_for_ever(client: Client, broker: ToldBroker, aside: Call):
    for wait in (None, inf, 2 * LONGEST_SPAN):
        fetched = aside(client.fetch, "mine", wait)
        assert broker.answer(DONE, b"result")["fetch"] == LONGEST_SPAN
        assert fetched.result(PATIENCE) == b"result"


@pytest.mark.parametrize("wait", ["5", True, float("nan")])
def test_a_wait_that_is_no_number_of_seconds_is_refused(client: Client, wait: Any):
    for fetch in (client.fetch, client.outcome):
        with pytest.raises(ValueError, match="wait must be a number of seconds"):
            fetch("mine", wait)


@pytest.mark.parametrize("key", ["", "k" * 257, b"mine", None])
def test_what_is_no_key_is_refused_where_it_is_asked_about(client: Client, key: Any):
    for ask in (client.fetch, client.outcome, client.cancel, client.forget):
        with pytest.raises(ValueError, match="key must be"):
            ask(key)


def test_a_task_may_be_waited_for_and_fetched_by_one_client(client: Client, broker: ToldBroker):
    future = client.submit(b"task", key="mine")
    outcomes = [client.outcome("mine", None), client.outcome("mine", 0.0)]
    task, first, second = (broker.receive() for _ in range(3))
    broker.reply("running", to=second)
    assert type(error_of(outcomes[1])) is TimeoutError
    broker.reply(DONE, b"fetched", to=first)
    assert outcomes[0].result(PATIENCE) == b"fetched"
    assert not future.done()
    broker.reply(DONE, b"waited for", to=task)
    assert future.result(PATIENCE) == b"waited for"


def test_to_cancel_the_future_of_an_outcome_leaves_the_task_alone(client: Client, broker: ToldBroker):
    asked = client.outcome("mine", None)
    withdrawn = client.outcome("mine", None)
    for _ in range(2):
        broker.receive()
    assert asked.cancel()
    assert asked.cancelled()
    withdrawn.withdraw()
    error = error_of(withdrawn)
    assert isinstance(error, TaskFailed)
    assert error.status == CANCELLED
    assert outstanding(client) == 0
    client.outcome("another")
    assert broker.receive()["key"] == "another"  # so there was no cancel before


def test_a_broker_that_does_not_answer_is_not_waited_for_longer_than_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "ANSWER", 0.05)
    with Client(NOBODY) as client:
        with pytest.raises(TimeoutError, match="the broker has not answered"):
            client.fetch("mine")
        assert outstanding(client) == 0


def test_without_a_broker_what_is_asked_fails_when_the_client_gives_up():
    with Client(NOBODY, connect_timeout=0.01) as client:
        for ask in (client.fetch, client.cancel, client.forget):
            with pytest.raises(ConnectionError):
                ask("mine")


def test_what_is_asked_fails_when_the_client_is_closed(client: Client, broker: ToldBroker, aside: Call):
    asked = [aside(ask, "mine") for ask in (client.fetch, client.cancel, client.forget)]
    for _ in asked:
        broker.receive()
    client.close()
    for future in asked:
        error = error_of(future)
        assert isinstance(error, TaskFailed)
        assert error.status == "closed"


# To cancel and to forget


def test_a_task_of_another_client_is_cancelled_by_its_key(client: Client, broker: ToldBroker, aside: Call):
    cancelled = aside(client.cancel, "mine")
    assert broker.answer(CANCELLED) == {"key": "mine", "id": "1", "cancel": True}
    assert cancelled.result(PATIENCE) is None


@pytest.mark.parametrize("status", [INVALID, UNKNOWN])
def test_to_cancel_what_is_settled_or_not_known_is_a_key_error(
    client: Client, broker: ToldBroker, aside: Call, status: str
):
    cancelled = aside(client.cancel, "mine")
    broker.answer(status, reason="there is no unsettled task with this key")
    error = error_of(cancelled)
    assert type(error) is KeyError
    assert error.args == ("mine",)


def test_outcomes_are_forgotten_all_at_once(client: Client, broker: ToldBroker, aside: Call):
    forgotten = aside(client.forget, "one", "two", "three")
    asked = [broker.receive() for _ in range(3)]
    assert asked[0] == {"key": "one", "id": "1", "forget": True}
    for fields, status in zip(asked, (DONE, FAILED, UNKNOWN), strict=True):
        assert not forgotten.done()
        broker.reply(status, to=fields)
    assert forgotten.result(PATIENCE) is None
    assert client.forget() is None  # type: ignore[func-returns-value]  # that is the point


def test_a_task_without_an_outcome_is_not_forgotten(client: Client, broker: ToldBroker, aside: Call):
    forgotten = aside(client.forget, "one", "two")
    broker.answer("running")
    broker.answer(DONE)
    error = error_of(forgotten)
    assert isinstance(error, InvalidStateError)
    assert "one is running" in str(error)


# When connections are cut


def test_what_has_no_answer_is_asked_again_by_the_next_connection(broker: ToldBroker, aside: Call):
    with Proxy(broker.address) as proxy, Client(proxy.address) as client:
        left = client.submit(b"task", key="mine", detach=True)
        joined = client.submit(b"task", key="mine")
        outcome = client.outcome("mine", 60)
        asked = [aside(client.cancel, "another"), aside(client.forget, "mine")]
        before = [broker.receive() for _ in range(5)]
        proxy.cut()
        after = [broker.receive() for _ in range(5)]
        assert before[2].pop("fetch") > after[2].pop("fetch") > 60 - PATIENCE
        assert after == before
        for fields, status in zip(after, (ACCEPTED, DONE, DONE), strict=False):
            broker.reply(status, b"result", to=fields)
        for fields in after[3:]:
            broker.reply(CANCELLED, to=fields)
        assert [future.result(PATIENCE) for future in (left, joined, outcome)] == ["mine", b"result", b"result"]
        assert [future.result(PATIENCE) for future in asked] == [None, None]


def test_what_a_broker_refuses_for_now_is_asked_again(client: Client, broker: ToldBroker, aside: Call):
    asked = [aside(ask, "mine") for ask in (client.fetch, client.cancel, client.forget)]
    before = [broker.answer(UNAVAILABLE, reason="the broker is shutting down") for _ in asked]
    after = {fields["id"]: fields for fields in (broker.receive() for _ in asked)}
    for fields in before:
        broker.reply(CANCELLED if "cancel" in fields else DONE, b"result", to=after[fields["id"]])
    assert [future.result(PATIENCE) for future in asked] == [b"result", None, None]
    wait_until(lambda: outstanding(client) == 0)
