"""The socket of a service manager, which hears what programs of ours say."""

import os
import socket
from pathlib import Path

import pytest
from helpers import PATIENCE

NOTHING = 0.05  # seconds in which nothing comes that was not sent before


class Manager:
    """A datagram socket as NOTIFY_SOCKET names it."""

    def __init__(self, address: str) -> None:
        """Listen at a path, or at @name."""
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def close(self) -> None:
        self._socket.close()

    def hear(self, patience: float = PATIENCE) -> dict[str, str]:
        """Wait for what is said, and return it; nothing if there is silence."""
        self._socket.settimeout(patience)
        try:
            said = self._socket.recv(65536).decode()
        except (TimeoutError, BlockingIOError):
            return {}
        return dict(line.split("=", 1) for line in said.split("\n"))

    def wait_for(self, word: str) -> dict[str, str]:
        """Wait until a word is said, and return all that was said with it."""
        while word not in (said := self.hear()):
            assert said, f"{word} was not said"
        return said

    def hears_nothing(self, seconds: float = NOTHING) -> bool:
        """Tell whether there is silence for so long."""
        return not self.hear(seconds)


def abstract(tmp_path: Path) -> str:
    """Return an abstract address that is nobody else's."""
    return f"@zmqbroker-test-{os.getpid()}-{tmp_path.name}"


def set_variables(monkeypatch: pytest.MonkeyPatch, address: str, **others: object) -> None:
    """Have the programs that are started from now on find these in their environment."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"NOTIFY_SOCKET": address, **others}.items():
        monkeypatch.setenv(name, str(value))
