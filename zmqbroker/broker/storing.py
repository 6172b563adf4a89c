"""Storing: what a turn decides about durable tasks goes to the store, and what follows from it is sent afterwards."""

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from time import monotonic, time

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.store.gate import Finished, Store, StoreError
from zmqbroker.broker.store.journal import STORE_FAILED, UNSTORED, HandOut, Turn
from zmqbroker.broker.store.rows import DamagedTask
from zmqbroker.transport.limited_log import printable
from zmqbroker.wire import DONE

LOAD_INTERVAL = 3.0  # seconds between two words of how much was read, at a start
LOOK_INTERVAL = 1.0  # seconds between two looks at the disk
TIDY_INTERVAL = 0.02  # seconds between two pieces of what is given back, while nothing else is to be done
DAMAGED_NAMED = 20  # damaged tasks that the log names, at a start

log = logging.getLogger("zmqbroker")


class Storing:
    """Has the decisions of each turn stored."""

    def __init__(self, store: Store, dispatcher: Dispatcher, send: Callable[[HandOut, float], None]) -> None:
        """Begin; `send` gives a worker its task."""
        self._store = store
        self._dispatcher = dispatcher
        self._journal = dispatcher.journal
        self._send = send
        self._pending: deque[Turn] = deque()  # being stored, the first first
        self.due = 0.0  # when there is something to do by itself
        self._next_look = 0.0
        self._is_tidy = False
        self.failure: StoreError | None = None  # the store's, after which nothing is stored; None: it has not failed

    @property
    def has_news(self) -> bool:
        """Tell whether something is to be stored, as it was decided after the last turn was."""
        return self._journal.has_news

    def load(self, now: float, is_over: Callable[[], bool]) -> None:
        """Take in all that is stored, or as much as there is time for until `is_over`; raises StoreError."""
        store, dispatcher = self._store, self._dispatcher
        self._journal.offset = time() - now
        self._journal.is_whole = False
        damaged: list[DamagedTask] = []
        next_word = now + LOAD_INTERVAL
        with _without_garbage():
            for some in store.load():
                damaged += dispatcher.restore(some, store.has_ended_well, now)
                if is_over():
                    return
                if monotonic() >= next_word:
                    log.info("reading the store: %d tasks and %d outcomes so far", *self._read_so_far)
                    next_word = monotonic() + LOAD_INTERVAL
        self._journal.is_whole = True
        for task in damaged[:DAMAGED_NAMED]:
            log.warning("task %d%s is damaged in the store, and left there", task.number, _called(task))
        if len(damaged) > DAMAGED_NAMED:
            log.warning("%d more tasks are damaged in the store", len(damaged) - DAMAGED_NAMED)
        tasks, outcomes = self._read_so_far
        if tasks or outcomes:
            log.info("%d tasks and %d outcomes were in the store; read in %.1f s", tasks, outcomes, monotonic() - now)

    @property
    def _read_so_far(self) -> tuple[int, int]:
        return self._dispatcher.unsettled, len(self._journal.outcomes)

    def tell_left(self) -> None:
        """Have the log say how many tasks wait in the store for the next broker."""
        left = sum(task.is_durable for task in self._dispatcher.ledger)
        if not self._journal.is_whole:
            log.info("tasks are left in the store, which was not read to its end")
        elif left:
            log.info("%d tasks are left in the store, for when the broker is started again", left)

    def turn(self, now: float) -> None:
        """Begin to store what this turn has decided, and send what follows from what is stored."""
        has_news = self._journal.has_news
        if not (has_news or self._pending):
            return
        if self.failure is not None:
            self._give_up()
            return
        with self._failing():
            if has_news:
                turn = self._journal.take()
                self._pending.append(turn)
                self._is_tidy = False
                self._store.start(turn.batch)
            for finished in self._store.finished():
                self._finish(finished, self._pending.popleft(), now)

    def look(self, now: float, is_idle: bool) -> None:
        """See what is free on the disk, once a second; while nothing else is to be done, tidy up."""
        if self.failure is not None:
            return
        with self._failing():
            if now >= self._next_look:
                self._journal.offset = time() - now
                self._store.look()
                self._note_room(self._store.is_low)
                self._next_look = now + LOOK_INTERVAL
            if is_idle and not self._is_tidy:
                self._is_tidy = not self._store.tidy()
        self.due = self._next_look if self._is_tidy else now + TIDY_INTERVAL

    def _note_room(self, is_low: bool) -> None:
        """Take in new tasks or not, as the disk has room for them; the log says so when that changes."""
        journal = self._journal
        free, floor, path = self._store.free, self._store.floor, printable(self._store.path)
        if is_low and not journal.is_low:
            text = "new tasks are not stored: %d bytes are free on the disk of %s, and %d are to be"
            log.warning(text, free, path, floor)
        elif journal.is_low and not is_low:
            log.info("new tasks are stored again: %d bytes are free on the disk of %s", free, path)
        journal.is_low = is_low

    def _finish(self, finished: Finished, turn: Turn, now: float) -> None:
        """Send what follows from a turn that is stored, but for what was not stored of it."""
        dispatcher = self._dispatcher
        if finished.refused:
            dispatcher.unstore(finished.refused, now)
            for reply in chain(turn.replies, *(later.replies for later in self._pending)):
                if reply.number in finished.refused:
                    dispatcher.recall(reply, UNSTORED)
        for reply in turn.replies:
            if reply.status is DONE and reply.number in finished.unfit:
                dispatcher.spoil(reply, finished.unfit[reply.number])
        for hand_out in turn.hand_outs:
            self._send(hand_out, now)
        dispatcher.settled.extend(turn.replies)
        for number, found in finished.found.items():
            for tell in turn.wanted[number]:
                tell(found)
        for then in turn.then:
            then()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Note a failure of the store; what was not stored then is given up."""
        try:
            yield
        except StoreError as error:
            self.failure = error
            self._give_up()

    def _give_up(self) -> None:
        """Tell who waits for what is not stored to send it again."""
        dispatcher = self._dispatcher
        self._journal.has_failed = True
        self._pending.append(self._journal.take())
        for turn in self._pending:
            for reply in turn.replies:
                dispatcher.recall(reply, STORE_FAILED)
            dispatcher.settled.extend(turn.replies)
            for callers in turn.wanted.values():
                for tell in callers:
                    tell(None)
            for then in turn.then:
                then()
        self._pending.clear()


def _called(task: DamagedTask) -> str:
    """Return the key of a damaged task for the log; empty: it cannot be read."""
    return "" if task.key is None else f" ({printable(task.key)})"


@contextmanager
def _without_garbage() -> Iterator[None]:
    """Have Python look for no garbage meanwhile: all that is made here stays, and looking at it takes as long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
