"""When TCP takes a connection for dead."""

from typing import Any, NamedTuple

import zmq

MOST_KEEP_ALIVE = (32767, 32767, 127)  # tcp(7): seconds, seconds, probes
MOST_MS = 2**31 - 1


class KeepAlive(NamedTuple):
    """When TCP takes a connection for dead."""

    idle: int = 60  # seconds without traffic before the first probe; 0: no probes
    interval: int = 10  # seconds between probes
    probes: int = 6  # without an answer

    def check(self) -> None:
        """Raise ValueError for what the system would not take: it would turn away every connection for that."""
        for name, value, most in zip(self._fields, self, MOST_KEEP_ALIVE, strict=True):
            least = 0 if name == "idle" or not self.idle else 1
            if not least <= value <= most:
                raise ValueError(f"{name} of keep_alive must be {least} to {most}, not {value}")

    @property
    def patience_ms(self) -> int:
        """How long a peer is silent before it is taken for dead; 0: for ever."""
        return 1000 * (self.idle + self.interval * self.probes) if self.idle else 0


def set_keep_alive(opened: zmq.Socket[Any], keep_alive: KeepAlive, *, may_refuse: bool) -> None:
    """Let TCP notice a peer whose host has died or was cut off.

    It sends no probes while it has data to send again, for which it has a limit of its own: about a quarter of an
    hour. A shorter one is set too, but it would also cut off a peer that lives and takes nothing for so long: so not
    where one `may_refuse` to, as clients do that do not read, and brokers whose queue is full.
    """
    if keep_alive.idle:
        opened.tcp_keepalive = 1
        opened.tcp_keepalive_idle = keep_alive.idle
        opened.tcp_keepalive_intvl = keep_alive.interval
        opened.tcp_keepalive_cnt = keep_alive.probes
        if not may_refuse:
            opened.tcp_maxrt = min(keep_alive.patience_ms, MOST_MS)
