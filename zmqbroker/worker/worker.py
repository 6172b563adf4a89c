"""A worker: asks for tasks, runs a handler on each, and says what came of it.

The session decides what to ask for and to say, the line has the socket, the handling runs the handler, and here is the
loop around them. While a handler runs the keeper speaks for its task.
"""

import logging
import os
import socket
from collections.abc import Sequence
from math import ceil, inf
from time import monotonic
from typing import Any

import zmq

from zmqbroker.transport import descriptors, threads
from zmqbroker.transport.addresses import refuse_inproc
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.contexts import terminate
from zmqbroker.transport.destination import destination
from zmqbroker.transport.identity import FilePath
from zmqbroker.transport.keep_alive import KeepAlive
from zmqbroker.transport.limited_log import LimitedLog
from zmqbroker.transport.limits import is_whole
from zmqbroker.transport.messages import LINGER_MS
from zmqbroker.wire import DEFAULT_QUEUE, Announce, queue_list
from zmqbroker.worker.current import CurrentTask, in_hand, span
from zmqbroker.worker.handling import INTERRUPTED, Answer, Handler, Handling
from zmqbroker.worker.keeper import Keeper, Upkeep
from zmqbroker.worker.line import Line
from zmqbroker.worker.session import Session

DESCRIPTORS = 16  # that one takes: two alarms, ZeroMQ's own, a socket with its connection, and what watches it
LOOK_AFTER = 0.01  # seconds of tasks after which one looks what has come before the next one is begun
LAST_LOOK_MS = 100  # how long a worker that leaves waits to hear that no task follows

log = logging.getLogger("zmqbroker.worker")


class Worker:
    """Runs a handler on one task at a time, until stopped."""

    def __init__(
        self,
        ready: str,
        handler: Handler,
        *,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        label: str | None = None,
        slots: int | None = None,
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
        connect_timeout: float | None = None,
        context: zmq.Context[Any] | None = None,
        identity: FilePath | None = None,
        broker_identity: FilePath | None = None,
    ) -> None:
        """Prepare to work for the broker at this address; nothing is asked for before `run`.

        `handler` gets a task's body, bytes or (for several frames) a list of bytes, and returns the result's; None is
        an empty one. It gets tasks of `queues`, 1 to 64 names, of the first one first. `label` is what the worker calls
        itself. `slots` is how many tasks it may have at a time: they are done one after the other, and to have the next
        one at hand saves the way to the broker; None: as many as take about 5 ms, up to 64. `keep_alive` says when TCP
        takes the broker's host for dead. `connect_timeout` is how many seconds `run` goes on without a broker that
        answers; None: for ever. `context` is needed for inproc; None makes one. `identity` is a file with a pair
        of keys, NAME.secret, and `broker_identity` one with the broker's public key; None: those that the environment
        names, if it does. Raises ValueError for what is no address, no function, no list of queues, no number of slots,
        no text and no identity, OSError where no file descriptors are left, and RuntimeError where there are no
        threads.
        """
        threads.need_real("a Worker")
        if slots is not None and not is_whole(slots, 1):
            raise ValueError(f"slots must be a whole number, 1 or more, not {slots!r:.50}")
        if label is not None and not isinstance(label, str):
            raise ValueError(f"a label must be text, not {label!r:.50}")
        if not callable(handler):
            raise ValueError(f"the handler must be a function, not {handler!r:.50}")
        names = queue_list(queues)
        if context is None:
            refuse_inproc(ready)
        broker = destination(ready, keep_alive, identity=identity, broker_identity=broker_identity)
        descriptors.need(DESCRIPTORS, "a worker")
        self.tasks = 0  # handled so far
        self._complaints = LimitedLog(log)
        self._handling = Handling(handler, self._complaints)
        self._session = Session(slots)
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._poller = zmq.Poller()
        self._polled: list[Any] = []  # what is registered there
        self._has_run = self._stopped = False
        self._looked_at = 0.0
        self._alarm = Alarm()
        announce = Announce(names, label or "", socket.gethostname(), os.getpid(), serial=True, headers=True)
        try:
            self._line = Line(
                self._context,
                broker,
                connect_timeout,
                announce,
                self._session,
                self._complaints,
                self._welcomed,
                monotonic(),
            )
            self._keeper = Keeper(self._session, self._line, announce.name)
        except (OSError, ValueError, zmq.ZMQError):
            self._close()
            raise

    def run(self) -> None:
        """Work until stopped; goes on by itself when the broker is restarted.

        Raises RuntimeError when it was called before, and in a process that was forked from the one that made this;
        ConnectionError when no broker has answered for `connect_timeout` seconds, or what is there takes no workers, as
        at a wrong address.
        """
        self._keeper.refuse_in_child("run")
        if self._has_run:
            raise RuntimeError("a Worker runs once: make another one")
        self._has_run = True
        try:
            with self._alarm.rung_by_signals():
                while not self._stopped:
                    if self._session.tasks:
                        self._do_next()
                    else:
                        self._wait(inf)
                self._leave()
        finally:
            self._complaints.flush(inf)
            self._keeper.close()
            self._line.close(LINGER_MS)
            self._close()

    @property
    def upkeep(self) -> Upkeep:
        """What is done for a task that takes long, besides."""
        return self._keeper.upkeep

    def stop(self) -> None:
        """Ask `run` to return when the task in hand is done. For any thread, the handler or a signal handler."""
        self._stopped = True
        self._alarm.ring()
        self._keeper.stop()

    def touch(self, seconds: float | None = None) -> None:
        """Ask for more time for the task in hand: `seconds` from now, or (None) its timeout once more.

        For the handler, and for any thread while the handler runs; without a task in hand it does nothing. Raises
        ValueError for what is no number of seconds, and RuntimeError in a process that the handler has forked.
        """
        self._keeper.touch(self._session.in_hand, None if seconds is None else span(seconds))

    def _welcomed(self, reached: str) -> None:
        self._keeper.upkeep.on_welcome(reached)

    def _do_next(self) -> None:
        """Run the handler on the next task, and say what came of it."""
        now = monotonic()
        given = self._session.begin(now)
        self._keeper.upkeep.on_begin(given.attempt_id, given.header, now)
        if self._keeper.is_asleep:
            self._keeper.wake()
        answer = INTERRUPTED
        in_hand.set(CurrentTask(self._keeper, given))
        try:
            answer = self._handling.answer(given.body)
        finally:
            in_hand.set(None)
            self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        verb, argument = answer
        now = monotonic()
        self._keeper.finish(verb, argument, now)
        self.tasks += 1
        if now > self._looked_at + LOOK_AFTER:  # the next task may have been taken back
            self._looked_at = now
            self._line.receive_all(now)

    def _wait(self, until: float) -> None:
        """Wait for something to happen, up to an instant, and see to it."""
        line = self._line
        if line.verdict:
            raise ConnectionError(line.verdict)
        waited_for = line.waited_for
        if self._polled is not waited_for:
            self._poll_for(waited_for)
        readable = dict(self._poller.poll(self._wait_ms(min(line.due, until))))
        now = self._looked_at = monotonic()
        if self._alarm.fileno() in readable:
            self._alarm.hear()
        if line.due < inf or line.has_news(readable):
            line.advance(now)
        if line.socket in readable:
            line.receive(now, self._session.asked)

    def _poll_for(self, waited_for: list[Any]) -> None:
        """Poll for what the line waits for, from now on, and for the alarm."""
        self._poller = zmq.Poller()
        self._polled = waited_for
        for each in (*waited_for, self._alarm):
            self._poller.register(each, zmq.POLLIN)

    def _wait_ms(self, due: float) -> int | None:
        """Log what was held back; return the milliseconds to the next time for that, or to `due` (inf: never)."""
        if min(due, self._complaints.next_due()) == inf:
            return None
        now = monotonic()
        self._complaints.flush(now)
        due = min(due, self._complaints.next_due())
        return None if due == inf else ceil(max(due - now, 0.0) * 1000)

    def _leave(self) -> None:
        """Give back what is not begun, and what crosses with that; say what could not be said before."""
        session = self._session
        self._keeper.withdraw()
        until = monotonic() + (LINGER_MS if session.has_unsaid else LAST_LOOK_MS) / 1000
        while (session.asked > 0 or session.has_unsaid) and monotonic() < until and not self._line.verdict:
            self._wait(until)

    def _close(self) -> None:
        self._alarm.close()
        if self._own_context:
            terminate(self._context)
