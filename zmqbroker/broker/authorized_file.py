"""The file of the authorized, which may change while the broker runs."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from zmqbroker.broker.authorized import Authorized, parse_authorized
from zmqbroker.transport.limited_log import log_safely

LARGEST = 4 << 20  # characters, which is some 50,000 lines: nobody is served while it is read
MOST_UNREAD = 3  # looks in a row that find it changed, after which it is read as it is

log = logging.getLogger("zmqbroker")


class AuthorizedFile:
    """The file of the authorized, and what it has said last that made sense."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read it; raises ValueError where that cannot be, or for a bad line."""
        self.path = Path(path)
        self.keys: Mapping[str, Authorized] = {}
        self._seen = self._state()
        self._unread = 1  # looks that have found it changed since it was read; the first may come too soon to tell
        self._read()

    def has_changed(self) -> bool:
        """Look at it, and tell whether somebody else is authorized now.

        What has changed is read when the next look finds it the same, as somebody may still be writing, but not for
        ever. What cannot be read, or has a bad line, is logged, and changes nothing.
        """
        seen, before = self._state(), self._seen
        self._seen = seen
        self._unread += seen != before
        if not self._unread or (seen != before and self._unread < MOST_UNREAD):
            return False
        self._unread = int(seen != before)
        return self._is_different_now()

    def _is_different_now(self) -> bool:
        before = self.keys
        try:
            self._read()
        except ValueError as error:
            log_safely(log.error, "%s: who was authorized before still is", error)
        return self.keys != before

    def _state(self) -> tuple[int, int, int] | None:
        """Return what is different when the file has changed; None: there is none."""
        try:
            state = os.stat(self.path)
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _read(self) -> None:
        try:
            if not self.path.is_file():  # what is none may keep its reader waiting
                raise ValueError(f"cannot read {self.path}: no such file")
            with open(self.path, encoding="utf-8") as file:
                text = file.read(LARGEST + 1)
            if len(text) > LARGEST:
                raise ValueError(f"{self.path} is too large: it may have {LARGEST >> 20} MiB")
            self.keys = parse_authorized(text, str(self.path))
        except OSError as error:
            raise ValueError(f"cannot read {self.path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is no text") from None
