"""Opening a store's file, or saying in one line why not."""

import os
import sqlite3
from pathlib import Path

from zmqbroker.broker.store.disk import network_of, sync_directory
from zmqbroker.broker.store.gate import StoreError
from zmqbroker.broker.store.schema import APPLICATION, PRAGMAS, READ_SCHEMA, TABLES, VERSION
from zmqbroker.transport.limited_log import printable

FULL = "database or disk is full"  # SQLite's words; Python 3.10 has no other way to tell its errors apart
LOCKED = "database is locked"
NOT_TEXT = "Could not decode to UTF-8"
NO_DATABASE = "file is not a database"
ERRORS = (sqlite3.Error, UnicodeDecodeError)  # that it raises; the latter where it tells of what is no text
DAMAGES = ("malformed", "corrupt")  # what is in its words for a file that is


class FullError(StoreError):
    """The disk is full: what was to be stored is not, and all else is as it was."""


def store_error(path: Path, error: Exception) -> StoreError:
    """Put an error of SQLite's or the system's into one line."""
    text = str(error)
    if FULL in text:
        return FullError(printable(f"the store {path}: the disk is full"))
    if LOCKED in text:
        text = "another broker has it"
    elif NO_DATABASE in text:
        text = "it is no store of a broker, or damaged at its beginning"
    elif not text or isinstance(error, UnicodeDecodeError):  # empty: so does Python 3.10
        return damaged(path, "what it says is no text")
    elif any(word in text for word in DAMAGES):
        return damaged(path, text)
    elif isinstance(error, OSError):
        text = error.strerror or text
    return end(path, text)


def damaged(path: Path, how: str) -> StoreError:
    """Return the error for a file that is damaged."""
    return end(path, f"it is damaged ({how}); `sqlite3 {path} .recover` shows what can be had of it")


def end(path: Path, why: str) -> StoreError:
    """Return the error for a file that cannot be a store, or not any more."""
    return StoreError(printable(f"the store {path}: {' '.join(why.split())}"))


def open_file(path: Path) -> sqlite3.Connection:
    """Open a store, a new one if there is none. Nobody else can from now on. Raises StoreError."""
    network = network_of(path.parent)
    if network:
        raise end(path, f"it is on a network file system ({network}), where SQLite is not safe")
    try:
        _make(path)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except (OSError, *ERRORS) as error:
        raise store_error(path, error) from None
    try:
        _hold(connection)
        _prepare(connection, path)
    except ERRORS as error:
        connection.close()
        raise store_error(path, error) from None
    except StoreError:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    """Have an empty file, that only its owner may read, if there is none; see that one can be written to."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # not opened here: to close it would give up SQLite's locks of another one in this process
        if not path.is_file():
            raise end(path, "it is no file") from None
        if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
            raise end(path, "it cannot be written, or nothing beside it") from None
        return
    os.close(descriptor)
    sync_directory(path.parent)


def _hold(connection: sqlite3.Connection) -> None:
    """Keep Python from closing a connection that nobody closes, by a reference from its own depths.

    A forked child that ends would else close it, and with it remove the log that its parent goes on writing to.
    """
    connection.create_function("this", 0, lambda: repr(connection))


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    tables = [text for (text,) in connection.execute(READ_SCHEMA)]
    if not (application or version or tables):
        _create(connection)
    elif application != APPLICATION:
        raise end(path, "it is a database of something else")
    elif version > VERSION:
        raise end(
            path, f"it was written by a newer zmqbroker (version {version} of the file; this one knows {VERSION})"
        )
    elif version != VERSION or set(tables) != set(TABLES):
        raise damaged(path, "its tables are not as they were made")
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, str(found))


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    for table in TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
