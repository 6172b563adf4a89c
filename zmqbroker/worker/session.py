"""What a worker asks for, has, and says: all of it but the socket and the clock.

A worker has *asked* for so many tasks, *has* tasks that lie behind the one *in hand*, and says what came of each with
how many it asks for in addition. It asks ahead by itself: for as many tasks as take ASK_AHEAD, from 1 to MOST_ASKED,
or for a fixed number.

A connection may be lost at any time, with what was sent last. So outcomes are kept, as many as it may have tasks, and
said again by the next one; what was asked for is forgotten with it. What is not done yet is named there. What the
broker drops is given back, unless it has begun.
"""

from collections import deque
from math import inf

from zmqbroker.wire import RELEASE, TOUCH, Frames
from zmqbroker.wire.announced import (
    CANCEL,
    DROP,
    MOST_ASKED,
    PROGRESS,
    READY,
    WITHDRAW,
    WITHDRAWN,
    Given,
    Word,
    counted_message,
    named_message,
    outcome_message,
)

ASK_AHEAD = 0.005  # seconds of work that it has, or has asked for
MEMORY = 8  # tasks that the mean time of a task goes back, roughly
LARGEST_KEPT = 65536  # bytes of an outcome that is kept to be said again
PROGRESS_INTERVAL = 0.1  # seconds between two messages of progress


class Session:
    """The tasks of one worker. What it returns is to be sent, in order."""

    def __init__(self, slots: int | None) -> None:
        """Begin with nothing. `slots` is how many tasks it may have or ask for; None: what is sensible."""
        self.asked = 0  # tasks that may come
        self.in_hand: Given | None = None
        self.tasks: deque[Given] = deque()  # that lie behind, to be begun
        self.begun_at = 0.0  # when the last task was taken in hand
        self.is_welcome = False  # the broker has answered the announce on this connection
        self.is_cancelled = False  # what is in hand: nobody wants it any more
        self.is_stopping = False
        self.has_unsaid = False  # there are outcomes that no connection has been given
        self._slots = slots
        self._goal = 1 if slots is None else slots
        self._mean = ASK_AHEAD
        self._kept: deque[tuple[bytes, bytes, Frames]] = deque(maxlen=slots or MOST_ASKED)
        self._once: list[tuple[bytes, bytes, Frames]] = []  # outcomes that are said by the next connection only
        self._touch: bytes | None = None  # asked for while there was no connection
        self._progress: bytes | None = None  # not said yet
        self._progress_at = 0.0  # not before this instant

    # The connection

    def held(self) -> list[bytes]:
        """Return the ids of the attempts that are not done, for an announce."""
        in_hand = [] if self.in_hand is None else [self.in_hand]
        return [task.attempt_id for task in (*in_hand, *self.tasks)]

    def disconnect(self) -> None:
        """Note that the connection is lost, with all that was asked for."""
        self.asked = 0
        self.is_welcome = False

    def welcome(self) -> list[Frames]:
        """Note that the broker knows this worker: say what may have been lost, and ask."""
        self.is_welcome = True
        self.has_unsaid = False
        said = [outcome_message(verb, 0, attempt_id, argument) for verb, attempt_id, argument in self._kept]
        said += [outcome_message(verb, 0, attempt_id, argument) for verb, attempt_id, argument in self._once]
        self._once.clear()
        if self._touch is not None and self.in_hand is not None:
            said.append(named_message(TOUCH, self.in_hand.attempt_id, self._touch))
        self._touch = None
        asks = max(0, self._room())
        self.asked += asks
        return said + _counted(READY, asks)

    # What comes

    def receive(self, told: Given | Word) -> list[Frames]:
        """Take in a task, or what the broker says of one or of what was asked for."""
        if isinstance(told, Given):
            if self.asked:
                self.asked -= 1
            if self.is_stopping:
                return [outcome_message(RELEASE, 0, told.attempt_id, [])]
            self.tasks.append(told)
        elif told.verb == WITHDRAWN:
            self.asked = max(0, self.asked - told.asks)
        elif told.verb in (DROP, CANCEL):
            return self._give_up(told)
        return []

    def _give_up(self, told: Word) -> list[Frames]:
        if self.in_hand is not None and self.in_hand.attempt_id == told.attempt_id:
            self.is_cancelled = self.is_cancelled or told.verb == CANCEL
            return []
        for number, task in enumerate(self.tasks):
            if task.attempt_id == told.attempt_id:
                del self.tasks[number]
                asks = self._ask() if self.in_hand is None else 0  # not behind a task that takes long
                return [outcome_message(RELEASE, asks, told.attempt_id, [])]
        return []

    # Tasks

    def begin(self, now: float) -> Given:
        """Take the next task in hand."""
        self.is_cancelled = False
        self._progress = self._touch = None
        self.begun_at = now
        self.in_hand = self.tasks.popleft()  # at last: the keeper looks at both without a lock
        return self.in_hand

    def finish(self, verb: bytes, argument: Frames, now: float) -> Frames | None:
        """Say what came of the task in hand, and ask for more; None: that is said by the next connection."""
        task, self.in_hand = self.in_hand, None
        if task is None:
            raise RuntimeError("there is no task in hand")
        if self._slots is None:
            self._learn(now - self.begun_at)
        attempt_id = task.attempt_id
        size = len(argument[0]) if len(argument) == 1 else sum(map(len, argument))
        if size <= LARGEST_KEPT:
            self._kept.append((verb, attempt_id, argument))
        elif not self.is_welcome:
            self._once.append((verb, attempt_id, argument))
        if self.is_welcome:
            return outcome_message(verb, self._ask(), attempt_id, argument)
        self.has_unsaid = True
        return None

    def touch(self, argument: bytes) -> Frames | None:
        """Ask for more time for the task in hand; None: there is nothing to be sent now."""
        if self.in_hand is None:
            return None
        if self.is_welcome:
            return named_message(TOUCH, self.in_hand.attempt_id, argument)
        self._touch = argument
        return None

    def progress(self, text: bytes) -> None:
        """Note how far the task in hand has come; the last word counts."""
        if self.in_hand is not None:
            self._progress = text

    def progress_due(self) -> float:
        """Return when `say_progress` has something to say; inf: not before there is more."""
        return inf if self._progress is None or not self.is_welcome else self._progress_at

    def say_progress(self, now: float) -> Frames | None:
        """Say how far the task in hand has come, if that is due."""
        if now < self.progress_due() or self.in_hand is None or self._progress is None:
            return None
        text, self._progress = self._progress, None
        self._progress_at = now + PROGRESS_INTERVAL
        return named_message(PROGRESS, self.in_hand.attempt_id, text)

    def stop(self) -> list[Frames]:
        """Ask for nothing any more: take back what was asked for, and give back what lies behind."""
        self.is_stopping = True
        tasks, self.tasks = self.tasks, deque()
        if not self.is_welcome:  # an announce that names them may be on its way
            self._once += [(RELEASE, task.attempt_id, []) for task in tasks]
            self.has_unsaid = self.has_unsaid or bool(tasks)
            return []
        released = [outcome_message(RELEASE, 0, task.attempt_id, []) for task in tasks]
        return [*_counted(WITHDRAW, self.asked), *released]

    # How many

    def _learn(self, spent: float) -> None:
        """Note how long a task took."""
        mean = self._mean = self._mean + (spent - self._mean) / MEMORY
        self._goal = MOST_ASKED if mean * MOST_ASKED <= ASK_AHEAD else max(1, int(ASK_AHEAD / mean))

    def _room(self) -> int:
        """Return how many more tasks it may ask for."""
        if self.is_stopping or not self.is_welcome:
            return 0
        return self._goal - self.asked - len(self.tasks) - (self.in_hand is not None)

    def _ask(self) -> int:
        """Return how many tasks are asked for now; what is not sent with this message is with the next one."""
        asks = self._room()
        if asks <= 0:
            return 0
        if asks > MOST_ASKED:
            asks = MOST_ASKED
        self.asked += asks
        return asks


def _counted(verb: bytes, number: int) -> list[Frames]:
    """Build what asks for so many tasks, or takes that back."""
    return [counted_message(verb, min(number - said, MOST_ASKED)) for said in range(0, number, MOST_ASKED)]
