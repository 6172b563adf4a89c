"""The shell client: each line is a task, and each reply a line.

Three threads share the work. One reads lines and submits them, never more than a window ahead of what was printed;
the client's own receives replies; the main thread prints them, hears signals, and notices when nobody reads any more.
So a line that comes slowly does not hold up the replies to those before it.
"""

import io
import logging
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, BinaryIO, NamedTuple

from zmqbroker.client.client import Client
from zmqbroker.client.futures import TaskFailed
from zmqbroker.commands.progress import Progress
from zmqbroker.wire.chunks import Body

STDIN = "-"
CHUNK = 1 << 20  # bytes read at once to count lines


class Input(NamedTuple):
    """Where tasks come from."""

    names: Sequence[str]  # of files; "-" is stdin
    whole: bool  # each file is one task, else each line

    def tasks(self) -> Iterator[tuple[str, bytes]]:
        """Yield each task's place, for people, and its body; raises OSError for what cannot be read."""
        number = 0
        for name in self.names:
            with _open(name) as file:
                if self.whole:
                    yield name, file.read()
                    continue
                for number_in_file, line in enumerate(file, 1):
                    number += 1
                    place = f"line {number}" if len(self.names) == 1 else f"{name}, line {number_in_file}"
                    yield place, line[:-1] if line.endswith(b"\n") else line

    def total(self) -> int | None:
        """Return the number of tasks; None if that cannot be told before all is read."""
        if self.whole:
            return len(self.names)
        total = 0
        for name in self.names:
            if name == STDIN or not os.path.isfile(name):  # what is no file can be read only once
                return None
            with _open(name) as file:
                last = b"\n"
                while chunk := file.read(CHUNK):
                    total += chunk.count(b"\n")
                    last = chunk[-1:]
                total += last != b"\n"
        return total

    def check(self) -> None:
        """Raise OSError for the first file that cannot be opened; a FIFO is not tried, its writer would be cut off."""
        for name in self.names:
            if name != STDIN and not stat.S_ISFIFO(os.stat(name).st_mode):
                open(name, "rb").close()


class Outcome(NamedTuple):
    """What became of a task, or (number 0) of the input: an error, or its end."""

    number: int  # of the task, from 1
    place: str
    result: Any  # the body of its result, or an exception


class Output(NamedTuple):
    """How replies are printed."""

    stream: BinaryIO
    ordered: bool  # else as they come, each after its number

    def write(self, number: int, body: Body) -> None:
        """Print a reply, with a newline where it lacks one."""
        text = body if isinstance(body, bytes) else b"".join(body)
        if not self.ordered:
            self.stream.write(b"%d\t" % number)
        self.stream.write(text)
        if not text.endswith(b"\n"):
            self.stream.write(b"\n")


class Submission:
    """Tasks on their way, and what came of them."""

    def __init__(
        self, client: Client, tasks: Input, output: Output, window: int, options: dict[str, Any], progress: Progress
    ) -> None:
        """Prepare to submit tasks with these options of `Client.submit`, at most `window` ahead of what is printed."""
        self.done = 0
        self.failed = 0
        self.cancelled = 0
        self._client = client
        self._tasks = tasks
        self._output = output
        self._options = options
        self._progress = progress
        self._room = threading.Semaphore(window)
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._outstanding: dict[int, Future[Any]] = {}
        self._is_cancelled = False  # and what is submitted from now on as well

    def run(self) -> None:
        """Submit everything and print every reply.

        Raises what reading or submitting raised, OSError for one, and ConnectionError when the client has given up.
        """
        threading.Thread(target=self._submit_all, daemon=True).start()
        early: dict[int, Outcome] = {}
        printed, total = 0, None
        while printed != total:
            outcome = self._next_outcome()
            if outcome.number == 0:
                if isinstance(outcome.result, Exception):
                    raise outcome.result
                total = outcome.result
                continue
            if isinstance(outcome.result, ConnectionError):  # no broker; and so it is with all the others
                raise outcome.result
            early[outcome.number] = outcome
            following = printed + 1 if self._output.ordered else outcome.number
            while following in early:
                self._print(early.pop(following))
                printed += 1
                following += 1
        self._output.stream.flush()

    def cancel(self) -> None:
        """Cancel all that has no reply yet, and submit nothing more."""
        self._is_cancelled = True
        for future in list(self._outstanding.values()):
            self.cancelled += future.cancel()

    def complain(self, text: str) -> None:
        """Print a line on stderr."""
        self._progress.clear(sys.stderr)
        print(text, file=sys.stderr, flush=True)

    def _submit_all(self) -> None:
        """Read and submit, in a thread of its own."""
        number = 0
        try:
            for number, (place, body) in enumerate(self._tasks.tasks(), 1):
                self._room.acquire()
                future = self._client.submit(body, **self._options)
                self._outstanding[number] = future
                if self._is_cancelled:  # while this one was being submitted
                    future.cancel()
                    return
                future.add_done_callback(_Notice(self._outcomes, number, place))
        except Exception as error:
            self._outcomes.put(Outcome(0, "", error))
        else:
            self._outcomes.put(Outcome(0, "", number))

    def _next_outcome(self) -> Outcome:
        """Wait for the next outcome; meanwhile, what was printed can be read."""
        if self._outcomes.empty():
            self._output.stream.flush()
        return self._outcomes.get()

    def _print(self, outcome: Outcome) -> None:
        """Print one outcome, and make room for another task."""
        del self._outstanding[outcome.number]
        self._room.release()
        if isinstance(outcome.result, BaseException):
            self.failed += 1
            reason = outcome.result.reason if isinstance(outcome.result, TaskFailed) else str(outcome.result)
            self.complain(f"{outcome.place}: {reason}")
        else:
            self.done += 1
            self._progress.clear(self._output.stream)
            self._output.write(outcome.number, outcome.result)
        self._progress.show(self.done, self.failed)


class Complaints(logging.Handler):
    """Has what the client logs printed as what a submission says itself."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(logging.WARNING)
        self._submission = submission

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        self._submission.complain(record.getMessage())


class _Notice:
    """What a future calls when it is done."""

    __slots__ = ("_number", "_outcomes", "_place")

    def __init__(self, outcomes: "SimpleQueue[Outcome]", number: int, place: str) -> None:
        self._outcomes, self._number, self._place = outcomes, number, place

    def __call__(self, future: "Future[Any]") -> None:
        if not future.cancelled():
            self._outcomes.put(Outcome(self._number, self._place, future.exception() or future.result()))


def _open(name: str) -> io.BufferedReader:
    """Open a file, or stdin without the buffer of sys.stdin, whose lock a thread may hold when Python ends."""
    return open(0, "rb", closefd=False) if name == STDIN else open(name, "rb")
