"""Questions to the system that it may take minutes to answer, as name servers do: in threads that nobody waits for."""

import os
import socket
import threading
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

from zmqbroker.transport.addresses import IPC, Address
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.greeting import Greeting, greet

PATIENCE = 0.8  # seconds for a host to take a connection that is made to find out why none is; less than ASK_BEFORE
LEAST_PATIENCE = 0.1  # seconds for one that has taken it to say what it is

Answer = TypeVar("Answer")


class Inquiry(Generic[Answer]):
    """A question that is being asked, and perhaps its answer."""

    def __init__(self, ask: Callable[[], Answer], alarm: Alarm | None = None) -> None:
        """Have `ask` called in a thread of its own; `alarm` is rung after it, None: nobody waits for it.

        Raises OSError when there can be no thread.
        """
        self.answer: Answer | None = None  # None: not yet
        self._ask = ask
        self._alarm = alarm
        self._lock = threading.Lock()  # to ring, and to let that be
        try:
            threading.Thread(target=self._run, name="zmqbroker inquiry", daemon=True).start()
        except RuntimeError as error:  # too many, or Python ends
            raise OSError(str(error)) from None

    def abandon(self) -> None:
        """Take no more interest in it: the alarm may be closed then."""
        with self._lock:
            self._alarm = None

    def _run(self) -> None:
        answer = self._ask()
        with self._lock:
            self.answer = answer
            if self._alarm is not None:
                self._alarm.ring()


def ask_within(ask: Callable[[], Answer], seconds: float) -> Answer | None:
    """Return the answer to a question; None: it has not come within so many seconds.

    Raises OSError when there can be no thread, or no descriptors are left.
    """
    alarm = Alarm()
    try:
        inquiry = Inquiry(ask, alarm)
        alarm.wait(ceil(1000 * seconds))
        inquiry.abandon()
    finally:
        alarm.close()
    return inquiry.answer


def addresses_of(target: Address) -> list[str]:
    """Return the addresses of a host's name, numbers of IPv4 and IPv6; none where it has none."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        return list(dict.fromkeys(socket.getnameinfo(where, numeric)[0] for *_, where in found))  # with their scopes
    except (OSError, UnicodeError):
        return []


class Finding(NamedTuple):
    """What was found at an address at which nobody answers."""

    reason: str  # why not
    greeting: Greeting | None = None  # of who listens there; None: nobody takes a connection


def look_at(target: Address) -> Finding:
    """Find out why nobody answers at an address, as far as a connection of one's own can tell; it is closed at once."""
    until = monotonic() + PATIENCE
    try:
        with _connect(target) as peer:
            greeting = greet(peer, max(until - monotonic(), LEAST_PATIENCE))
    except (socket.gaierror, UnicodeError):
        return Finding("the name does not resolve" if target.is_name else "this machine has no such network")
    except TimeoutError:
        return Finding("the host does not answer")
    except OSError as error:
        return Finding(_describe(error, target))
    return Finding("something listens there, but does not answer as a broker does: it hangs, or is none", greeting)


def _connect(target: Address) -> socket.socket:
    if target.transport != IPC:
        return socket.create_connection((target.host, target.port), PATIENCE)
    path = target.text.removeprefix(IPC)
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.settimeout(PATIENCE)
        peer.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError:
        peer.close()
        raise
    return peer


def _describe(error: OSError, target: Address) -> str:
    if isinstance(error, FileNotFoundError):
        directory = os.path.dirname(target.text.removeprefix(IPC)) or "."
        return "no socket is there" if os.path.isdir(directory) else "its directory does not exist"
    return (error.strerror or str(error)).lower()
