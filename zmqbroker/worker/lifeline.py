"""A process that runs for a supervisor, and what ties the two together.

Each process has one end of a socket pair, its lifeline. There it says READY, or why it cannot start; REACHED, with
whom, when a broker has answered for the first time; then why it cannot go on, or LEAVING, with what it waits for, when
it has done its share. FINISH tells it to leave when it is done with what it has in hand, AT_ONCE not to wait for that.
The end of file means that the supervisor is gone, however that came about, and is as good as FINISH. The other thing
that they share is a slot.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import count
from math import inf
from typing import NamedTuple

from zmqbroker.transport import signals
from zmqbroker.worker.command import kill_group
from zmqbroker.worker.leftovers import kill_leftovers
from zmqbroker.worker.limits import InHand
from zmqbroker.worker.slot import SIZE, Slot, anonymous_file

READY = b"ready\n"  # what a process says that has started; anything else, before or after, is why it cannot go on
REACHED = b"reached "  # what follows, up to the end of the line, is whom
LEAVING = b"leaving "  # what follows are the names of threads that run on
FINISH = b"f"
AT_ONCE = b"a"
LEAVE_WITHIN = 5  # seconds from LEAVING to the end; whole ones, see alarm(2)

_next_number = count().__next__


class Program(NamedTuple):
    """How a process is started."""

    arguments: Sequence[str]  # three more follow: a mark that tells it from others, its lifeline, its slot
    settings: bytes  # its stdin
    directory: str | None = None  # None: the current one


class Process:
    """A process that runs, and its lifeline."""

    def __init__(self, program: Program, now: float) -> None:
        """Start it in a session of its own, which Ctrl-C does not reach; raises OSError."""
        self.started_at = now
        self.silent_at = inf  # since when it can say nothing more
        self.status: int | None = None  # of its exit, or minus the signal, once `notice_end` has seen it
        self.has_hung = False  # it was killed for that
        self._said = b""
        self._mark = f"zmqbroker-{os.getpid()}-{_next_number()}"
        with ExitStack() as undoing, ExitStack() as closing:
            self.lifeline, theirs = socket.socketpair()
            undoing.callback(self.lifeline.close)
            closing.callback(theirs.close)
            self.lifeline.setblocking(False)
            settings, slot = (anonymous_file(content) for content in (program.settings, bytes(SIZE)))
            for descriptor in settings, slot:
                closing.callback(os.close, descriptor)
            self.slot = Slot(slot)
            undoing.callback(self.slot.close)
            shared = theirs.fileno(), slot
            arguments = [*program.arguments, self._mark, *map(str, shared)]
            with signals.status_held_back():  # it would end a process that has no handler yet
                self._process = subprocess.Popen(
                    arguments, stdin=settings, pass_fds=shared, start_new_session=True, cwd=program.directory
                )
            undoing.pop_all()
        self.pid = self._process.pid

    @property
    def is_silent(self) -> bool:
        """Tell whether it can say nothing more: it has ended, or is about to, or has become something else."""
        return self.silent_at < inf

    @property
    def was_ready(self) -> bool:
        """Tell whether it said so."""
        return self._said.startswith(READY)

    @property
    def is_starting(self) -> bool:
        """Tell whether it has still to say whether it can start."""
        return not (self.was_ready or self.is_silent)

    @property
    def is_leaving(self) -> bool:
        """Tell whether it has done its share, and only has to end."""
        return self.was_ready and LEAVING in self._said

    @property
    def threads(self) -> str:
        """Return the names of the threads that ran on when it was leaving."""
        return self._said.partition(LEAVING)[2].decode(errors="replace")

    @property
    def reached(self) -> str:
        """Return which broker has answered it first; nothing if none has."""
        line, end, _ = self._said.removeprefix(READY).partition(b"\n")
        return line[len(REACHED) :].decode(errors="replace") if end and line.startswith(REACHED) else ""

    @property
    def complaint(self) -> str:
        """Return why it cannot start, or go on; nothing if it did not say."""
        said = self._said.removeprefix(READY)
        if said.startswith(REACHED):
            said = said.partition(b"\n")[2]
        return said.partition(LEAVING)[0].decode(errors="replace")

    def listen(self, now: float) -> None:
        """Take in what it says."""
        try:
            text = self.lifeline.recv(65536)
        except BlockingIOError:
            return
        except OSError:  # it is gone, which is seen elsewhere
            text = b""
        self._said += text
        if not text:
            self.silent_at = min(self.silent_at, now)

    def notice_end(self) -> int | None:
        """See whether it has ended, and return its status; what it has left behind is still there."""
        if self.status is None:
            self.status = self._find_status()
        return self.status

    def end(self, now: float) -> int | None:
        """Return its status once its end was noticed, having ended what it has left behind; None while it runs."""
        if self.status is not None and self.lifeline.fileno() >= 0:
            kill_leftovers(self.pid, self._mark)
            self.listen(now)
            self.lifeline.close()
            self._process.wait()
        return self.status

    def tell(self, word: bytes) -> None:
        """Say FINISH or AT_ONCE; a process that is still starting has nothing in hand, and just ends."""
        with suppress(OSError):
            self.lifeline.send(word)
        if self.is_starting:
            self.kill()

    def kill(self) -> None:
        """Kill it with its group."""
        kill_group(self._process)

    def kill_at(self, task: InHand) -> bool:
        """Kill it as one that hangs, if it is still at a task: frozen meanwhile, as it may just begin another one."""
        os.kill(self.pid, signal.SIGSTOP)
        self.has_hung = self.slot.in_hand() == task
        if self.has_hung:
            self.kill()
        else:
            os.kill(self.pid, signal.SIGCONT)
        return self.has_hung

    def _find_status(self) -> int | None:
        """Return how it ended, and leave its number to it until what it left behind was found by that."""
        if not hasattr(os, "waitid"):
            return self._process.poll()
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def reap_others(ours: set[int]) -> None:
    """Take the exit status of children that are none of ours: process 1 of a container inherits those of others."""
    while hasattr(os, "waitid"):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:  # that one has ended just now, and is seen to in the next turn
            return
        os.waitpid(found.si_pid, 0)
