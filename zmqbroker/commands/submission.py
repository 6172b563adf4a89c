"""The shell client: each line is a task, or the key of one, and what becomes of each is taken as `takers` says.

Four threads share the work. One reads lines and sends them, never more than a window ahead of what was taken; the
client's own receives replies; a third has them taken, that is printed as a rule. So a line that comes slowly does not
hold up the replies to those before it. The main thread waits for the end, or for a signal: whoever reads or writes
elsewhere may block us, not that.
"""

import argparse
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any, NamedTuple, Protocol

from zmqbroker.client.client import Client
from zmqbroker.client.futures import OnProgress, TaskFuture
from zmqbroker.commands import streams
from zmqbroker.commands.halting import Halt
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.refused import Refusals, RefusedError
from zmqbroker.commands.takers import LEFT, Item, Outcome, Takers
from zmqbroker.commands.telling import failure, left_behind
from zmqbroker.wire import CANCELLED, DONE, EXPIRED, FAILED
from zmqbroker.wire.chunks import Body

ALL, COMING = 0, -1  # what is told in the place of the number of a task: how many there are; how far the first is
LAST_ANSWERS = 1.0  # seconds for the broker to say what became of the tasks that are to be cancelled
RUNNING = "running"
HOLDS_FOR_ALL = ConnectionError, RefusedError  # why there is no result: there will be none of the others either

Send = Callable[[Item, OnProgress | None], TaskFuture]  # sends a task, or asks for what became of one
Tell = Callable[[Exception | Halt | None], object]


def connect(options: argparse.Namespace) -> Client:
    """Connect to the broker that the options name, as who they say; raises as Client does."""
    return Client(
        options.requests,
        connect_timeout=options.connect_timeout or None,
        identity=options.identity,
        broker_identity=options.broker_identity,
    )


class Source(Protocol):
    """Where what is to be sent comes from."""

    def tasks(self) -> Iterator[Item]:
        """Yield what each task is made of."""
        ...

    def total(self) -> int | None:
        """Return how many there are; None if that cannot be told before all is read."""
        ...


class Words(NamedTuple):
    """What is said of those that came to a good end, and of those that were left at a signal."""

    done: str
    left: str


class How(NamedTuple):
    """How tasks are sent, and what comes of them taken."""

    ordered: bool  # in the order of the tasks, else as it comes
    window: int  # tasks ahead of what is taken, at most
    words: Words
    text: Callable[[Any], Body] | None = None  # writes a result as it is to be taken; None: as it is
    halt: Halt | None = None  # when there are too many failures; None: never
    look: Callable[[TaskFuture], TaskFuture] | None = None  # asks how a task stands; None: that is not wanted
    keeps_bodies: bool = False  # takers want them
    refusals: Refusals | None = None  # tells that none is taken; None: each asks for something of its own


class Pending(NamedTuple):
    """A task that is not taken yet."""

    item: Item
    future: TaskFuture
    since: float  # when it was submitted
    size: int  # of its body, in bytes


class Submission:
    """Tasks on their way, and what came of them."""

    def __init__(self, send: Send, source: Source, takers: Takers, how: How, progress: Progress) -> None:
        """Prepare to send tasks, or what is asked about them, and to have taken what comes of them."""
        self.counts: Counter[str] = Counter()  # by DONE, FAILED and CANCELLED
        self.is_printing = True
        self.words = how.words
        self._send = send
        self._source = source
        self._takers = takers
        self._how = how
        self._progress = progress
        self._room = threading.Semaphore(how.window)
        self._outcomes: SimpleQueue[tuple[int, Any]] = SimpleQueue()  # by the number of the task, or ALL or COMING
        self._pending: dict[int, Pending] = {}
        self._gaps: list[int] = []  # neighbours that were left, before others that are taken
        self._submitting = threading.Lock()  # for what follows, and for submitting
        self._is_stopped = False
        self._submitted = 0
        self._counting = threading.Lock()  # for `counts` and what follows
        self._all_counted = threading.Condition(self._counting)
        self._has_halted = False
        self._tell: Tell = lambda ended_by: None

    @property
    def written(self) -> int:
        """Return how many bytes were written so far."""
        return self._takers.written

    def start(self, tell: Tell) -> None:
        """Send everything and have every reply taken, in threads.

        Tells of what ended that, such as OSError or OutputError, with None that all is taken, and of a Halt.
        """
        self._tell = tell
        threading.Thread(target=self._submit_all, daemon=True).start()
        threading.Thread(target=self._take_all, daemon=True).start()

    def stop(self) -> None:
        """Submit nothing more, and cancel what does not run yet. What runs is waited for, as without this."""
        for task in self._end():
            if not task.future.done() and self._how.look is not None:
                asked = self._how.look(task.future)
                asked.add_done_callback(partial(_withdraw_unless_running, task.future, asked))
        self._outcomes.put((ALL, self._submitted))

    def cancel(self) -> None:
        """Cancel all that has no reply yet, and submit nothing more. What is finished is still taken.

        Returns when the broker has said what became of each task, or has not said so for LAST_ANSWERS seconds.
        """
        pending = self._end()
        for task in pending:
            task.future.withdraw()
        with self._all_counted:
            self._all_counted.wait_for(lambda: self.counts.total() == self._submitted, LAST_ANSWERS)
        for task in pending:
            task.future.cancel()  # unless it is done; the client tells the broker, if it can, when it is closed
        self._outcomes.put((ALL, self._submitted))

    def close(self) -> None:
        """Have the takers let go, and note what is left; raises OutputError."""
        pending = self._pending.copy()  # whoever prints may be stuck, and go on just now
        self._takers.close([pending[number].item for number in sorted(pending)])

    def complain(self, text: str) -> None:
        """Print a line on stderr."""
        self._progress.clear(streams.STDERR)
        streams.complain(text)

    def _end(self) -> list[Pending]:
        """Submit nothing more; return what is not taken yet."""
        with self._submitting:
            self._is_stopped = True
        return list(self._pending.values())

    def _submit_all(self) -> None:
        """Read and submit."""
        number = 0
        try:
            for number, item in enumerate(self._source.tasks(), 1):
                self._room.acquire()
                with self._submitting:
                    if self._is_stopped:
                        return
                    on_progress = self._hear if number == 1 and self._progress.is_shown else None
                    future = self._send(item, on_progress)
                    kept = item if self._how.keeps_bodies else item._replace(body=None)
                    self._pending[number] = task = Pending(kept, future, monotonic(), len(item.body))
                    self._submitted = number
                future.add_done_callback(partial(self._settle, number, task))
        except Exception as error:
            self._tell(error)
        else:
            self._outcomes.put((ALL, number))

    def _hear(self, coming: dict[str, Any]) -> None:
        """Have it shown how far the first task has come; in the client's thread."""
        self._outcomes.put((COMING, coming))

    def _settle(self, number: int, task: Pending, future: "Future[Any]") -> None:
        """Count a task that is done, failed or left, and have it taken; in any thread."""
        error = CancelledError() if future.cancelled() else future.exception()
        if self._how.refusals is not None:
            error = self._how.refusals.look(error, task.size)
        has_failed = isinstance(error, ValueError) or getattr(error, "status", CANCELLED) in (FAILED, EXPIRED)
        is_left = self._is_stopped and error is not None and not has_failed
        outcome = self._outcome(task, error, LEFT if is_left else None)
        with self._counting:  # both, as who sees the one may count on the other
            self.counts[CANCELLED if is_left else FAILED if error else DONE] += 1
            self._outcomes.put((number, outcome))
            if self._is_stopped:
                self._all_counted.notify()
            is_too_much = self._is_too_much(error)
        if is_too_much:
            self._tell(self._how.halt)

    def _outcome(self, task: Pending, error: BaseException | None, status: str | None) -> Outcome:
        """Return what became of a task; `status` None: as its future says."""
        item, future, since, _ = task
        result: Any = error
        if error is None:
            result = future.result() if self._how.text is None else self._how.text(future.result())
        if isinstance(error, ValueError):  # it was not sent, or its result cannot be read
            status = FAILED
        status = status or future.status or CANCELLED
        return Outcome(item, result, status, future.attempts, monotonic() - since, future.worker, future.key)

    def _is_too_much(self, error: BaseException | None) -> bool:
        """Tell, once, that there are too many failures."""
        halt = self._how.halt
        if halt is None or self._has_halted or self._is_stopped or isinstance(error, HOLDS_FOR_ALL):
            return False
        failed = self.counts[FAILED]
        self._has_halted = error is not None and halt.is_due(failed, failed + self.counts[DONE])
        return self._has_halted

    def _take_all(self) -> None:
        """Have all taken that comes."""
        ended_by = None
        try:
            self._take_outcomes()
            self._takers.flush()
        except Exception as error:
            ended_by = error
        self.is_printing = False
        self._tell(ended_by)

    def _take_outcomes(self) -> None:
        """Take until all is taken; raises ConnectionError when the client has given up, and RefusedError."""
        early: dict[int, Outcome] = {}
        passed, total = 0, None
        while passed != total:
            number, outcome = self._next_outcome()
            if number == ALL:
                total = outcome
                continue
            if outcome.status != LEFT and isinstance(outcome.result, HOLDS_FOR_ALL):
                raise outcome.result
            early[number] = outcome
            self._progress.show(self.counts[DONE], self.counts[FAILED])
            following = passed + 1 if self._how.ordered else number
            while following in early:
                self._take(following, early.pop(following))
                passed += 1
                following += 1

    def _next_outcome(self) -> tuple[int, Any]:
        """Wait for the next outcome; meanwhile, what was taken is written, and how far a single task is shown."""
        while True:
            if self._outcomes.empty():
                self._takers.flush()
            number, told = self._outcomes.get()
            if number != COMING:
                return number, told
            if self._submitted == 1:
                self._progress.show_coming(told)

    def _take(self, number: int, outcome: Outcome) -> None:
        """Have one outcome taken, and make room for another task."""
        if outcome.status == LEFT:
            if self._how.ordered:
                self._gaps.append(number)
            return
        if self._gaps:
            self.complain(left_behind([self._pending[gap].item for gap in self._gaps], self.words.left))
        for gap in self._gaps:
            self._takers.take(self._outcome(self._pending[gap], CancelledError(), LEFT))
        self._gaps.clear()
        if outcome.has_failed:
            self.complain(failure(outcome))
        else:
            self._progress.clear(streams.STDOUT)
        self._takers.take(outcome)
        del self._pending[number]
        self._room.release()


def _withdraw_unless_running(task: TaskFuture, asked: TaskFuture, _: "Future[Any]") -> None:
    """Cancel a task if it does not run, as somebody has asked."""
    if asked.status != RUNNING:
        task.withdraw()
