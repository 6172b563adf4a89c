"""A disk that fills up: what runs is settled, what is new is refused, and nothing that was stored is lost."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulated_store import number_of
from store_support import LATER, batch_of, stored

from zmqbroker.broker.store.disk import Reserve
from zmqbroker.broker.store.gate import Batch, Finished, StoreError
from zmqbroker.broker.store.rows import DamagedTask, State
from zmqbroker.broker.store.sqlite import SqliteStore
from zmqbroker.wire import DONE, FAILED

SIZE = 24 << 20  # bytes of the disk
RESERVE = 8 << 20
BODY = b"x" * 4000
SETTLED = State(DONE, None, 1, 1, until=LATER)


pytest_plugins = ["disk_fixtures"]


@pytest.fixture
def disk(make_disk: Callable[[int], Path]) -> Path:
    return make_disk(SIZE)


def store_on(disk: Path, floor: int = 4 << 20) -> SqliteStore:
    return SqliteStore(disk / "tasks.db", floor=floor, reserve=RESERVE)


def turn(store: SqliteStore, batch: Batch) -> Finished:
    store.start(batch)
    (finished,) = store.finished()
    return finished


def fill(store: SqliteStore) -> list[int]:
    """Store tasks until no more are taken; return their numbers."""
    numbers: list[int] = []
    while True:
        some = range(len(numbers) + 1, len(numbers) + 65)
        if turn(store, batch_of(*(stored(number, BODY) for number in some))).refused:
            return numbers
        numbers += some


def fill_up(disk: Path) -> None:
    """Leave no room for anybody."""
    with open(disk / "ballast", "wb") as file:
        while os.statvfs(disk).f_bavail:
            file.write(bytes(4096))
            file.flush()


def settled(numbers: list[int]) -> Batch:
    batch = Batch()
    for number in numbers:
        batch.change(number, SETTLED, [b"result"])
    return batch


def all_tasks(store: SqliteStore) -> list[int]:
    found = [task for some in store.load() for task in some]
    assert not any(isinstance(task, DamagedTask) for task in found)
    return [number_of(task) for task in found]


def test_what_runs_is_settled_on_a_full_disk_and_what_is_new_is_refused(disk):
    store = store_on(disk)
    assert (disk / "tasks.db-reserve").stat().st_size == RESERVE
    numbers = fill(store)
    assert len(numbers) > 1000
    assert not (disk / "tasks.db-reserve").exists()
    for start in range(0, len(numbers), 64):
        assert not turn(store, settled(numbers[start : start + 64])).unfit
    store.close()
    again = store_on(disk)
    assert all(task.state == SETTLED for some in again.load() for task in some)
    again.close()


def test_what_was_refused_is_not_there_and_all_else_of_its_turn_is(disk):
    store = store_on(disk)
    numbers = fill(store)
    batch = batch_of(*(stored(number, BODY) for number in range(100_001, 104_097)))
    batch.forget(1)
    finished = turn(store, batch)
    assert len(finished.refused) == 4096
    store.close()
    again = store_on(disk)
    assert all_tasks(again) == numbers[1:]
    again.close()


def test_when_there_is_room_again_tasks_are_taken_and_there_is_a_reserve_again(disk):
    ballast = disk / "ballast"
    store = store_on(disk)
    ballast.write_bytes(bytes(10 << 20))
    fill(store)
    store.look()
    assert store.is_low
    assert not (disk / "tasks.db-reserve").exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", f"remount,size={4 * SIZE}", str(disk)], check=True)
    store.look()
    assert not store.is_low
    assert (disk / "tasks.db-reserve").exists()
    assert not turn(store, batch_of(stored(200_000, BODY))).refused
    store.close()


def test_a_result_larger_than_what_is_free_is_stored_as_failed_and_small_ones_as_they_are(disk):
    store = store_on(disk)
    turn(store, batch_of(stored(1), stored(2), stored(3)))
    batch = settled([1, 2])
    large = 20 << 20
    batch.change(3, SETTLED, [bytes(large)])
    reason = f"the result ({large} bytes) does not fit on the store's disk"
    assert turn(store, batch).unfit == {3: SETTLED._replace(status=FAILED, reason=reason)}
    assert (disk / "tasks.db-reserve").exists()
    store.close()
    again = store_on(disk)
    assert [task.state.status for some in again.load() for task in some] == [DONE, DONE, FAILED]
    again.close()


def test_a_store_opens_on_a_disk_that_is_full_by_its_reserve(disk):
    store = store_on(disk)
    turn(store, batch_of(stored(1)))
    store.close()
    fill_up(disk)
    again = store_on(disk)
    assert again.is_low
    assert not turn(again, settled([1])).unfit
    again.close()


def test_a_disk_that_is_full_from_the_start_is_told_in_one_line(disk):
    fill_up(disk)
    with pytest.raises(StoreError, match=r"^the store .*: the disk is full$"):
        store_on(disk)


# What needs no disk of its own


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Have whatever would make a file longer be an error of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ends(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    return str(caught.value)


def test_an_error_of_the_disk_is_the_end_and_is_not_tried_again(tmp_path):
    store = SqliteStore(tmp_path / "tasks.db", floor=0, reserve=0)
    turn(store, batch_of(stored(1)))
    with files_no_longer_than(100_000):
        assert "disk I/O error" in ends(lambda: store.start(batch_of(stored(2, bytes(1_000_000)))))
        assert store.finished() == []
    store.close()
    again = SqliteStore(tmp_path / "tasks.db", floor=0, reserve=0)
    assert not again.has_ended_well
    assert all_tasks(again) == [1]
    again.close()


def test_less_than_the_floor_is_seen_before_the_disk_is_full(tmp_path):
    store = SqliteStore(tmp_path / "tasks.db", floor=1 << 60, reserve=0)
    assert store.is_low
    assert store.free > 0
    assert store.size > 0
    store.close()


def test_a_reserve_is_made_only_where_there_is_room(tmp_path):
    reserve = Reserve(tmp_path / "reserve", 3 << 20)
    reserve.make((3 << 20) - 1)
    assert not reserve.is_there
    assert not reserve.give_up()
    assert reserve.missing == 3 << 20
    reserve.make(3 << 20)
    assert reserve.missing == 0
    assert (tmp_path / "reserve").stat().st_size == 3 << 20
    assert Reserve(tmp_path / "reserve", 3 << 20).is_there
    assert reserve.give_up()
    assert not (tmp_path / "reserve").exists()


def test_a_reserve_that_could_not_be_made_leaves_nothing(tmp_path):
    reserve = Reserve(tmp_path / "reserve", 3 << 20)
    with files_no_longer_than(1 << 20):
        reserve.make(1 << 30)
    assert not reserve.is_there
    assert not (tmp_path / "reserve").exists()
