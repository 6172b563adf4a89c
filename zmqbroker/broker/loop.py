"""The loop: one turn waits, receives, judges deadlines, hands out, and sends.

One turn waits for a message or the next deadline, reads a bounded number of messages from each readable socket, lets
the dispatcher expire what is overdue, hands tasks to idle workers and sends the replies that were decided. How this is
done is in `receiving` and `sending`, and what to do is decided in `dispatch`.
"""

import logging
from collections.abc import Callable
from functools import partial
from math import ceil, inf
from time import monotonic
from typing import Any

import zmq

from zmqbroker.broker.admission import Admission
from zmqbroker.broker.deadlines import Pause
from zmqbroker.broker.desk import Desk
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.garbage import Garbage
from zmqbroker.broker.receiving import BATCH, Receiver
from zmqbroker.broker.report import Report
from zmqbroker.broker.sending import Sender
from zmqbroker.broker.shutdown import Shutdown
from zmqbroker.broker.sockets import Sockets
from zmqbroker.broker.store.gate import Store
from zmqbroker.broker.store.journal import STORE_FAILED
from zmqbroker.broker.storing import Storing
from zmqbroker.broker.traffic import CONTROL, Traffic
from zmqbroker.transport import descriptors
from zmqbroker.transport.messages import LINGER_MS
from zmqbroker.transport.notify import ServiceManager

MOST_BATCHES = 10  # of results, read in one turn before deadlines are judged
STALL = 0.1  # seconds; a loop held up for longer than this may have results that came in time unread
QUIET_MS = 50  # a broker that leaves answers requests until none has come for so long
LOOK_INTERVAL = 1.0  # seconds between two looks whether there are any descriptors, and at how long turns took
LONGEST_WAIT = 60.0  # seconds of one poll; it also has an idle broker look for descriptors

log = logging.getLogger("zmqbroker")


class Loop:
    """Moves messages between the sockets and the dispatcher, until the broker has shut down."""

    def __init__(
        self,
        sockets: Sockets,
        dispatcher: Dispatcher,
        shutdown: Shutdown,
        max_waiting: int,
        max_size: int,
        store: Store | None,
        admission: Admission | None,
    ) -> None:
        """Prepare the first turn; `max_waiting` is in tasks, `max_size` in bytes of a body, and 0 means no limit.

        `store` None: there is none; `admission` None: everybody may come in and speak.
        """
        self._poller, self._alarm, self._requests = sockets.poller, sockets.alarm, sockets.requests
        self._dispatcher = dispatcher
        self._now = monotonic()  # of this turn
        self._traffic = Traffic(dispatcher.counters, self._now)
        self._shutdown = shutdown
        self._max_waiting = max_waiting
        self._admission = admission
        self._report = Report() if admission is None else admission.report
        self._receiver = Receiver(sockets, dispatcher, self._traffic, self._report, max_size, admission)
        self._sender = Sender(sockets, dispatcher, self._report)
        self._storing = None if store is None else Storing(store, dispatcher, self._sender.send_stored)
        self._reading = True  # requests; not while the queue is full
        self._wait = 0.0  # seconds that this turn meant to wait at most
        self._polled: list[tuple[Any, int]] = []  # what was readable in this turn
        self._pause = Pause(self._now)
        self._next_look = self._now
        self._longest_wait = LONGEST_WAIT if admission is None else LOOK_INTERVAL
        self._wake_by = self._now  # for that look, if for nothing else
        self._manager = ServiceManager()
        self._garbage: Garbage | None = None
        self._desk = None if sockets.control is None else self._open_desk(sockets, store)
        self._serve = self._servers(sockets)

    def run(self, manager: ServiceManager, owns_process: bool) -> None:
        """Take one turn after another until the broker has shut down, and answer whoever still waits then.

        `manager` hears that it goes on, and that it drains. Where the process is the broker's own, `owns_process`, it
        says when Python collects garbage. Raises StoreError when the store has failed, which is the end as well.
        """
        self._manager = manager
        self._garbage = Garbage(self._now) if owns_process else None
        shutdown, dispatcher = self._shutdown, self._dispatcher
        while shutdown.until is None or not shutdown.is_over(self._now, dispatcher.unsettled):
            self.turn()
        self._leave()
        self._report.flush(inf)
        if self._storing is not None and self._storing.failure is not None:
            raise self._storing.failure

    def load(self) -> None:
        """Take in what the store has, if there is one, unless the broker is told to end; raises StoreError."""
        if self._storing is not None:
            self._now = monotonic()
            self._storing.load(self._now, self._is_told_to_end)
            self._now = monotonic()

    def _is_told_to_end(self) -> bool:
        self._hear_stop(monotonic())
        return self._shutdown.is_draining

    def turn(self) -> None:
        """Take one turn."""
        self._polled = self._poller.poll(ceil(self._wait * 1000))
        expected, self._now = self._now + self._wait, monotonic()
        for readable, _ in self._polled:
            self._serve[readable](self._now)
        self._judge_deadlines(held_up=self._now - expected > STALL)
        dispatcher, sender = self._dispatcher, self._sender
        if dispatcher.has_news:
            sender.tell_news(self._now)  # before a task that was lost has its next attempt
        sender.hand_out(self._now)
        if self._storing is not None:
            self._store(self._storing)
        if dispatcher.progressed:
            sender.send_progress()
        sender.send_replies(self._now)
        if dispatcher.told:
            sender.tell_workers()
        if self._next_look <= self._now:
            self._look_around()
        if self._report.due <= self._now:
            self._report.flush(self._now)
        self._plan_next_turn()
        spent, traffic = monotonic() - self._now, self._traffic
        traffic.busy += spent
        if spent > traffic.longest:
            traffic.longest = spent

    def _judge_deadlines(self, held_up: bool) -> None:
        """Give up what is overdue, but not before the results that came in time have been read."""
        due = self._dispatcher.next_due()
        if due is None:
            return
        if due <= self._now:
            held_up |= not self._read_all_results()
        if held_up:
            self._pause.begin(due, self._now)
        if self._now >= self._pause.until:
            self._dispatcher.expire(self._now)

    def _read_all_results(self) -> bool:
        """Read results, by both sockets, until there are no more, up to a bound; False when the bound was met."""
        for _ in range(MOST_BATCHES):
            self._receiver.receive_results(self._now)
            self._receiver.receive_ready(self._now)
            if self._receiver.has_all_results:
                return True
        return False

    def _plan_next_turn(self) -> None:
        """Decide whether the next turn reads requests, and how long it may wait."""
        reading = self._room() > 0
        if reading != self._reading:
            self._poller.modify(self._requests, zmq.POLLIN if reading else 0)
            self._reading = reading
        due = self._dispatcher.next_due()
        if due is None or due > self._wake_by:
            due = self._wake_by
        if due < self._pause.until:
            due = self._pause.until
        if due > self._report.due:
            due = self._report.due
        if self._storing is not None:
            due = self._now if self._storing.has_news else min(due, self._storing.due)
        end = self._shutdown.until
        if end is not None and due > end:
            due = end
        self._wait = due - self._now if due > self._now else 0.0

    def _look_around(self) -> None:
        """Do what is to be done from time to time, however much or little else there is.

        A service manager hears that the loop goes on, garbage is collected, whoever is not authorized any more is cut
        off, and the log says so while nobody can connect because there are no descriptors.
        """
        self._traffic.look(self._now)
        if self._admission is not None and self._admission.look():
            self._receiver.turn_out(self._now)
        if self._garbage is not None:
            self._garbage.collect_if_due(self._dispatcher.unsettled, self._now)
        if self._manager.due <= self._now:
            self._manager.tell_alive(self._now)
        if not descriptors.is_any_left():
            self._report.no_descriptors(self._now)
        self._wake_by = min(self._now + self._longest_wait, self._manager.due)
        self._next_look = min(self._now + LOOK_INTERVAL, self._manager.due)

    def _room(self) -> int:
        """Return how many requests may be read in a turn."""
        if not self._max_waiting or self._shutdown.is_draining:
            return BATCH
        return max(0, min(BATCH, self._max_waiting - self._dispatcher.waiting - self._dispatcher.delayed))

    def _servers(self, sockets: Sockets) -> dict[Any, Callable[[float], None]]:
        """Return what to do, at an instant, when something is readable, for all that the poller waits for."""
        receiver = self._receiver
        serve: dict[Any, Callable[[float], None]] = {
            self._alarm.fileno(): self._hear_stop,  # first: what was sent after `stop` was called is no task
            sockets.results: receiver.receive_results,
            sockets.requests: self._receive_requests,
            sockets.ready: receiver.receive_ready,
            sockets.workers.monitor: partial(receiver.receive_ready, is_lost=True),
        }
        for where, watched in sockets.watched.items():
            told = where.upper() if sockets.tells_of(where) else None
            serve[watched.fileno()] = partial(receiver.watch, watched, told)
        if sockets.zap is not None and self._admission is not None:
            serve[sockets.zap] = self._admission.judge
        if self._desk is not None:
            serve[self._desk.socket] = partial(self._answer_questions, self._desk)
        return serve

    def _receive_requests(self, now: float) -> None:
        self._receiver.receive_requests(self._room(), now)

    def _open_desk(self, sockets: Sockets, store: Store | None) -> Desk:
        count_malformed = partial(self._receiver.count_malformed, CONTROL)
        return Desk(
            sockets,
            self._dispatcher,
            self._shutdown,
            self._traffic,
            self._drain,
            store,
            count_malformed,
            self._admission,
        )

    def _answer_questions(self, desk: Desk, now: float) -> None:
        """Answer some where that is due, or nothing else is to be done."""
        if len(self._polled) == 1 or desk.due <= now:
            desk.serve(now)

    def _drain(self) -> None:
        """Begin to drain, as a first `stop` does."""
        if not self._shutdown.is_draining:
            self._alarm.ring()

    def _hear_stop(self, now: float) -> None:
        """Heed each `stop` that was called; signals only wake the loop."""
        unsettled = self._dispatcher.unsettled
        was_draining = self._shutdown.is_draining
        for _ in range(self._alarm.hear()):
            if unsettled and not self._shutdown.is_draining:
                log.info("draining: %d tasks to finish, for up to %g s", unsettled, self._shutdown.drain)
            self._shutdown.stop(now)
            self._dispatcher.stop_accepting("the broker is shutting down")
        if self._shutdown.is_draining and not was_draining:
            self._manager.tell_stopping(now)

    def _store(self, storing: Storing) -> None:
        """Have stored what was decided; a store that cannot do it is the end."""
        storing.turn(self._now)
        if storing.due <= self._now:
            storing.look(self._now, is_idle=not self._polled)
        if storing.failure is not None:
            self._shutdown.end(self._now)

    def _leave(self) -> None:
        """Answer whoever still waits: what was accepted, and what lies unread."""
        self._now = monotonic()
        has_failed = self._storing is not None and self._storing.failure is not None
        reason = STORE_FAILED if has_failed else "the broker was shut down"
        self._dispatcher.stop_accepting(reason)
        if self._storing is not None and not has_failed:
            self._storing.tell_left()
        self._dispatcher.abandon(reason, self._now)
        self._send_last()
        until = self._now + LINGER_MS / 1000
        while self._requests.poll(QUIET_MS) and monotonic() < until:
            self._receive_requests(self._now)
            self._send_last()

    def _send_last(self) -> None:
        """Send what was decided, and is stored if it is to be."""
        while self._storing is not None and self._storing.has_news:
            self._storing.turn(self._now)
        self._sender.send_replies(self._now)
