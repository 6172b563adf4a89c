"""The loop: one turn waits, receives, judges deadlines, hands out, and sends.

One turn waits for a message or the next deadline, reads a bounded number of messages from each readable socket, lets
the dispatcher expire what is overdue, hands tasks to idle workers and sends the replies that were decided. What to do
is decided in `dispatch`, what it looks like on the wire in `wire`; here it is received and sent.

Everything is sent without blocking. A ROUTER that is told ROUTER_MANDATORY says at the first frame whether the peer is
there (zmq_setsockopt(3)): a worker that is not costs nothing, a client that is not is counted.
"""

import logging
from collections.abc import Callable, Sized
from contextlib import suppress
from functools import partial
from math import ceil, inf
from time import monotonic
from typing import Any

import zmq

from zmqbroker import __version__, wire
from zmqbroker.broker.deadlines import Pause
from zmqbroker.broker.desk import Desk
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.handshakes import Handshakes
from zmqbroker.broker.report import Report
from zmqbroker.broker.shutdown import Shutdown
from zmqbroker.broker.sockets import Sockets
from zmqbroker.broker.task import Task
from zmqbroker.broker.traffic import READY, REQUESTS, RESULTS, Traffic
from zmqbroker.transport import descriptors
from zmqbroker.transport.messages import LINGER_MS, Inbox, send
from zmqbroker.transport.notify import ServiceManager
from zmqbroker.wire import EXPIRED, FAILED, HEADER, INVALID, PROGRESS, UNAVAILABLE, Frames, Header, announced, head

BATCH = 256  # messages read from one socket in one turn, at most, so that none starves the others
MOST_BATCHES = 10  # of results, read in one turn before deadlines are judged
STALL = 0.1  # seconds; a loop held up for longer than this may have results that came in time unread
QUIET_MS = 50  # a broker that leaves answers requests until none has come for so long
LOOK_INTERVAL = 1.0  # seconds between two looks whether there are any descriptors, and at how long turns took
LONGEST_WAIT = 60.0  # seconds of one poll; it also has an idle broker look for descriptors

LONG_RESULT = f"its result has more than {wire.MOST_FRAMES} frames"
WENT_WRONG = (FAILED, EXPIRED, INVALID, UNAVAILABLE)

log = logging.getLogger("zmqbroker")


class Loop:
    """Moves messages between the sockets and the dispatcher, until the broker has shut down."""

    def __init__(
        self, sockets: Sockets, dispatcher: Dispatcher, shutdown: Shutdown, max_waiting: int, max_size: int
    ) -> None:
        """Prepare the first turn; `max_waiting` is in tasks, `max_size` in bytes of a body, and 0 means no limit."""
        self._poller, self._alarm, self._workers = sockets.poller, sockets.alarm, sockets.workers
        self._requests, self._ready, self._results = sockets.requests, sockets.ready, sockets.results
        self._dispatcher = dispatcher
        self._now = monotonic()  # of this turn
        self._traffic = Traffic(dispatcher.counters, self._now)
        self._requests_in = self._traffic.watch(REQUESTS, Inbox(self._requests, BATCH, self._refuse_long))
        self._ready_in = self._traffic.watch(READY, Inbox(self._ready, BATCH, self._ignore_long))
        self._results_in = self._traffic.watch(RESULTS, Inbox(self._results, BATCH, self._lose_long))
        self._shutdown = shutdown
        self._max_waiting = max_waiting
        self._max_size = max_size
        self._report = Report()
        self._reading = True  # requests; not while the queue is full
        self._wait = 0.0  # seconds that this turn meant to wait at most
        self._polled: list[tuple[Any, int]] = []  # what was readable in this turn
        self._pause = Pause(self._now)
        self._next_look = self._now
        self._wake_by = self._now  # for that look, if for nothing else
        self._manager = ServiceManager()
        self._desk = None if sockets.control is None else self._open_desk(sockets)
        self._serve = self._servers(sockets)

    def run(self, manager: ServiceManager) -> None:
        """Take one turn after another until the broker has shut down, and answer whoever still waits then.

        `manager` hears that it goes on, and that it drains.
        """
        self._manager = manager
        shutdown, dispatcher = self._shutdown, self._dispatcher
        while shutdown.until is None or not shutdown.is_over(self._now, dispatcher.unsettled):
            self.turn()
        self._leave()
        self._report.flush(inf)

    def turn(self) -> None:
        """Take one turn."""
        self._polled = self._poller.poll(ceil(self._wait * 1000))
        expected, self._now = self._now + self._wait, monotonic()
        for readable, _ in self._polled:
            self._serve[readable]()
        self._judge_deadlines(held_up=self._now - expected > STALL)
        if self._dispatcher.has_news:
            self._tell_news()  # before a task that was lost has its next attempt
        self._hand_out()
        if self._dispatcher.progressed:
            self._send_progress()
        self._send_replies()
        if self._dispatcher.told:
            self._tell_workers()
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
            self._receive_results()
            self._receive_ready()
            if self._results_in.is_empty and self._ready_in.is_empty:
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
        end = self._shutdown.until
        if end is not None and due > end:
            due = end
        self._wait = due - self._now if due > self._now else 0.0

    def _look_around(self) -> None:
        """Do what is to be done from time to time, however much or little else there is.

        A service manager hears that the loop goes on, and the log says so while nobody can connect because there are
        no descriptors.
        """
        self._traffic.look(self._now)
        if self._manager.due <= self._now:
            self._manager.tell_alive(self._now)
        if not descriptors.is_any_left():
            self._report.no_descriptors(self._now)
        self._wake_by = min(self._now + LONGEST_WAIT, self._manager.due)
        self._next_look = min(self._now + LOOK_INTERVAL, self._manager.due)

    def _room(self) -> int:
        """Return how many requests may be read in a turn."""
        if not self._max_waiting or self._shutdown.is_draining:
            return BATCH
        return max(0, min(BATCH, self._max_waiting - self._dispatcher.waiting - self._dispatcher.delayed))

    # Receiving

    def _receive_requests(self) -> None:
        dispatcher = self._dispatcher
        for message in self._requests_in.batch(self._room()):
            try:
                envelope, body, header = wire.parse_request(message)
            except wire.MalformedRequestError as error:
                dispatcher.refuse(error.envelope, error.header, INVALID, str(error))
                continue
            size = sum(map(len, body)) if self._max_size else 0
            if size > self._max_size:
                why = f"a task of {size} bytes was refused: the limit is {self._max_size} bytes"
                dispatcher.refuse(envelope, header, FAILED, why)
            else:
                dispatcher.submit(envelope, body, self._now, header)
        self._traffic.charge(REQUESTS)

    def _receive_ready(self, is_lost: bool = False) -> None:
        """Read ready messages, and give up what workers had whose connections have dropped: see `liveness`."""
        dispatcher, workers, inbox = self._dispatcher, self._workers, self._ready_in
        received = [(message, None if workers.knows(message[0]) else inbox.frame) for message in inbox.batch(BATCH)]
        if is_lost or any(frame is not None for _, frame in received):
            for worker in workers.lost():
                dispatcher.lose_worker(worker, self._now)
            self._watch(workers.handshakes, "READY")
        for message, frame in received:
            has_left = frame is not None and workers.has_left(frame)
            if frame is not None and not has_left:
                for worker in workers.note(message[0], frame):
                    dispatcher.lose_worker(worker, self._now)
            try:
                if message[1] or len(message) < 3 or announced.is_word(message[2]):
                    self._hear(message)
                else:
                    dispatcher.ready(wire.parse_ready(message))
            except wire.MalformedError as error:
                self._count_malformed("ready", error)
            if has_left:
                dispatcher.lose_worker(message[0], self._now)
        self._traffic.charge(READY)

    def _watch(self, handshakes: Handshakes, where: str) -> None:
        """Say so when somebody has come to a socket and left before it said what it is."""
        for _ in handshakes.ended():
            pass
        if handshakes.failed():
            self._report.stranger(where, self._now)

    def _hear(self, message: Frames) -> None:
        """Take in what a worker says on READY that is not just that a plain one is ready: a word, or an announce."""
        if not message[1] and len(message) > 2:
            word = announced.parse_word(message[2])
            if word is not None:
                self._obey_word(message[0], word, message[3:])
                return
            if self._dispatcher.has_announced(message[0]):
                raise wire.MalformedError(f"an unknown word: {head(message[2], 20)!r}")
        elif announced.has_header(message):
            self._welcome(message)
            return
        self._dispatcher.ready(wire.parse_ready(message))

    def _welcome(self, message: Frames) -> None:
        """Take in an announce, or say what is wrong with what should be one."""
        try:
            announce, attempt_ids = announced.parse_announce(message)
        except wire.MalformedRequestError as error:
            self._count_malformed("ready", error)
            send(self._ready, announced.refusal_message(error))
            return
        if send(self._ready, announced.welcome_message(message[0], __version__)):  # else it is gone, and known to be so
            self._dispatcher.announce(message[0], announce, attempt_ids, self._now)

    def _obey_word(self, worker: Sized, word: announced.Word, argument: Frames) -> None:
        """Do what a worker says by a word; one that has not announced itself asks for nothing by it."""
        dispatcher, verb, attempt_id = self._dispatcher, word.verb, word.attempt_id
        if verb in announced.OUTCOMES:
            dispatcher.answered(worker, attempt_id, word.asks, self._now)
        if verb == announced.DONE:
            dispatcher.result(attempt_id, argument or [wire.EMPTY], self._now)
        elif verb == announced.READY:
            dispatcher.ask(worker, word.asks)
        elif verb == announced.WITHDRAW:
            dispatcher.withdraw(worker, word.asks)
        elif verb == announced.PROGRESS:
            dispatcher.progress(attempt_id, announced.parse_said(argument))
        else:
            self._obey(wire.parse_verb([wire.EMPTY, verb, attempt_id, *argument]))

    def _receive_results(self) -> None:
        for message in self._results_in.batch(BATCH):
            try:
                if wire.is_verb(message):
                    self._obey(wire.parse_verb(message))
                else:
                    self._dispatcher.result(message[0], message[1:], self._now)
            except wire.MalformedError as error:
                self._count_malformed("results", error)
        self._traffic.charge(RESULTS)

    def _refuse_long(self, start: Frames) -> None:
        error = wire.parse_start(start)
        self._dispatcher.refuse(error.envelope, error.header, INVALID, str(error))

    def _ignore_long(self, start: Frames) -> None:
        self._count_malformed("ready", wire.MalformedError(f"a message of more than {wire.MOST_FRAMES} frames"))
        if len(start[1]) or head(start[2], len(HEADER)) != HEADER:
            return
        with suppress(wire.MalformedError):  # that is counted
            word = announced.parse_word(start[2])
            if word is not None and word.verb == announced.DONE:
                self._dispatcher.answered(start[0], word.attempt_id, word.asks, self._now)
                self._dispatcher.fail(word.attempt_id, LONG_RESULT, self._now)

    def _lose_long(self, start: Frames) -> None:
        if wire.is_verb(start):
            self._count_malformed("results", wire.MalformedError(f"a message of more than {wire.MOST_FRAMES} frames"))
        else:
            self._dispatcher.fail(start[0], LONG_RESULT, self._now)

    def _obey(self, verb: wire.Verb) -> None:
        dispatcher = self._dispatcher
        if verb.name == wire.FAIL:
            dispatcher.fail(verb.attempt_id, verb.reason, self._now)
        elif verb.name == wire.REJECT:
            dispatcher.reject(verb.attempt_id, verb.reason, self._now)
        elif verb.name == wire.RELEASE:
            dispatcher.release(verb.attempt_id, self._now)
        else:
            dispatcher.touch(verb.attempt_id, verb.seconds, self._now)

    def _servers(self, sockets: Sockets) -> dict[Any, Callable[[], None]]:
        """Return what to do when something is readable, for all that the poller waits for."""
        serve: dict[Any, Callable[[], None]] = {
            self._alarm.fileno(): self._hear_stop,  # first: what was sent after `stop` was called is no task
            self._results: self._receive_results,
            self._requests: self._receive_requests,
            self._ready: self._receive_ready,
            self._workers.monitor: partial(self._receive_ready, is_lost=True),
        }
        for where, watched in sockets.watched.items():
            serve[watched.fileno()] = partial(self._watch, watched, where)
        if self._desk is not None:
            serve[self._desk.socket] = partial(self._answer_questions, self._desk)
        return serve

    def _open_desk(self, sockets: Sockets) -> Desk:
        count_malformed = partial(self._count_malformed, "control")
        return Desk(sockets, self._dispatcher, self._shutdown, self._traffic, self._drain, count_malformed)

    def _answer_questions(self, desk: Desk) -> None:
        """Answer some where that is due, or nothing else is to be done."""
        if len(self._polled) == 1 or desk.due <= self._now:
            desk.serve(self._now)

    def _drain(self) -> None:
        """Begin to drain, as a first `stop` does."""
        if not self._shutdown.is_draining:
            self._alarm.ring()

    def _hear_stop(self) -> None:
        """Heed each `stop` that was called; signals only wake the loop."""
        unsettled = self._dispatcher.unsettled
        was_draining = self._shutdown.is_draining
        for _ in range(self._alarm.hear()):
            if unsettled and not self._shutdown.is_draining:
                log.info("draining: %d tasks to finish, for up to %g s", unsettled, self._shutdown.drain)
            self._shutdown.stop(self._now)
            self._dispatcher.stop_accepting("the broker is shutting down")
        if self._shutdown.is_draining and not was_draining:
            self._manager.tell_stopping(self._now)

    # Sending

    def _hand_out(self) -> None:
        dispatcher = self._dispatcher
        while (pair := dispatcher.hand_out(self._now)) is not None:
            envelope, task = pair
            if self._report.is_verbose:
                self._report.attempt(task)
            message = wire.task_message(envelope, task.attempt_id, task.body)
            announce = task.worker.announce
            if announce is not None and announce.headers:
                message.insert(len(envelope), _about(task))
            if not send(self._ready, message):
                dispatcher.take_back(task, self._now)

    def _send_replies(self) -> None:
        settled = self._dispatcher.settled
        for task in settled:
            if task.status in WENT_WRONG and not _is_late_cancel(task):
                self._report.failure(task, self._now)
            elif self._report.is_verbose:
                self._report.outcome(task)
            if task.joined:
                self._send_to_all(task)
            elif not send(self._requests, _reply(task, task.envelope, task.header)):
                self._note_undelivered(task, [task.envelope])
            task.envelope = task.body = []  # they may be large, and a queue may hold the task on as a stale entry
        settled.clear()

    def _send_to_all(self, task: Task) -> None:
        """Send the reply to all who wait for it."""
        missed = [
            envelope for envelope, header in task.waiters if not send(self._requests, _reply(task, envelope, header))
        ]
        self._note_undelivered(task, missed)

    def _note_undelivered(self, task: Task, envelopes: list[Frames]) -> None:
        """Note who was not there to get a reply; it is undeliverable when nobody was."""
        for envelope in envelopes:
            self._dispatcher.undelivered(task, envelope[0])
        if len(envelopes) == len(task.waiters):
            self._dispatcher.counters.undeliverable += 1
            self._report.undeliverable(self._now)

    def _send_progress(self) -> None:
        """Tell those who want to know how far their tasks have come; who does not read that misses it."""
        progressed = self._dispatcher.progressed
        for task, progress in progressed.items():
            for envelope, header in task.waiters:
                if header is not None and header.progress:
                    about = wire.reply_header(header.key, PROGRESS, task.attempts, "", task.number, header.id)
                    send(self._requests, wire.reply_message([*envelope, about], [progress]))
        progressed.clear()

    def _tell_workers(self) -> None:
        told = self._dispatcher.told
        for worker_id, verb, what in told:
            send(self._ready, announced.told_message(worker_id, verb, what))  # one that is gone has been told enough
        told.clear()

    def _tell_news(self) -> None:
        """Log what the dispatcher has noticed by itself."""
        dispatcher, report = self._dispatcher, self._report
        for worker, has_come in dispatcher.moves:
            (report.came if has_come else report.left)(worker, self._now)
        for task, pause in dispatcher.lost:
            report.lost(task, pause)
        for record in dispatcher.held_back:
            report.held_back(record, self._now)
        for queue in dispatcher.unserved:
            report.unserved(queue, self._now)
        for news in (dispatcher.moves, dispatcher.lost, dispatcher.held_back, dispatcher.unserved):
            news.clear()

    def _count_malformed(self, where: str, error: wire.MalformedError) -> None:
        self._dispatcher.counters.malformed += 1
        self._report.malformed(where, error, self._now)

    def _leave(self) -> None:
        """Answer whoever still waits: what was accepted, and what lies unread."""
        self._now = monotonic()
        self._dispatcher.abandon("the broker was shut down", self._now)
        self._send_replies()
        until = self._now + LINGER_MS / 1000
        while self._requests.poll(QUIET_MS) and monotonic() < until:
            self._receive_requests()
            self._send_replies()


def _is_late_cancel(task: Task) -> bool:
    """Tell a cancel that has crossed with its task's reply: its sender is told, and there is nothing wrong."""
    return task.header is not None and task.header.cancel and task.status is INVALID


def _reply(task: Task, envelope: Frames, header: Header | None) -> Frames:
    if header is None:
        return wire.reply_message(envelope, task.body)
    about = wire.reply_header(header.key, task.status, task.attempts, task.reason, task.number or None, header.id)
    return wire.reply_message([*envelope, about], task.body)


def _about(task: Task) -> bytes:
    """Return what a task tells a worker about itself."""
    return announced.task_header(task.number, task.key, task.queue.name, task.attempt, task.tries, task.timeout)
