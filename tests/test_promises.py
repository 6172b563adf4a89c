"""The promises of README.md under random interleavings of everything that can happen, against a simple model.

The model keeps one record a task, written from the promises and not from the code: which attempts it had, which of
them is running until when, who lost it, and what was replied.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmqbroker.dispatch import STALE_ENTRIES_KEPT, Dispatcher, Task

WORKERS = [b"ann", b"bob", b"cid", b"dee"]
RESULT = [b"result"]


@dataclass
class Record:
    """What the model knows of a task."""

    task: Task
    attempts: int = 0  # charged
    issued: list[bytes] = field(default_factory=list)  # attempt ids, all of them
    running: bytes | None = None
    deadline: float | None = None
    worker: bytes | None = None  # that had it last
    lost: bool = False  # by that worker, since its last hand-out
    replies: list[str] = field(default_factory=list)


class Promises(RuleBasedStateMachine):
    """Everything a broker can meet, in any order."""

    @initialize(
        tries=st.integers(0, 3), timeout=st.sampled_from([None, 1.0, 2.5]), retry_delay=st.sampled_from([0.0, 2.0])
    )
    def start(self, tries: int, timeout: float | None, retry_delay: float) -> None:
        self.now = 0.0
        self.tries, self.timeout = tries, timeout
        self.dispatcher = Dispatcher(tries=tries, timeout=timeout, retry_delay=retry_delay, run=b"run")
        self.records: dict[int, Record] = {}  # by the identity of the task
        self.slots = dict.fromkeys(WORKERS, 0)
        self.attempt_owner: dict[bytes, Record] = {}

    # What can happen

    @rule()
    def submit(self) -> None:
        task = self.dispatcher.submit([b"client %d" % len(self.records)], [b"body"])
        self.records[id(task)] = Record(task)

    @rule(worker=st.sampled_from(WORKERS))
    def ready(self, worker: bytes) -> None:
        self.dispatcher.ready([worker])
        self.slots[worker] += 1

    @rule(gone=st.sets(st.sampled_from(WORKERS), max_size=2))
    def hand_out(self, gone: set[bytes]) -> None:
        while (pair := self.dispatcher.hand_out(self.now)) is not None:
            envelope, task = pair
            record = self.records[id(task)]
            worker = bytes(envelope[0])
            assert self.slots[worker] > 0
            assert not record.replies, "a settled task was handed out"
            assert record.running is None, "a running task was handed out"
            if record.lost and any(n for name, n in self.slots.items() if name != record.worker):
                assert worker != record.worker, "promise 4: the retry went to the worker that lost it"
            if worker in gone:
                self.slots[worker] = 0
                self.dispatcher.take_back(task)
                record.worker, record.lost = worker, True
                continue
            self.slots[worker] -= 1
            assert task.attempt_id not in self.attempt_owner, "an attempt id was used twice"
            record.attempts += 1
            assert not self.tries or record.attempts <= self.tries, "promise 6: more attempts than the limit"
            record.issued.append(task.attempt_id)
            record.running, record.worker, record.lost = task.attempt_id, worker, False
            record.deadline = None if self.timeout is None else self.now + self.timeout
            self.attempt_owner[task.attempt_id] = record

    @rule(span=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def expire(self, span: float) -> None:
        self.now += span
        self.dispatcher.expire(self.now)
        for record in self.records.values():
            if record.running is not None and record.deadline is not None and record.deadline <= self.now:
                self.lose(record)

    @rule(worker=st.sampled_from(WORKERS))
    def forget_worker(self, worker: bytes) -> None:
        self.dispatcher.forget_worker(worker)
        self.slots[worker] = 0

    @precondition(lambda self: self.attempt_owner)
    @rule(data=st.data())
    def result(self, data: st.DataObject) -> None:
        attempt_id, record = self.draw_attempt(data)
        self.dispatcher.result(attempt_id, RESULT)
        if not record.replies:
            self.settle(record, "done")

    @precondition(lambda self: self.attempt_owner)
    @rule(data=st.data(), verb=st.sampled_from(["fail", "reject", "release", "touch"]))
    def control(self, data: st.DataObject, verb: str) -> None:
        attempt_id, record = self.draw_attempt(data)
        seconds = data.draw(st.sampled_from([None, 0.5, 10.0])) if verb == "touch" else None
        if verb == "fail":
            self.dispatcher.fail(attempt_id, "no", self.now)
        elif verb == "reject":
            self.dispatcher.reject(attempt_id, "no")
        elif verb == "release":
            self.dispatcher.release(attempt_id)
        else:
            self.dispatcher.touch(attempt_id, seconds, self.now)
        if record.running != attempt_id:
            return  # promise 3: it counts for the running attempt only
        if verb == "fail":
            self.lose(record)
        elif verb == "reject":
            self.settle(record, "failed")
        elif verb == "release":
            record.attempts -= 1
            record.running, record.deadline, record.lost = None, None, True
        elif seconds or self.timeout:
            record.deadline = self.now + (seconds or self.timeout or 0.0)

    @rule(attempt_id=st.binary(max_size=20))
    def made_up_attempt(self, attempt_id: bytes) -> None:
        if attempt_id not in self.attempt_owner:
            self.dispatcher.result(b"RUN" + attempt_id, RESULT)
            self.dispatcher.fail(b"RUN" + attempt_id, "no", self.now)

    # How the model moves

    def draw_attempt(self, data: st.DataObject) -> tuple[bytes, Record]:
        attempt_id = data.draw(st.sampled_from(sorted(self.attempt_owner)))
        return attempt_id, self.attempt_owner[attempt_id]

    def lose(self, record: Record) -> None:
        record.running, record.deadline, record.lost = None, None, True
        if self.tries and record.attempts >= self.tries:
            self.settle(record, "failed")

    def settle(self, record: Record, status: str) -> None:
        record.running = record.deadline = None
        record.replies.append(status)

    # What must hold, always

    @invariant()
    def replies_are_those_of_the_model(self) -> None:
        """Promises 1, 2 and 3: exactly one reply, the first result or the failure after the last attempt."""
        for task in self.dispatcher.settled:
            record = self.records[id(task)]
            assert record.replies == [task.status]
            assert task.body == (RESULT if task.status == "done" else [])
            record.replies.append("sent")
        self.dispatcher.settled.clear()
        for record in self.records.values():
            assert record.replies in ([], ["done", "sent"], ["failed", "sent"])

    @invariant()
    def counters_add_up(self) -> None:
        counters, dispatcher = self.dispatcher.counters, self.dispatcher
        assert counters.accepted == counters.done + counters.failed + dispatcher.unsettled == len(self.records)
        assert dispatcher.running == sum(record.running is not None for record in self.records.values())
        assert dispatcher.idle == sum(n > 0 for n in self.slots.values())

    @invariant()
    def the_next_due_instant_is_known(self) -> None:
        deadlines = [record.deadline for record in self.records.values() if record.deadline is not None]
        due = self.dispatcher.next_due()
        assert not deadlines or (due is not None and due <= min(deadlines))

    @invariant()
    def memory_is_proportional_to_unsettled_tasks(self) -> None:
        """Promise 7."""
        dispatcher = self.dispatcher
        entries = len(dispatcher._timers) + len(dispatcher._retries) + len(dispatcher._fresh)
        assert entries <= 4 * dispatcher.unsettled + 2 * STALE_ENTRIES_KEPT
        assert len(dispatcher._tasks) <= dispatcher.unsettled

    def teardown(self) -> None:
        """Promise 1: nobody is left without a reply at shutdown."""
        if not hasattr(self, "dispatcher"):
            return
        self.dispatcher.abandon("the broker was shut down")
        for task in self.dispatcher.settled:
            self.records[id(task)].replies += [task.status, "sent"]
        assert all(len(record.replies) == 2 for record in self.records.values())


Promises.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestPromises = Promises.TestCase
