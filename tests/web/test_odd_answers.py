"""The page's server before brokers that answer as no broker of this version does, or not to all that is asked."""

import re
from collections.abc import Callable
from copy import deepcopy
from itertools import count
from typing import Any

import pytest
from control_support import controlled, submit
from web_support import Serving, serve_page, until

from zmqbroker.web import asker, reading, watched
from zmqbroker.wire.control import ControlError

__all__ = ["controlled", "serve_page"]  # fixtures

Answer = dict[str, Any]
Change = Callable[[Answer], Any]

ODD = {  # what is asked, and what is done to the answer
    "a process without a number": ("status", lambda answer: answer.pop("pid")),
    "a name that is no Unicode": ("status", lambda answer: answer.update(version="\ud800")),
    "a version that is a number": ("status", lambda answer: answer.update(version=5)),
    "text in place of a number": ("status", lambda answer: answer.update(uptime="x")),
    "a number that is none": ("status", lambda answer: answer.update(busy=float("nan"))),
    "a number without an end": ("status", lambda answer: answer.update(uptime=float("inf"))),
    "a number that is too large": ("status", lambda answer: answer.update(memory=10**400)),
    "addresses in a list": ("status", lambda answer: answer.update(addresses=[])),
    "no totals": ("status", lambda answer: answer.pop("totals")),
    "nothing at all": ("status", lambda answer: answer.clear()),
    "a queue that is no Unicode": ("queues", lambda answer: answer["queues"][0].update(name="\ud800x")),
    "a queue that is a number": ("queues", lambda answer: answer["queues"][0].update(name=5)),
    "a queue that is a list": ("queues", lambda answer: answer["queues"][0].update(name=["a"])),
    "a queue without attempts": ("queues", lambda answer: answer["queues"][0].update(attempts={})),
    "a queue with half of its buckets": ("queues", lambda answer: answer["queues"][0]["waited"]["counts"].pop()),
    "a queue whose tasks are text": ("queues", lambda answer: answer["queues"][0].update(accepted="x")),
    "queues without bounds": ("queues", lambda answer: answer.pop("bounds")),
    "no queues": ("queues", lambda answer: answer.pop("queues")),
    "queues without a cursor": ("queues", lambda answer: answer.pop("cursor")),
}


def altered(what: str, change: Change, is_meant: Callable[[], bool] = lambda: True) -> Callable[[str, Answer], Answer]:
    """Return what changes the answers to one question."""

    def alter(asked: str, answer: Answer) -> Answer:
        if asked == what and is_meant():
            answer = deepcopy(answer)
            change(answer)
        return answer

    return alter


def is_up(serving: Serving) -> bool:
    got = serving.get("/metrics")
    assert got.status == 200
    return "zmqbroker_up 1.0" in got.text.splitlines()


@pytest.mark.parametrize("odd", ODD)
def test_who_answers_as_no_broker_does_is_told_of_as_one_that_does_not_answer(odd, controlled, serve_page):
    what, change = ODD[odd]
    serving = serve_page(controlled.broker.control_address, alter=altered(what, change))
    assert is_up(serving) == (what != "status")
    got = serving.get(f"/api/{what}")
    assert got.status == 503
    assert "does not answer as a broker of this version does" in got.json["error"]
    assert what == "status" or serving.get("/api/queues?find=").status == 503
    (told,) = serving.get("/api/brokers").json["brokers"]
    assert bool(told["error"]) == (what == "status")


@pytest.mark.parametrize(
    ("ask", "change"),
    [
        ("tasks", lambda answer: answer["tasks"][0].pop("queue")),
        ("workers", lambda answer: answer["workers"].append({})),
        ("failures", lambda answer: answer.update(failures=None)),
        ("task?number=1", lambda answer: answer.update(task=7)),
        ("tasks", lambda answer: answer.update(more=float("nan"))),  # for which JSON has no word
    ],
)
def test_of_a_list_that_is_no_list_only_who_asks_for_it_is_told(ask, change, controlled, serve_page):
    submit(controlled, 1)
    serving = serve_page(controlled.broker.control_address, alter=altered(ask.partition("?")[0], change))
    got = serving.get(f"/api/{ask}")
    assert (got.status, "as a broker of this version does" in got.json["error"]) == (503, True)
    assert serving.get("/api/status").status == 200
    assert is_up(serving)


def test_a_newer_broker_may_tell_more(controlled, serve_page):
    serving = serve_page(controlled.broker.control_address, alter=lambda what, answer: answer | {"news": [{}]})
    for ask in ("status", "queues", "workers", "tasks", "failures"):
        assert serving.get(f"/api/{ask}").json["news"] == [{}]
    assert is_up(serving)


def test_one_odd_answer_does_not_stop_the_last_minutes(controlled, serve_page, monkeypatch):
    monkeypatch.setattr(watched, "LOOKS_EVERY", 0.05)
    monkeypatch.setattr(watched, "LOOKS_SHARE", 0)
    answers, odd = count(), []

    def spoil(answer: Answer) -> None:
        odd.append(answer["queues"].pop())
        del answer["queues"]

    serving = serve_page(controlled.broker.control_address, alter=altered("queues", spoil, lambda: next(answers) == 1))

    def looks() -> int:
        return len(serving.get("/api/history").json["ages"])

    until(lambda: odd)
    before = looks()
    until(lambda: looks() > before + 1)


def test_a_broker_that_tells_only_how_it_is_is_up(controlled, serve_page):
    def refuse(answer: Answer) -> None:
        raise ControlError("there is no queues")

    serving = serve_page(controlled.broker.control_address, alter=altered("queues", refuse))
    assert is_up(serving)
    assert "zmqbroker_messages_total" in serving.get("/metrics").text
    assert "zmqbroker_tasks" not in serving.get("/metrics").text
    assert serving.get("/api/queues").status == 400


def test_a_broker_is_up_before_all_its_queues_are_known(controlled, serve_page, monkeypatch):
    monkeypatch.setattr(reading, "PATIENCE", 0.0)
    serving = serve_page(controlled.broker.control_address)
    assert is_up(serving)
    until(lambda: re.search("^zmqbroker_tasks{", serving.get("/metrics").text, re.MULTILINE))


def test_how_a_broker_is_can_be_asked_however_many_questions_wait(controlled, serve_page, monkeypatch):
    monkeypatch.setattr(asker, "MOST_WAITING", 0)
    serving = serve_page(controlled.broker.control_address)
    assert serving.get("/api/tasks").status == 503
    assert serving.get("/api/status").status == 200
    assert is_up(serving)
