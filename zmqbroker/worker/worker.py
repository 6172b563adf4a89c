"""A worker: asks for tasks, runs a handler on each, and says what came of it.

It is a DEALER socket that asks, a PUSH socket that answers, and what a plain worker lacks: it asks again when the
connection is lost, and it can be stopped without losing a task.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Sized
from math import ceil, inf, nan
from time import monotonic
from typing import Any

import zmq

from zmqbroker import wire
from zmqbroker.transport import descriptors, signals, threads
from zmqbroker.transport.addresses import parse, refuse_inproc
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.connection import LOST, Connection, connect
from zmqbroker.transport.contexts import terminate
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.limited_log import LimitedLog, log_safely
from zmqbroker.transport.limits import is_whole
from zmqbroker.transport.messages import LINGER_MS, Inbox, send
from zmqbroker.transport.patience import Patience
from zmqbroker.wire import LONGEST_SPAN, Frames, chunks
from zmqbroker.wire.chunks import Body, Failure
from zmqbroker.worker.forks import end_child
from zmqbroker.worker.outcome import Fail, Interrupted, Reject, frames_of, reason_of, text_of

PAUSE_MS = 500  # between losing the broker and asking again, should it hang up at every call
DESCRIPTORS = 16  # that one takes: an alarm, ZeroMQ's own, two sockets with their connections, and what watches them
MAY_END = signal.valid_signals() - signals.TIMERS  # whose handlers may end the program by a SystemExit
LAST_LOOK_MS = 100  # how long a worker that leaves looks for a task that crosses with its leaving

Handler = Callable[[Any], "Body | None"]

log = logging.getLogger("zmqbroker.worker")


class Worker:
    """Runs a handler on one task at a time, until stopped."""

    def __init__(
        self,
        ready: str,
        results: str,
        handler: Handler,
        *,
        label: str | None = None,
        slots: int = 1,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        connect_timeout: float | None = None,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        """Prepare to work for the broker at these two addresses; nothing is asked for before `run`.

        `handler` gets a task's body, bytes or (for several frames) a list of bytes, and returns the result's; None is
        an empty one. `label` is what the worker calls itself. `slots` is how many tasks it may have in hand: they are
        done one after the other, so more than one saves the way to the broker where tasks take microseconds, and
        makes tasks wait behind each other where they do not. `keep_alive` says when TCP takes the broker's host for
        dead. `connect_timeout` is how many seconds `run` goes on without a broker that answers; None: for ever.
        `context` is needed for inproc; None makes one. Raises ValueError for what is no address, no function
        and no number of slots, OSError where no file descriptors are left, and RuntimeError where there are no threads.
        """
        threads.need_real("a Worker")
        if not is_whole(slots, 1):
            raise ValueError(f"slots must be a whole number, 1 or more, not {slots!r:.50}")
        if not callable(handler):
            raise ValueError(f"the handler must be a function, not {handler!r:.50}")
        if context is None:
            refuse_inproc(ready, results)
        self._patience = Patience(ready, connect_timeout, monotonic())
        descriptors.need(DESCRIPTORS, "a worker")
        self._handler = handler
        self._ready: Frames = [wire.EMPTY, (label or "ready").encode()]
        self._slots = slots
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._ready_address = ready
        self._results_address = results
        self._results_at: str | None = None  # where RESULTS is connected to; None: not yet
        self._keep_alive = keep_alive
        self._results: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self._results.linger = LINGER_MS
        self._results.sndhwm = 0  # so that sending never blocks
        self._alarm = Alarm()
        self._complaints = LimitedLog(log)
        self._process_id = os.getpid()
        self._has_run = False
        self._stopped = False
        self._lock = threading.Lock()  # held to send a result or to change the attempt
        self._attempt_id: Any = None  # of the task in hand; None: there is none
        self.tasks = 0  # handled so far
        try:
            if not parse(results).is_name:
                self._connect_results(results)
            self._connect().close()  # is it an address?
        except (OSError, ValueError, zmq.ZMQError):
            self._close()
            raise

    def run(self) -> None:
        """Work until stopped; goes on by itself when the broker is restarted.

        Raises RuntimeError when it was called before, and in a process that was forked from the one that made this;
        ConnectionError when no broker has answered for `connect_timeout` seconds.
        """
        self._refuse_in_child("run")
        if self._has_run:
            raise RuntimeError("a Worker runs once: make another one")
        self._has_run = True
        try:
            with self._alarm.rung_by_signals():
                while not self._stopped:
                    self._work_once()
                    if not self._stopped:
                        self._alarm.wait(PAUSE_MS)
        finally:
            self._complaints.flush(inf)
            self._close()

    def stop(self) -> None:
        """Ask `run` to return when the task in hand is done. For any thread, the handler or a signal handler."""
        self._stopped = True
        self._alarm.ring()

    def touch(self, seconds: float | None = None) -> None:
        """Ask for more time for the task in hand: `seconds` from now, or (None) its timeout once more.

        For the handler, and for any thread while the handler runs; without a task in hand it does nothing. Raises
        ValueError for what is no number of seconds, and RuntimeError in a process that the handler has forked.
        """
        argument = "" if seconds is None else str(_span(seconds))
        self._refuse_in_child("touch")
        with self._lock:
            if self._attempt_id is not None:
                send(self._results, wire.verb_message(wire.TOUCH, self._attempt_id, argument))

    def _refuse_in_child(self, what: str) -> None:
        """Raise RuntimeError in a process that was forked: the sockets are its parent's."""
        if os.getpid() != self._process_id:
            raise RuntimeError(f"{what} of a Worker that another process has made: make one in each process")

    def _connect(self) -> Connection:
        return Connection(self._context, zmq.DEALER, self._ready_address, self._keep_alive, self._patience)

    def _work_once(self) -> None:
        """Work by one connection, until stopped or until it is lost."""
        try:
            connection = self._connect()
        except (OSError, zmq.ZMQError) as error:
            if error.errno not in descriptors.NONE_LEFT:
                raise
            self._complaints.warn("descriptors", str(error.strerror), monotonic())
            return
        try:
            self._work(connection)
        finally:
            connection.close()  # before the pause: nothing is to be handed out to it any more
        if connection.state == LOST and not self._stopped:
            log_safely(log.info, "the connection to %s was lost: asking again", self._ready_address)

    def _connect_results(self, address: str) -> None:
        """Connect to RESULTS, and no more to where it was before."""
        if address != self._results_at:
            if self._results_at is not None:
                self._results.disconnect(self._results_at)
            connect(self._results, address, self._keep_alive, may_refuse=False)
            self._results_at = address

    def _ask(self, connection: Connection) -> None:
        """Ask for the first tasks. The results go to the same address, where the host has the same name."""
        results = parse(self._results_address)
        is_same_host = connection.found is not None and results.host == parse(self._ready_address).host
        if results.is_name:
            self._connect_results(results.at(connection.found or "") if is_same_host else self._results_address)
        for _ in range(self._slots):
            send(connection.socket, self._ready.copy())

    def _see_to(self, connection: Connection, now: float) -> float:
        """Do what is due at the connection, and return when that is again."""
        due = connection.advance(now)
        verdict = self._patience.verdict(now, connection.reason)
        if verdict is not None:
            raise ConnectionError(verdict)
        return due

    def _work(self, connection: Connection) -> None:
        """Ask and process, one task after another, until stopped or the connection is lost."""
        poller = zmq.Poller()
        for waited_for in (connection.socket, *connection.waited_for, self._alarm):
            poller.register(waited_for, zmq.POLLIN)
        inbox = Inbox(connection.socket, self._slots)
        has_asked = False
        due = self._see_to(connection, monotonic())
        while True:
            if connection.can_send and not has_asked:
                self._ask(connection)
                has_asked = True
            readable = dict(poller.poll(self._say_what_is_due(due)))
            if self._alarm.fileno() in readable:
                self._alarm.hear()
            if due < inf or connection.monitor in readable:
                due = self._see_to(connection, monotonic())
            is_lost = connection.has_ended
            for message in inbox.batch(self._slots) if connection.socket in readable else ():
                self._process(message)
                is_lost = is_lost or connection.is_lost(monotonic())  # while the handler ran
                if not (is_lost or self._stopped):
                    send(connection.socket, self._ready.copy())
            if self._stopped:
                self._release_what_crosses(connection.socket, inbox)
                return
            if is_lost:
                self._process_what_came(inbox)
                return

    def _say_what_is_due(self, due: float) -> int | None:
        """Log what was held back; return the milliseconds to the next time for that, or to `due` (inf: never)."""
        if min(due, self._complaints.next_due()) == inf:
            return None
        now = monotonic()
        self._complaints.flush(now)
        due = min(due, self._complaints.next_due())
        return None if due == inf else ceil(max(due - now, 0.0) * 1000)

    def _process_what_came(self, inbox: Inbox) -> None:
        """Do the tasks that came before the connection was lost: the broker may still be there."""
        while not inbox.is_empty:
            for message in inbox.batch(self._slots):
                self._process(message)

    def _release_what_crosses(self, asking: zmq.Socket[bytes], inbox: Inbox) -> None:
        """Give back what the broker is sending just now to this worker, which is leaving."""
        while not inbox.is_empty or asking.poll(LAST_LOOK_MS):
            for message in inbox.batch(self._slots):
                self._process(message)

    def _process(self, message: Frames) -> None:
        """Do a task, or give it back when this worker is leaving, and answer."""
        attempt_id, body = wire.parse_task(message)
        message.clear()  # it may be large, and the loop has it until the next one comes
        if self._stopped:
            send(self._results, wire.verb_message(wire.RELEASE, attempt_id))
            return
        with self._lock:
            self._attempt_id = attempt_id
        answer = wire.verb_message(wire.FAIL, attempt_id, "the handler was interrupted")
        try:
            answer = self._answer(attempt_id, body)
        except Interrupted as interruption:
            answer = wire.verb_message(wire.FAIL, attempt_id, str(interruption))
        finally:
            with self._lock:
                self._attempt_id = None
                send(self._results, answer)
            self.tasks += 1

    def _answer(self, attempt_id: Sized, body: Frames) -> Frames:
        """Run the handler, for each body of a chunk by itself, and build what is to be said of the attempt."""
        if chunks.is_chunk(body):
            try:
                bodies = chunks.unpack(body)
            except ValueError as error:
                return wire.verb_message(wire.REJECT, attempt_id, str(error))
            return wire.result_message(attempt_id, chunks.pack_results(map(self._outcome, bodies)))
        outcome = self._outcome(body)
        if isinstance(outcome, Failure):
            return wire.verb_message(wire.REJECT if outcome.is_final else wire.FAIL, attempt_id, outcome.reason)
        return wire.result_message(attempt_id, outcome)

    def _outcome(self, body: Frames) -> Frames | Failure:
        """Run the handler on one body, and return its result or why there is none."""
        try:
            return frames_of(self._handle(wire.plain(body)))
        except (Interrupted, KeyboardInterrupt):
            raise
        except Reject as rejection:
            return Failure(text_of(rejection) or "rejected", is_final=True)
        except Fail as failure:
            return Failure(text_of(failure) or "failed")
        except BaseException as error:
            if isinstance(error, SystemExit) and signals.is_of_a_handler(error, MAY_END):
                raise
            reason = reason_of(error)
            self._complaints.warn("failed", f"the handler failed: {reason}", monotonic(), error)
            return Failure(reason)

    def _handle(self, body: Body) -> Any:
        """Run the handler. A process that it has forked ends where it comes back, and never becomes a worker."""
        try:
            result = self._handler(body)
        except BaseException as error:
            if os.getpid() != self._process_id:
                end_child(error)
            raise
        if os.getpid() != self._process_id:
            end_child(None)
        return result

    def _close(self) -> None:
        with self._lock:
            self._results.close()
        self._alarm.close()
        if self._own_context:
            terminate(self._context)


def _span(seconds: Any) -> float:
    """Return seconds as a number; raises ValueError for what a touch does not take."""
    try:
        span = float(seconds)
    except (TypeError, ValueError, OverflowError):
        span = nan
    if not 0 < span <= LONGEST_SPAN:
        raise ValueError(f"touch takes seconds above 0 and up to {LONGEST_SPAN:,.0f}, not {seconds!r:.100}")
    return span
