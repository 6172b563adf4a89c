"""Retries and forgetting by control, between anything else, with a store that is slow and a broker that dies.

However it goes, what the broker knows is what is stored; a task that was accepted is there until it is told that it was
forgotten; and one that was told to be retried has not failed, unless it was tried again.
"""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stored_support import StoredCore

from zmqbroker.broker.about import Answer
from zmqbroker.broker.questions import Later, RefusedError
from zmqbroker.broker.task import WAITING
from zmqbroker.wire import EXPIRED, FAILED

pytestmark = pytest.mark.once


MOST_TASKS = 8
keys = st.integers(1, MOST_TASKS).map(str)


class FailedTasks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = StoredCore()
        self.now = 0.0
        self.accepted: set[str] = set()  # keys of tasks that are stored, as clients were told
        self.may_be_forgotten: set[str] = set()  # as somebody asked for it, told of it or not

    @rule(key=keys)
    def leave(self, key: str) -> None:
        if not self.core.journal.has_settled(key):
            self.may_be_forgotten.discard(key)
        self.core.leave(key)

    @rule(key=keys)
    def leave_and_fail(self, key: str) -> None:
        """Have a task stored, and fail."""
        self.leave(key)
        self.turn(3)
        self.turn(3)
        if self.core.sent:
            self.settle(fails=True)
        self.turn(3)

    @rule(fails=st.booleans())
    @precondition(lambda self: self.core.sent)
    def settle(self, fails: bool) -> None:
        hand_out = self.core.sent.pop()
        if hand_out.task.attempt_id == hand_out.attempt_id:
            self.core.answered(b"worker", hand_out.attempt_id, 1, self.now)
            if fails:
                self.core.reject(hand_out.attempt_id, "no", self.now)
            else:
                self.core.result(hand_out.attempt_id, [b"result"], self.now)

    @rule(data=st.data(), is_by_number=st.booleans(), times=st.sampled_from([1, 1, 2]))
    @precondition(lambda self: len(self.core.journal.outcomes.failed))
    def retry(self, data: st.DataObject, is_by_number: bool, times: int) -> None:
        key = data.draw(st.sampled_from([failed.key for failed in self.core.journal.outcomes.failed]))
        hand_outs = {failed.key: failed.state.hand_outs for failed in self.core.journal.outcomes.failed}

        def check(answer: Answer | RefusedError) -> None:
            if isinstance(answer, dict):
                (task,) = [task for task in self.core.store.disk.tasks.values() if task.request.key == key]
                assert task.state.until is None or task.state.hand_outs > hand_outs[key]

        for _ in range(times):
            self.change({"ask": "retry", **self.which(key, is_by_number)}, check)

    @rule(key=keys, is_by_number=st.booleans())
    def forget(self, key: str, is_by_number: bool) -> None:
        self.may_be_forgotten.add(key)
        self.change({"ask": "forget", **self.which(key, is_by_number)}, lambda answer: None)

    @rule(ask=st.sampled_from(["retry", "forget"]))
    def change_all(self, ask: str) -> None:
        if ask == "forget":
            self.may_be_forgotten |= {failed.key for failed in self.core.journal.outcomes.failed}
        self.change({"ask": ask, "all": True}, lambda answer: None)

    @rule(asks=st.booleans())
    def have_a_worker(self, asks: bool) -> None:
        """Have the worker ask for a task, or for none any more."""
        if asks != bool(self.core.idle):
            (self.core.ask if asks else self.core.withdraw)(b"worker", 1)
        self.core.told.clear()

    @rule(seconds=st.sampled_from([1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.expire(self.now)

    @rule(commits=st.integers(0, 3))
    def turn(self, commits: int) -> None:
        core = self.core
        core.hold_all(self.now)
        core.storing.turn(self.now)
        for _ in range(commits):
            core.store.commit()
        core.storing.turn(self.now)
        self.accepted |= {answer.key or "" for answer in core.settled if answer.status == "accepted"}
        core.settled.clear()

    @rule()
    def die(self) -> None:
        self.core = self.core.begin_anew()
        self.now = 0.0

    @rule()
    def rest(self) -> None:
        """Have all stored, and see that it is what the broker knows."""
        core = self.core
        while core.storing.has_news or core.store.started:
            self.turn(3)
        outcomes = core.journal.outcomes
        known, stored = {}, {}
        for task in core.ledger:
            known[task.number] = task.key, False
        for key in map(str, range(1, MOST_TASKS + 1)):
            if (outcome := outcomes.find(key)) is not None:
                known[outcome.number] = key, True
        failed = set()
        for number, (request, state, _, _) in core.store.disk.tasks.items():
            stored[number] = request.key, state.until is not None
            failed |= {number} if state.status in (FAILED, EXPIRED) else set()
        assert known == stored
        assert core.waiting == sum(task.status == WAITING for task in core.ledger)  # each of them once
        assert {one.number for one in outcomes.failed} == failed
        pages = core.inquire("failed")["failed"], core.inquire("tasks")["tasks"]
        assert [[task["number"] for task in page] for page in pages] == [
            sorted(failed),
            sorted(number for number, (_, is_settled) in stored.items() if not is_settled),
        ]

    @invariant()
    def what_was_accepted_is_there_until_it_is_forgotten(self) -> None:
        there = {task.request.key for task in self.core.store.disk.tasks.values()}
        assert self.accepted - self.may_be_forgotten <= there
        self.accepted &= there

    def which(self, key: str, is_by_number: bool) -> dict[str, Any]:
        """Return the field that says which task is meant."""
        numbers = {task.request.key: number for number, task in self.core.store.disk.tasks.items()}
        return {"number": numbers[key]} if is_by_number and key in numbers else {"key": key}

    def change(self, question: dict[str, Any], check: Any) -> None:
        try:
            answer = self.core.control.answer(question, self.now)
        except RefusedError:
            return
        if isinstance(answer, Later):
            answer.then = check


TestFailedTasks = FailedTasks.TestCase
TestFailedTasks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
