"""The broker: three sockets, one poll loop.

One turn of the loop waits for a message or the next deadline, reads a bounded number of messages from each
readable socket, lets the dispatcher expire what is overdue, hands tasks to idle workers and sends the replies
that were decided. What to do is decided in `dispatch`, what it looks like on the wire in `wire`; here it is
received and sent.

Everything is sent without blocking. A ROUTER that is told ROUTER_MANDATORY says at the first frame whether the
peer is there (zmq_setsockopt(3)): a worker that is not costs nothing, a client that is not is counted.
"""

import logging
import os
import threading
from contextlib import ExitStack
from dataclasses import asdict
from math import ceil
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import zmq

from zmqbroker import wire
from zmqbroker.broker.dispatch import DEFAULT_TRIES, Dispatcher
from zmqbroker.broker.liveness import Connections
from zmqbroker.broker.task import Task
from zmqbroker.transport import descriptors
from zmqbroker.transport.alarm import Alarm, ctrl_c_calls
from zmqbroker.transport.binding import LONGEST_HEARTBEAT, SocketOptions, bind, open_socket
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.limited_log import LimitedLog, printable
from zmqbroker.transport.messages import LINGER_MS, Inbox, send
from zmqbroker.wire import FAILED, INVALID, Frames

DEFAULT_DRAIN = 10.0  # seconds
DEFAULT_IO_THREADS = 1
MOST_IO_THREADS = 64
BATCH = 256  # messages read from one socket in one turn, at most, so that none starves the others
MOST_BATCHES = 10  # of results, read in one turn before deadlines are judged
UNREAD_REPLIES = 100_000  # replies kept for a client that does not read them; further ones are dropped and counted
STALL = 0.1  # seconds; a loop held up for longer than this may have results that came in time unread
PAUSE = 0.1  # seconds; how long it reads before deadlines are judged
QUIET_MS = 50  # a broker that leaves answers requests until none has come for so long
FEW_DESCRIPTORS = 4096  # with fewer a broker says so when it starts
LOOK_INTERVAL = 1.0  # seconds between two looks whether there are any
LONGEST_WAIT = 60.0  # seconds of one poll; it also has an idle broker look for descriptors


log = logging.getLogger("zmqbroker")


Polled = TypeVar("Polled", Alarm, "zmq.Socket[bytes]")


class Addresses(NamedTuple):
    """The addresses that the three sockets are bound to, wildcards resolved."""

    requests: str
    ready: str
    results: str


class Broker:
    """A task broker on three addresses. It is bound when constructed, and works while `run` runs."""

    def __init__(
        self,
        requests: str,
        ready: str,
        results: str,
        *,
        tries: int = DEFAULT_TRIES,
        timeout: float | None = None,
        retry_delay: float = 0.0,
        max_waiting: int | None = None,
        max_size: int | None = None,
        drain: float | None = DEFAULT_DRAIN,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        heartbeat: float | None = None,
        io_threads: int = DEFAULT_IO_THREADS,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        """Bind the three sockets.

        `timeout`, `retry_delay` and `drain` are in seconds, `max_waiting` in tasks, `max_size` in bytes of a task's
        body; 0 or None means no limit (`retry_delay` and `drain`: at once). A peer is taken for dead when TCP's
        `keep_alive` says so, a worker when it was silent for `heartbeat` seconds (0 or None: however silent).
        `context` is shared with the peers of inproc addresses; None makes one with `io_threads` of ZeroMQ's. Raises
        ValueError for an address that cannot be bound and for a limit out of its range.
        """
        limits = {
            "tries": tries,
            "timeout": timeout,
            "retry_delay": retry_delay,
            "drain": drain,
            "heartbeat": heartbeat,
        }
        limits |= {"max_waiting": max_waiting, "max_size": max_size}
        for name, limit in limits.items():
            if limit is not None and not 0 <= limit < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {limit}")
        if not 1 <= io_threads <= MOST_IO_THREADS:
            raise ValueError(f"io_threads must be 1 to {MOST_IO_THREADS}, not {io_threads}")
        keep_alive.check()
        if heartbeat and heartbeat > LONGEST_HEARTBEAT:
            raise ValueError(f"heartbeat must be 0 to {LONGEST_HEARTBEAT:g}, not {heartbeat}")
        self._dispatcher = Dispatcher(tries=tries, timeout=timeout, retry_delay=retry_delay, run=os.urandom(8))
        self._max_waiting = max_waiting or 0
        self._max_size = max_size or 0
        self._drain = drain or 0.0
        self._draining_until: float | None = None  # None: not asked to stop
        self._finished = False
        self._has_run = False
        self._ended = threading.Event()  # `run` has returned
        self._reading = True  # requests; not while the queue is full
        self._now = monotonic()  # of this turn of the loop
        self._next_look = self._now  # for descriptors
        self._wait = 0.0  # seconds that this turn meant to wait at most
        self._pause_until = self._now  # no deadline is judged before this instant
        self._verbose = log.isEnabledFor(logging.DEBUG)
        self._complaints = LimitedLog(log)
        self._closed = False
        self._poller = zmq.Poller()
        self._closing = ExitStack()  # what `close` undoes, the last first
        with ExitStack() as undoing:
            undoing.callback(self.close)
            self._alarm = self._polled(Alarm())
            self._context = context or zmq.Context(io_threads)
            if context is None:
                self._closing.callback(self._context.term)
            most = descriptors.raise_limit()
            if most < FEW_DESCRIPTORS:
                log.warning("only %d descriptors, one for each connection: raise `ulimit -Hn` for more", most)
            options = SocketOptions(self._max_size, keep_alive, heartbeat or 0.0)
            self._requests = self._polled(open_socket(self._context, zmq.ROUTER, options, UNREAD_REPLIES))
            self._ready = self._polled(open_socket(self._context, zmq.ROUTER, options))
            self._results = self._polled(open_socket(self._context, zmq.PULL, options))
            self._workers = Connections(self._context, self._ready)
            self._closing.callback(self._workers.close)
            self._poller.register(self._workers.monitor, zmq.POLLIN)
            self.addresses = Addresses(
                bind(self._requests, requests), bind(self._ready, ready), bind(self._results, results)
            )
            undoing.pop_all()
        self._requests_in = Inbox(self._requests, BATCH, self._refuse_long)
        self._ready_in = Inbox(self._ready, BATCH, self._ignore_long)
        self._results_in = Inbox(self._results, BATCH, self._lose_long)

    def _polled(self, opened: Polled) -> Polled:
        """Have the loop wait for what is readable, and `close` close it."""
        self._poller.register(opened, zmq.POLLIN)
        self._closing.callback(opened.close)
        return opened

    def __enter__(self) -> "Broker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_run and not self._ended.is_set():  # in another thread
            self.stop()
            self.stop()
            self._ended.wait()
        self.close()

    def counters(self) -> dict[str, int]:
        """Return a snapshot of the counters, and of the tasks and workers in each state right now."""
        dispatcher = self._dispatcher
        return asdict(dispatcher.counters) | {
            "waiting": dispatcher.waiting,
            "delayed": dispatcher.delayed,
            "running": dispatcher.running,
            "idle": dispatcher.idle,
        }

    def stop(self) -> None:
        """Ask `run` to drain and return; asked a second time, to return at once. For any thread or signal handler."""
        self._alarm.ring()

    def run(self) -> None:
        """Serve until stopped. Every task accepted has its reply when this returns.

        Ctrl-C ends it in the same way, before KeyboardInterrupt is raised. Raises RuntimeError when called again, or
        after `close`.
        """
        if self._has_run or self._closed:
            raise RuntimeError("a broker runs once, and not after it was closed; make a new one")
        self._has_run = True
        try:
            with self._alarm.rung_by_signals(), ctrl_c_calls(self.stop, times=2):
                while not self._finished:
                    self._turn()
                self._leave()
        finally:
            self._ended.set()

    def close(self) -> None:
        """Close the sockets, waiting up to LINGER_MS milliseconds for the last replies to be sent."""
        self._closed = True
        self._closing.close()

    # The loop

    def _turn(self) -> None:
        dispatcher = self._dispatcher
        readable = dict(self._poller.poll(ceil(self._wait * 1000)))
        expected, self._now = self._now + self._wait, monotonic()
        if self._alarm.fileno() in readable:
            self._hear_stop()  # before requests are read: what was sent after `stop` was called is no task
        if self._results in readable:
            self._receive_results()
        if self._requests in readable:
            self._receive_requests()
        is_lost = self._workers.monitor in readable
        if is_lost or self._ready in readable:
            self._receive_ready(is_lost)
        self._judge_deadlines(held_up=self._now - expected > STALL)
        self._hand_out()
        self._send_replies()
        self._look_for_descriptors()
        if self._draining_until is not None:
            self._finished = self._now >= self._draining_until or not dispatcher.unsettled
        self._plan_next_turn()

    def _judge_deadlines(self, held_up: bool) -> None:
        """Give up what is overdue, but not before the results that came in time have been read.

        A loop that was held up, or has a great many results to read, first gets a pause to do so; but a deadline that
        one pause has put off is not put off by another, so nobody can do so for ever.
        """
        due = self._dispatcher.next_due()
        if due is None:
            return
        if due <= self._now:
            held_up |= not self._read_all_results()
        if held_up and due > self._pause_until:
            self._pause_until = self._now + PAUSE
        if self._now >= self._pause_until:
            self._dispatcher.expire(self._now)

    def _read_all_results(self) -> bool:
        """Read results until there are no more, up to a bound; False when the bound was met."""
        for _ in range(MOST_BATCHES):
            self._receive_results()
            if self._results_in.is_empty:
                return True
        return False

    def _plan_next_turn(self) -> None:
        """Decide whether the next turn reads requests, and how long it may wait."""
        reading = self._room() > 0
        if reading != self._reading:
            self._poller.modify(self._requests, zmq.POLLIN if reading else 0)
            self._reading = reading
        due = self._dispatcher.next_due()
        if due is None:
            due = self._now + LONGEST_WAIT
        due = max(due, self._pause_until)
        if self._draining_until is not None:
            due = min(due, self._draining_until)
        self._wait = min(max(due - self._now, 0.0), LONGEST_WAIT)

    def _look_for_descriptors(self) -> None:
        """Say so, from time to time, while nobody can connect because there are no descriptors."""
        if self._now < self._next_look:
            return
        self._next_look = self._now + LOOK_INTERVAL
        if not descriptors.is_any_left():
            why = "no file descriptors are left: new peers wait until others leave; raise `ulimit -Hn` for more"
            self._complaints.warn("descriptors", why, self._now)

    def _room(self) -> int:
        """Return how many requests may be read in a turn."""
        if not self._max_waiting or self._draining_until is not None:
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
            if self._draining_until is not None:
                dispatcher.refuse(envelope, header, FAILED, "the broker is shutting down")
            elif size > self._max_size:
                why = f"a task of {size} bytes was refused: the limit is {self._max_size} bytes"
                dispatcher.refuse(envelope, header, FAILED, why)
            else:
                dispatcher.submit(envelope, body, self._now, header)

    def _receive_ready(self, is_lost: bool) -> None:
        """Read ready messages, and give up what workers had whose connections have dropped: see `liveness`."""
        dispatcher, workers, inbox = self._dispatcher, self._workers, self._ready_in
        received = [(message, None if workers.knows(message[0]) else inbox.frame) for message in inbox.batch(BATCH)]
        if is_lost or any(frame is not None for _, frame in received):
            for worker in workers.lost():
                dispatcher.lose_worker(worker, self._now)
        for message, frame in received:
            for worker in workers.note(message[0], frame) if frame is not None else ():
                dispatcher.lose_worker(worker, self._now)
            try:
                dispatcher.ready(wire.parse_ready(message))
            except wire.MalformedError as error:
                self._count_malformed("ready", error)

    def _receive_results(self) -> None:
        for message in self._results_in.batch(BATCH):
            try:
                if wire.is_verb(message):
                    self._obey(wire.parse_verb(message))
                else:
                    self._dispatcher.result(message[0], message[1:], self._now)
            except wire.MalformedError as error:
                self._count_malformed("results", error)

    def _refuse_long(self, start: Frames) -> None:
        error = wire.parse_start(start)
        self._dispatcher.refuse(error.envelope, error.header, INVALID, str(error))

    def _ignore_long(self, _: Frames) -> None:
        self._count_malformed("ready", wire.MalformedError(f"a message of more than {wire.MOST_FRAMES} frames"))

    def _lose_long(self, start: Frames) -> None:
        if wire.is_verb(start):
            self._count_malformed("results", wire.MalformedError(f"a message of more than {wire.MOST_FRAMES} frames"))
        else:
            why = f"its result has more than {wire.MOST_FRAMES} frames"
            self._dispatcher.fail(start[0], why, self._now)

    def _obey(self, verb: wire.Verb) -> None:
        dispatcher = self._dispatcher
        if verb.name == wire.FAIL:
            dispatcher.fail(verb.attempt_id, verb.reason, self._now)
        elif verb.name == wire.REJECT:
            dispatcher.reject(verb.attempt_id, verb.reason, self._now)
        elif verb.name == wire.RELEASE:
            dispatcher.release(verb.attempt_id)
        else:
            dispatcher.touch(verb.attempt_id, verb.seconds, self._now)

    def _hear_stop(self) -> None:
        """Drain at the first `stop`, finish at the second; signals only wake the loop."""
        for _ in range(self._alarm.hear()):
            if self._draining_until is None:
                if self._dispatcher.unsettled:
                    log.info("draining: %d tasks to finish, for up to %g s", self._dispatcher.unsettled, self._drain)
                self._draining_until = self._now + self._drain
            else:
                self._draining_until = self._now

    # Sending

    def _hand_out(self) -> None:
        dispatcher = self._dispatcher
        while (pair := dispatcher.hand_out(self._now)) is not None:
            envelope, task = pair
            if self._verbose:
                log.debug(
                    "%s: attempt %d%s",
                    _name(task),
                    task.attempts,
                    f" ({printable(task.reason)})" if task.reason else "",
                )
            if not send(self._ready, wire.task_message(envelope, task.attempt_id, task.body)):
                dispatcher.take_back(task, self._now)

    def _send_replies(self) -> None:
        settled = self._dispatcher.settled
        for task in settled:
            if task.status in (FAILED, INVALID):
                self._complain_of(task)
            elif self._verbose:
                log.debug("%s: %s", _name(task), task.status)
            if not send(self._requests, _reply(task)):
                self._dispatcher.undelivered(task)
                why = "a reply was dropped: its client is gone or does not read"
                self._complaints.warn("undeliverable", why, self._now)
            task.envelope = task.body = []  # they may be large, and a queue may hold the task on as a stale entry
        settled.clear()

    def _complain_of(self, task: Task) -> None:
        text = f"{_name(task)} {task.status}: {task.reason}"
        if self._verbose:
            log.warning("%s", printable(text))
        else:
            self._complaints.warn(task.status, text, self._now)

    def _count_malformed(self, where: str, error: wire.MalformedError) -> None:
        self._dispatcher.counters.malformed += 1
        self._complaints.warn(where, f"ignored what is no message of the protocol: {error}", self._now)

    def _leave(self) -> None:
        """Answer whoever still waits: what was accepted, and what lies unread."""
        self._draining_until = self._now = monotonic()
        self._dispatcher.abandon("the broker was shut down", self._now)
        self._send_replies()
        until = self._now + LINGER_MS / 1000
        while self._requests.poll(QUIET_MS) and monotonic() < until:
            self._receive_requests()
            self._send_replies()


def _reply(task: Task) -> Frames:
    if task.header is None:
        return wire.reply_message(task.envelope, task.body)
    header = wire.reply_header(task.header.key, task.status, task.attempts, task.reason)
    return wire.reply_message([*task.envelope, header], task.body)


def _name(task: Task) -> str:
    return f"task {task.number}" if task.number else "a request"
