"""Who asks a broker on behalf of many, before one that answers when it is told to."""

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from web_support import PATIENCE, until

from zmqbroker.transport.control import NoAnswerError
from zmqbroker.web.asker import Answer, Asker, UnansweredError

QUEUES = {"queues": [], "bounds": [], "total": 0, "cursor": None}
WORKERS = {"workers": [], "total": 0, "cursor": None}
TASKS = [{"tasks": [], "total": total, "cursor": None} for total in (1, 2)]


class Broker:
    """In place of a control socket."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[str] = SimpleQueue()
        self.answers: SimpleQueue[Answer | None] = SimpleQueue()  # None: it does not answer in time

    def ask(self, what: str, **fields: Any) -> Answer:
        self.asked.put(what)
        answer = self.answers.get(timeout=PATIENCE)
        if answer is None:
            raise NoAnswerError("no broker answers")
        return answer

    def close(self) -> None:
        pass


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def asker(broker: Broker) -> Iterator[Asker]:
    asker = Asker(lambda: broker)  # type: ignore[arg-type, return-value]
    yield asker
    broker.answers.put({})  # so that its thread ends
    asker.close()


def test_who_asks_a_broker_that_does_not_answer_is_told_so_at_once_and_it_is_asked_again(broker, asker):
    first = asker.ask("status")
    broker.answers.put(None)
    with pytest.raises(UnansweredError, match="no broker answers"):
        first.result(PATIENCE)
    for ask in ("queues", "workers", "queues"):
        assert isinstance(asker.ask(ask).exception(0), UnansweredError)
    assert [broker.asked.get(timeout=PATIENCE) for _ in range(2)] == ["status", "queues"]
    broker.answers.put(QUEUES)
    until(lambda: not asker.trouble)
    assert asker.ask("queues").result(PATIENCE) == QUEUES
    broker.answers.put(WORKERS)
    assert asker.ask("workers").result(PATIENCE) == WORKERS
    assert broker.asked.qsize() == 1  # each was asked once


def test_a_question_that_is_being_asked_is_joined(broker, asker):
    several = [asker.ask("tasks", after=0, most=5) for _ in range(3)]
    another = asker.ask("tasks", after=5, most=5)
    for tasks in TASKS:
        broker.answers.put(tasks)
    assert [answer.result(PATIENCE) for answer in several] == TASKS[:1] * 3
    assert another.result(PATIENCE) == TASKS[1]
    assert broker.asked.qsize() == 2


def test_who_asks_a_broker_that_is_not_to_be_asked_any_more_is_told_why(broker, asker):
    last = asker.ask("queues")
    assert broker.asked.get(timeout=PATIENCE) == "queues"
    asker.stop("it is gone")
    broker.answers.put(QUEUES)
    assert last.result(PATIENCE) == QUEUES
    assert str(asker.ask("status").exception(0)) == "it is gone"
    assert asker.trouble == "it is gone"
