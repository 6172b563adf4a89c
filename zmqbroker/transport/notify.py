"""Telling the service manager that has started this process how it stands, as sd_notify(3) says.

NOTIFY_SOCKET names a datagram socket, by its path or, with an @ first, as an abstract one; WATCHDOG_USEC says how soon
a process without a sign of life counts as hung. What is said never waits and never fails: what does not go is one line
in the log. That the process is ready, or ends, is said again until somebody hears it.
"""

import logging
import os
import socket
from collections.abc import Callable, MutableMapping
from math import inf

from zmqbroker.transport.limited_log import log_safely, printable

ADDRESS, WATCHDOG_TIME, WATCHDOG_PROCESS = VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
SHORTEST_WATCHDOG = 0.1  # seconds; signs of life more often than that would be all that the process does
LONGEST_WATCHDOG = 1e6  # who waits for longer waits for nobody
RETRY = 5.0  # seconds until what nobody has heard is said again

log = logging.getLogger("zmqbroker.notify")


class ServiceManager:
    """Hears that this process is ready, that it lives, and that it ends; where there is none, nothing is said."""

    def __init__(self, address: str = "", watchdog: float = inf) -> None:
        """Prepare to speak to an address as NOTIFY_SOCKET has it; nothing there: there is none.

        `watchdog` is how many seconds may pass without a sign of life; inf: any number.
        """
        self.due = inf  # when `tell_alive` is to be called
        self.describe: Callable[[], str] = lambda: ""  # returns what goes on, in one line; nothing: that is not said
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._interval = watchdog / 2  # which is what sd_watchdog_enabled(3) recommends
        self._untold: list[str] = []
        self._has_complained = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def __enter__(self) -> "ServiceManager":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def tell_ready(self, now: float) -> None:
        """Say that the process does what it is there for; from now on it gives signs of life."""
        self._tell(now, ["READY=1"])

    def tell_stopping(self, now: float) -> None:
        """Say that the process has begun to end."""
        self._tell(now, ["STOPPING=1"])

    def tell_alive(self, now: float) -> None:
        """Give a sign of life, and say again what nobody has heard; from the loop, which is what has to go on."""
        self._tell(now, [])

    def _tell(self, now: float, words: list[str]) -> None:
        if self._socket is None:
            return
        self._untold += words
        lines = [*self._untold, f"STATUS={self.describe()}"]
        if self._interval < inf:
            lines.append("WATCHDOG=1")
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            self._complain(error)
        else:
            self._untold.clear()
        self.due = now + (min(RETRY, self._interval) if self._untold else self._interval)

    def _complain(self, error: OSError) -> None:
        """Log the first failure; that nobody hears this is no reason for anything else."""
        if not self._has_complained:
            self._has_complained = True
            where = printable(self._address.replace("\0", "@", 1))
            log_safely(log.warning, "cannot tell the service manager at %s: %s", where, error.strerror or error)


def service_manager(environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Return the one that the environment names, and take its variables out: they are not meant for any child."""
    address, watchdog, process_id = (environment.pop(name, "") for name in VARIABLES)
    is_number = watchdog.isascii() and watchdog.isdecimal()
    seconds = float(watchdog) / 1e6 if is_number and process_id in ("", str(os.getpid())) else 0.0
    if not 0 < seconds <= LONGEST_WATCHDOG:
        return ServiceManager(address)
    return ServiceManager(address, max(seconds, SHORTEST_WATCHDOG))
