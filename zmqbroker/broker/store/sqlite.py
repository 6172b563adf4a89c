"""The store in a file, by SQLite: a batch is a transaction, and is on the disk when `start` returns.

Memory is the queue, and the file a journal that is read when the broker starts. Only this one connection ever has it.

A known weakness: SQLite takes a damaged log for one that ends at the damage, so the last turns before a crash are then
undone, and nobody can tell. Damage to the file itself is found when it is opened, that to a row when it is read.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from zmqbroker.broker.statistics import Times
from zmqbroker.broker.store import schema
from zmqbroker.broker.store.disk import Reserve, free_bytes, lengthen
from zmqbroker.broker.store.encoding import decode, encode, encode_body, encode_request, encode_state
from zmqbroker.broker.store.gate import Batch, Finished, StoreError, unfit
from zmqbroker.broker.store.opening import ERRORS, NOT_TEXT, FullError, damaged, end, open_file, store_error
from zmqbroker.broker.store.rows import LARGEST_BODY, DamagedTask, QueueSettings, StoredTask

DEFAULT_FLOOR = 64 << 20  # bytes
RESERVE = 16 << 20  # bytes; what runs can be settled with 8, with 4 it cannot
LOG = 5 << 20  # bytes; it becomes about so long before SQLite begins it anew
RUN = 8  # bytes
SLICE = 1000  # rows that are loaded at a time
SMALL = 1 << 20  # bytes; a batch of less need not be compared with what is free
LITTLE = 4096  # bytes; a result of less is stored on a full disk, if anything is
SPARE_PAGES = 1000  # that the file keeps for what comes
PAGES_AT_ONCE = 256  # given back in one step
LARGEST_NUMBER = 1 << 62  # of a task; there is no larger one, but that of a damaged row


class SqliteStore:
    """Durable tasks in a file: see `gate.Store`."""

    def __init__(self, path: Path, floor: int = DEFAULT_FLOOR, reserve: int = RESERVE) -> None:
        """Open it, or make it. `floor` and `reserve` are in bytes, 0: none. Raises StoreError."""
        self._path = Path(os.path.realpath(path))
        self.path = str(self._path)
        self._floor = floor
        self.commits = Times()
        self._finished: list[Finished] = []
        self._has_failed = False
        self._process = os.getpid()
        self._is_shrinking = False  # pages were given back, that the log has still
        self._reserve = Reserve(Path(f"{self._path}-reserve"), reserve)
        try:
            self._open()
        except FullError:
            if not self._reserve.give_up():
                raise
            self._open()

    @property
    def floor(self) -> int:
        """How many bytes are to be free for new tasks, and for the reserve where it was given up."""
        return self._floor + self._reserve.missing

    @property
    def is_low(self) -> bool:
        """Tell whether less is free than is to be."""
        return self.free < self.floor

    def queues(self) -> list[QueueSettings]:
        """Return what was set of queues."""
        found = []
        for name, limit, limit_waiting, is_paused in self._read(schema.READ_QUEUES):
            if type(name) is not str or {type(limit), type(limit_waiting)} - {int, type(None)}:
                raise damaged(self._path, "the settings of a queue")
            found.append(QueueSettings(name, limit, limit_waiting, bool(is_paused)))
        return found

    def load(self) -> Iterator[list[StoredTask | DamagedTask]]:
        """Yield all tasks that there were when it was opened, by number, some at a time."""
        last = -(1 << 63)
        while rows := self._read(schema.READ_SOME, last, self.highest, SLICE):
            yield [decode(row) for row in rows]
            last = rows[-1][0]

    def start(self, batch: Batch) -> None:
        """Store a batch."""
        began = monotonic()
        finished = Finished(batch)
        if batch.changes_anything:
            try:
                finished = self._store(batch)
            except StoreError as error:
                raise self._fail(error) from None
            self.commits.add(monotonic() - began)
        found = {number: self._find(number, most) for number, most in batch.wanted.items()}
        self._finished.append(finished._replace(found=found))

    def fileno(self) -> None:
        """Return None: batches have finished when `start` returns."""

    def finished(self) -> list[Finished]:
        """Return the batches that were started since this was called last."""
        finished, self._finished = self._finished, []
        return finished

    def look(self) -> None:
        """See how much is free and taken up; have a reserve again once there is room for it."""
        try:
            if os.stat(self._path).st_ino != self._inode:
                raise self._fail(end(self._path, "its file was replaced"))
            self.free = free_bytes(self._path.parent)
            self._reserve.make(self.free - self._floor)
            self.size = sum(_size(f"{self._path}{suffix}") for suffix in ("", "-wal", "-reserve"))
        except OSError as error:
            raise self._fail(store_error(self._path, error)) from None

    def tidy(self) -> bool:
        """Give back some of what is unused, for a few milliseconds; tell whether there is more."""
        try:
            if self._read("PRAGMA freelist_count")[0][0] > SPARE_PAGES:
                self._is_shrinking = True
                self._give_back(PAGES_AT_ONCE)
                return True
            if self._is_shrinking:
                self._read("PRAGMA wal_checkpoint(TRUNCATE)")
                self._is_shrinking = False
        except FullError:
            pass  # later there may be room
        return False

    def close(self) -> None:
        """End well, unless something has failed before: then nothing more is said of how it ended.

        In a forked child it does nothing: the file is its parent's.
        """
        if os.getpid() != self._process:
            return
        try:
            if not self._has_failed:
                self._transact(lambda: self._set("has_ended_well", 1))
                self._read("PRAGMA wal_checkpoint(TRUNCATE)")
        except FullError:
            pass  # then it has not ended well: what ran counts once more than it should
        finally:
            self._connection.close()

    # How it is stored

    def _store(self, batch: Batch) -> Finished:
        """Store as much of a batch as there is room for: on a full disk what runs can still be settled."""
        left = self._unfit(batch)
        fitting = batch.without_results(left) if left else batch
        refused: frozenset[int] = frozenset()
        try:
            self._write(fitting)
        except FullError:
            self._reserve.give_up()
            refused, fitting = frozenset(batch.new), fitting.without_new()
            try:
                self._write(fitting)
            except FullError:
                left |= {number for number, (_, body) in fitting.results.items() if sum(map(len, body)) > LITTLE}
                fitting = fitting.without_results(left & fitting.results.keys())
                self._write(fitting)
            self.look()
        return Finished(batch, refused, {number: fitting.states[number] for number in left})

    def _unfit(self, batch: Batch) -> set[int]:
        """Return the results that cannot be stored: each is written twice, to the log and from there to its place."""
        if batch.size < SMALL:
            return set()
        large = {number for number, (_, body) in batch.results.items() if sum(map(len, body)) > LARGEST_BODY}
        try:
            return large | unfit(batch.results, free_bytes(self._path.parent) / 2)
        except OSError as error:
            raise store_error(self._path, error) from None

    def _write(self, batch: Batch) -> None:
        self._transact(lambda: self._execute(batch))

    def _transact(self, act: Callable[[], None]) -> None:
        """Do something in a transaction; raises FullError when it is as if nothing was done, else StoreError."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            act()
            connection.execute("COMMIT")
        except ERRORS as error:
            failure = store_error(self._path, error)
            if isinstance(failure, FullError) and connection.in_transaction:
                connection.execute("ROLLBACK")
            raise failure from None

    def _execute(self, batch: Batch) -> None:
        many = self._connection.executemany
        if batch.new:
            many(schema.INSERT, map(encode, batch.new.values()))
        if batch.states:
            rows = [(*encode_state(state), number) for number, state in batch.states.items()]
            self._check(many(schema.SET_STATE, rows), rows)
        if batch.results:
            results = batch.results.items()
            rows = [(*encode_state(state), *encode_body(body), number) for number, (state, body) in results]
            self._check(many(schema.SET_RESULT, rows), rows)
        if batch.renewed:
            rows = [(*encode_request(request)[1:], number) for number, request in batch.renewed.items()]
            self._check(many(schema.SET_REQUEST, rows), rows)
        if batch.forgotten:
            many(schema.DELETE, [(number,) for number in batch.forgotten])
        for name, settings in batch.queues.items():
            if settings is None:
                self._connection.execute(schema.DELETE_QUEUE, (name,))
            else:
                self._connection.execute(schema.SET_QUEUE, settings)

    def _check(self, cursor: sqlite3.Cursor, rows: list[Any]) -> None:
        """See that each row was there: a damaged page may hide some."""
        if cursor.rowcount != len(rows):
            raise damaged(self._path, "a task that was stored is not found")

    def _fail(self, failure: StoreError) -> StoreError:
        self._has_failed = True
        return failure

    # How it is read

    def _open(self) -> None:
        self._connection = open_file(self._path)
        try:
            self._begin()
            self.look()
            self._reserve.make(self.free / 2)  # also on a disk that is nearly full
            self._lengthen_log()
        except StoreError:
            self._connection.close()
            raise

    def _lengthen_log(self) -> None:
        """Have the log as long as it becomes, if there is room. SQLite takes it to end where its own part does."""
        if self.free - self._reserve.missing - self.floor > LOG:
            with suppress(OSError):  # then it grows as it is written
                lengthen(f"{self._path}-wal", LOG)

    def _begin(self) -> None:
        """Read what there is to know at once, and begin a life of the broker."""
        self._inode = os.stat(self._path).st_ino
        self.highest: int = max(self._read(schema.READ_HIGHEST)[0][0] or 0, 0)
        run = self._get("run")
        self.run: bytes = os.urandom(RUN) if run is None else run
        if type(self.run) is not bytes or len(self.run) != RUN or self.highest > LARGEST_NUMBER:
            raise damaged(self._path, "what it says of itself")
        self.has_ended_well = self._get("has_ended_well") == 1
        self._transact(self._begin_life)

    def _begin_life(self) -> None:
        self._set("run", self.run)
        self._set("has_ended_well", 0)

    def _give_back(self, pages: int) -> None:
        try:
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` would do one page of them
        except ERRORS as error:
            failure = store_error(self._path, error)
            raise failure if isinstance(failure, FullError) else self._fail(failure) from None

    def _get(self, name: str) -> Any:
        rows = self._read(schema.READ_SETTING, name)
        return rows[0][0] if rows else None

    def _set(self, name: str, value: bytes | int) -> None:
        self._connection.execute(schema.SET_SETTING, (name, value))

    def _find(self, number: int, most: int) -> StoredTask | DamagedTask | None:
        rows = self._read(schema.READ, most, number)
        return decode(rows[0]) if rows else None

    def _read(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except ERRORS as error:
            if NOT_TEXT not in str(error):
                failure = store_error(self._path, error)
                raise failure if isinstance(failure, FullError) else self._fail(failure) from None
        self._connection.text_factory = _as_text  # a damaged row: read it nevertheless, and what is beside it
        try:
            return self._connection.execute(statement, values).fetchall()
        finally:
            self._connection.text_factory = str


def _as_text(text: bytes) -> str:
    return text.decode(errors="replace")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
