"""The shell client: each line is a task, or the key of one, and each reply a line.

Four threads share the work. One reads lines and sends them, never more than a window ahead of what was printed; the
client's own receives replies; a third prints them. So a line that comes slowly does not hold up the replies to those
before it. The main thread waits for the end, or for a signal: whoever reads or writes elsewhere may block us, not that.
"""

import argparse
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from zmqbroker.client.client import Client
from zmqbroker.client.futures import OnProgress, TaskFailed, TaskFuture
from zmqbroker.commands import streams
from zmqbroker.commands.lines import Output
from zmqbroker.commands.progress import Progress
from zmqbroker.wire import CANCELLED, DONE, EXPIRED, FAILED

COMING = -1
LAST_ANSWERS = 1.0  # seconds for the broker to say what became of the tasks that are to be cancelled

Send = Callable[[int, Any, OnProgress | None], TaskFuture]  # sends the one with this number: a task's body, or a key


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

    def tasks(self) -> Iterator[tuple[str, Any]]:
        """Yield the place of each, for people, and what is to be sent."""
        ...


class Words(NamedTuple):
    """What is said of those that came to a good end, and of those that were left at a signal."""

    done: str
    left: str


class Outcome(NamedTuple):
    """What became of a task; or (number 0) how many tasks there are, None when the rest is cancelled."""

    number: int  # of the task, from 1; COMING: how far the first one has come
    result: Any  # the body of its result, or an exception


class Pending(NamedTuple):
    """A task that is not printed yet."""

    place: str  # for people
    future: TaskFuture


class Submission:
    """Tasks on their way, and what came of them."""

    def __init__(
        self, send: Send, tasks: Source, output: Output, window: int, words: Words, progress: Progress
    ) -> None:
        """Prepare to send tasks, or what is asked about them, at most `window` ahead of what is printed."""
        self.counts: Counter[str] = Counter()  # by DONE, FAILED and CANCELLED
        self.is_printing = True
        self.words = words
        self._send = send
        self._tasks = tasks
        self._output = output
        self._progress = progress
        self._room = threading.Semaphore(window)
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._pending: dict[int, Pending] = {}
        self._submitting = threading.Lock()  # for what follows, and for submitting
        self._is_cancelled = False
        self._submitted = 0
        self._counting = threading.Lock()  # for `counts`
        self._all_counted = threading.Condition(self._counting)

    @property
    def written(self) -> int:
        """Return how many bytes of results were written so far."""
        return self._output.written

    def start(self, tell: Callable[[Exception | None], object]) -> None:
        """Send everything and print every reply, in threads.

        Tells of what ended that, such as OSError or OutputError, and with None that all is printed.
        """
        threading.Thread(target=self._submit_all, args=[tell], daemon=True).start()
        threading.Thread(target=self._print_all, args=[tell], daemon=True).start()

    def cancel(self) -> None:
        """Cancel all that has no reply yet, and submit nothing more. What is finished is still printed.

        Returns when the broker has said what became of each task, or has not said so for LAST_ANSWERS seconds.
        """
        with self._submitting:
            self._is_cancelled = True
        pending = list(self._pending.values())
        for task in pending:
            task.future.withdraw()
        with self._all_counted:
            self._all_counted.wait_for(lambda: self.counts.total() == self._submitted, LAST_ANSWERS)
        for task in pending:
            task.future.cancel()  # unless it is done; the client tells the broker, if it can, when it is closed
        self._outcomes.put(Outcome(0, None))

    def _submit_all(self, tell: Callable[[Exception | None], object]) -> None:
        """Read and submit."""
        number = 0
        try:
            for number, (place, body) in enumerate(self._tasks.tasks(), 1):
                self._room.acquire()
                with self._submitting:
                    if self._is_cancelled:
                        return
                    on_progress = self._hear if number == 1 and self._progress.is_shown else None
                    future = self._send(number, body, on_progress)
                    self._pending[number] = Pending(place, future)
                    self._submitted = number
                future.add_done_callback(partial(self._settle, number))
        except Exception as error:
            tell(error)
        else:
            self._outcomes.put(Outcome(0, number))

    def _hear(self, coming: dict[str, Any]) -> None:
        """Have it shown how far the first task has come; in the client's thread."""
        self._outcomes.put(Outcome(COMING, coming))

    def _settle(self, number: int, future: "Future[Any]") -> None:
        """Count a task that is done, failed or cancelled, and have it printed; in any thread."""
        error = CancelledError() if future.cancelled() else future.exception()
        has_failed = getattr(error, "status", CANCELLED) in (FAILED, EXPIRED)
        is_cancelled = self._is_cancelled and error is not None and not has_failed
        with self._counting:  # both, as who sees the one may count on the other
            self.counts[CANCELLED if is_cancelled else FAILED if error else DONE] += 1
            if not is_cancelled:
                self._outcomes.put(Outcome(number, error or future.result()))
            if self._is_cancelled:
                self._all_counted.notify()

    def _print_all(self, tell: Callable[[Exception | None], object]) -> None:
        """Count and print."""
        ended_by = None
        try:
            self._print_outcomes()
            self._output.flush()
        except Exception as error:
            ended_by = error
        self.is_printing = False
        tell(ended_by)

    def _print_outcomes(self) -> None:
        """Print until all is printed, or the rest is cancelled; raises ConnectionError when the client has given up."""
        early: dict[int, Outcome] = {}
        printed, total = 0, None
        while printed != total:
            outcome = self._next_outcome()
            if outcome.number == 0:
                if outcome.result is None:
                    self._print_rest(early)
                    return
                total = outcome.result
                continue
            if isinstance(outcome.result, ConnectionError):  # no broker; and so it is with all the others
                raise outcome.result
            early[outcome.number] = outcome
            self._progress.show(self.counts[DONE], self.counts[FAILED])
            following = printed + 1 if self._output.ordered else outcome.number
            while following in early:
                self._print(early.pop(following))
                printed += 1
                following += 1

    def _print_rest(self, early: dict[int, Outcome]) -> None:
        """Print what is finished though something before it is not, and say what that is."""
        gaps: list[str] = []
        for number, (place, _) in sorted(self._pending.items()):
            if number not in early:
                gaps.append(place)
                continue
            for gap in gaps:
                self.complain(f"{gap}: {self.words.left}")
            gaps.clear()
            self._print(early[number])

    def _next_outcome(self) -> Outcome:
        """Wait for the next outcome; meanwhile, what was printed can be read, and how far the only task has come."""
        while True:
            if self._outcomes.empty():
                self._output.flush()
            outcome = self._outcomes.get()
            if outcome.number != COMING:
                return outcome
            if self._submitted == 1:
                self._progress.show_coming(outcome.result)

    def _print(self, outcome: Outcome) -> None:
        """Print one outcome, and make room for another task."""
        place, _ = self._pending.pop(outcome.number)
        self._room.release()
        if isinstance(outcome.result, BaseException):
            self.complain(_failure(place, outcome.result))
        else:
            self._progress.clear(streams.STDOUT)
            self._output.add(outcome.number, place, outcome.result)

    def complain(self, text: str) -> None:
        """Print a line on stderr."""
        self._progress.clear(streams.STDERR)
        streams.complain(text)


class Complaints(logging.Handler):
    """Has what the client logs printed as what a submission says itself."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(logging.WARNING)
        self._submission = submission

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        self._submission.complain(record.getMessage())


def _failure(place: str, error: BaseException) -> str:
    """Say why the task from a place has no result, and which one it is in the broker's log."""
    if isinstance(error, KeyError):
        return f"{place}: there is no such task, nor an outcome of one"
    if not isinstance(error, TaskFailed):
        return f"{place}: {error}"
    which = "" if error.number is None else f", task {error.number}"
    return f"{place}{which}: {error.reason}"
