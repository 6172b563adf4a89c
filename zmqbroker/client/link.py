"""A client's link to the broker, for any thread: what is sent, and when again, its session decides.

    link            what the client calls, from any thread
    driving         a call that drives the socket from its own thread
    conversation    the background thread, which drives it at all other times
    shared          what these have in common, and the lock for it
    last_wait       how long replies are waited for when the main thread has ended

A background thread drives the socket, a DEALER; other threads hand it what to send by the session and an alarm. While
every task has its reply it leaves the socket alone, and a call that comes then drives it.

A signal handler, or the garbage collector, may use the link in the middle of all this. What a handler cannot do in the
middle of a message is wait for a reply.
"""

import atexit
import logging
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import zmq

from zmqbroker.client import conversation
from zmqbroker.client.conversation import Conversation
from zmqbroker.client.driving import Driving
from zmqbroker.client.futures import TaskFuture
from zmqbroker.client.request import Request, Settle
from zmqbroker.client.shared import Shared, tell
from zmqbroker.transport import descriptors, threads
from zmqbroker.transport.addresses import refuse_inproc
from zmqbroker.transport.connection import Connection
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.limited_log import log_safely
from zmqbroker.transport.patience import Patience
from zmqbroker.wire import Reply
from zmqbroker.wire.header import CLIENTS_BELONG

Leave = Callable[[str, Settle | None], object]  # ends a request with a name, and gives the answer to whom it is to
End = Callable[[str, Settle | None], list[tuple[Settle, list[Reply]]] | None]  # of a request, as a session does it

UNSENT = 1000  # requests that ZeroMQ holds while the broker takes none
FIRST_WAIT = 10.0  # seconds that the end of a program waits without a word
DESCRIPTORS = 16  # that one takes: two alarms, ZeroMQ's own, a connection, and some to spare

log = logging.getLogger("zmqbroker.client")


class Link:
    """Sends tasks over one connection after another, until each has its reply. For any thread of one process."""

    def __init__(
        self,
        destination: Destination,
        context: zmq.Context[Any] | None,
        connect_timeout: float | None = None,
    ) -> None:
        """Connect, whether or not somebody listens there yet; `context` None makes one.

        Tasks fail when nobody has answered there for `connect_timeout` seconds; None: they wait. Raises ValueError for
        what is no address, OSError without descriptors, and RuntimeError where there are no threads.
        """
        threads.need_real("a Client")
        if context is None:
            refuse_inproc(destination.address)
        patience = Patience(destination.address, connect_timeout, monotonic(), CLIENTS_BELONG)
        descriptors.need(DESCRIPTORS, "a client")
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._shared = Shared(destination.address)
        self._driving = Driving(self._shared)
        connect = partial(  # to a broker that takes no requests while its queue is full
            Connection, self._context, zmq.DEALER, destination, patience, may_refuse=True, unsent=UNSENT
        )
        try:
            self._conversation = Conversation(self._shared, connect, patience)
        except (OSError, ValueError, zmq.ZMQError):
            self._release()
            raise
        self._at_end: list[Callable[[], object]] = []
        self._over = threading.Event()  # the background thread is done; a join that was interrupted believes that of it
        self._finalizer: weakref.finalize[[], Any] | None = None
        self._thread = threading.Thread(target=self._run, name="zmqbroker client", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        shared = self._shared
        return f"{shared.address}, {'closed' if shared.closed else f'{len(shared.session)} tasks outstanding'}"

    def belong_to(self, owner: object) -> None:
        """Be closed at the end of the program, and as soon as can be when its owner is dropped without a `close`."""
        self._finalizer = weakref.finalize(owner, self._let_go)
        self._finalizer.atexit = False
        atexit.register(self.close)

    def submit(self, requests: list[Request]) -> None:
        """Send tasks; the reply of each is given to whom it says.

        Raises RuntimeError when this is closed, and in a process that was forked since.
        """
        self.check_process()
        with self._shared.lock:
            self._check_open()
            for request in requests:
                self._shared.session.submit(request)
            self._shared.wake()

    def begin(self, request: Request, future: TaskFuture, leave: Leave) -> None:
        """Send a request whose reply its future becomes; `leave` with its name is what cancelling the future does."""
        future.key = request.key
        future.on_cancel.append(partial(leave, request.name))  # first: the reply may come at once
        self.submit([request])

    def call(self, request: Request, until: float) -> None:
        """Send a task as `submit` does, and wait for its reply in this thread, if no other task is without one.

        Returns when the task has its reply, at the instant `until` (inf: never), or as soon as the background thread
        is to wait for it. Raises RuntimeError as `check_can_wait` does, too.
        """
        self.check_process()
        self.check_can_wait()
        bell = None
        try:
            with self._shared.lock:
                self._check_open()
                bell = self._driving.start()
                if bell is not None:
                    self._driving.send(request)
                else:
                    self._shared.enqueue(request)
            if bell is not None:
                self._driving.drive(request.name, bell, until)
        finally:
            if bell is not None:
                self._driving.stop(bell)

    def cancel(self, name: str, settle: Settle | None = None) -> bool:
        """Cancel a task, and have the answer given to `settle`.

        False when the task has its reply, or belongs to another process.
        """
        return self._end(self._shared.session.cancel, name, settle)

    def drop(self, name: str, settle: Settle | None = None) -> bool:
        """Wait for the answer to a question no longer, and have `settle` told so; False as `cancel` says it."""
        return self._end(self._shared.session.drop, name, settle)

    def _end(self, end: End, name: str, settle: Settle | None) -> bool:
        shared = self._shared
        if shared.is_forked():
            return False
        with shared.lock:
            settled = end(name, settle)
            shared.wake()
        tell(settled or ())
        return settled is not None

    def close(self) -> None:
        """Give every task without a reply one that says CLOSED, and disconnect.

        Cancels are passed on to the broker first, if that can be done within LAST_CANCELS seconds. The thread that does
        it is waited for, but not for long: a signal handler may have interrupted what it needs to go on. In a process
        that was forked since nothing is done.
        """
        self.close_soon(lambda: None)
        shared = self._shared
        if not shared.is_forked() and threading.current_thread() is not self._thread and not shared.is_locked_here():
            self._thread.join(2 * conversation.LAST_CANCELS)

    def close_soon(self, then: Callable[[], object]) -> None:
        """Have the background thread do what `close` does, and call `then` when that is done; at once if it was."""
        if self._finalizer is not None:
            self._finalizer.detach()
            atexit.unregister(self.close)
        shared = self._shared
        if shared.is_forked():
            then()
            return
        with shared.lock:
            shared.closed = True
            is_over = self._over.is_set()
            if not is_over:
                self._at_end.append(then)
        shared.alarm.ring()
        if is_over:
            then()

    def close_when_idle(self) -> bool:
        """Have it closed as soon as every task has its reply; False in a process that was forked since."""
        if self._shared.is_forked():
            return False
        self._shared.is_let_go = True
        self._shared.alarm.ring()
        return True

    def _let_go(self) -> None:
        """Be closed as soon as can be, without an owner."""
        atexit.unregister(self.close)
        text = f"a client was not closed: {self}"
        if self.close_when_idle():
            warnings.warn(text, ResourceWarning, stacklevel=2)

    def outlive(self, owner: object) -> None:
        """Go on until every task has its reply when its owner is dropped, and when the main thread has ended.

        The end of the program waits for that, as long as a broker is there.
        """
        weakref.finalize(owner, self.close_when_idle).atexit = False
        self._shared.outlives_main = True
        atexit.register(self._finish_at_end)

    def finish(self) -> None:
        """Have it closed as soon as every task has its reply, and wait for that; not in a process forked since.

        Raises RuntimeError as `check_can_wait` does.
        """
        if not self.close_when_idle():
            return
        self.check_can_wait()
        if not self._over.wait(FIRST_WAIT) and threads.has_main_ended():
            log_safely(log.warning, "the program is over, but waits for %s: Ctrl-C cancels these", self)
        self._over.wait()
        self._thread.join()

    def _finish_at_end(self) -> None:
        """Wait, at the end of the program, until every task has its reply; Ctrl-C cancels those that have none."""
        try:
            self.finish()
        except KeyboardInterrupt:
            names = self._shared.session.names()
            log_safely(log.warning, "Ctrl-C: cancelling what is left at %s", self)
            for name in names:
                self.cancel(name)
            self.close_soon(lambda: None)
            self._over.wait(2 * conversation.LAST_CANCELS)

    def check_can_wait(self) -> None:
        """Raise RuntimeError where no reply can come.

        That is a process that was forked since, a callback in the background thread, and a signal handler that keeps
        that thread from its work.
        """
        if self._shared.is_forked():
            raise RuntimeError("this task was submitted in another process; wait for it there")
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a callback of a future cannot wait for a reply: the thread that it runs in receives them"
            )
        if self._shared.is_locked_here():
            raise RuntimeError("this signal handler has interrupted the client at work: it cannot wait for a reply")

    def check_process(self) -> None:
        """Raise RuntimeError in a process that was forked since this was made."""
        if self._shared.is_forked():
            raise RuntimeError("this client was made in another process; make one after the fork")

    def _check_open(self) -> None:
        if self._shared.closed:
            raise RuntimeError("this client is closed")

    def _run(self) -> None:
        try:
            self._conversation.hold()
        finally:
            self._release()
            with self._shared.lock:
                self._over.set()
                at_end, self._at_end = self._at_end, []
            for then in at_end:
                then()
            atexit.unregister(self._finish_at_end)

    def _release(self) -> None:
        self._shared.alarm.close()
        self._driving.close()
        if self._own_context:
            self._context.term()
