"""A process that is killed, a log that was cut off, a byte that has changed: never a wrong task, never a traceback."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE, TOP
from simulated_store import SimulatedStore, number_of
from store_support import NO_RESERVE, Story, batch_of, stored

from zmqbroker.broker.store import opening
from zmqbroker.broker.store.gate import Batch, StoreError
from zmqbroker.broker.store.rows import DamagedTask, StoredTask
from zmqbroker.broker.store.sqlite import SqliteStore

HERE = Path(__file__).parent
Tasks = list[StoredTask | DamagedTask]


def opened(path: Path) -> SqliteStore:
    return SqliteStore(path, **NO_RESERVE)


def load(store: SqliteStore | SimulatedStore) -> Tasks:
    return [task for some in store.load() for task in some]


def load_again(path: Path) -> Tasks:
    store = opened(path)
    try:
        return load(store)
    finally:
        store.close()


def told(story: Story) -> Tasks:
    return load(SimulatedStore(story.disk))


# Killed at any moment


def stop_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stores opened without waiting for the disk: what they read is not about that."""
    pragmas = [pragma.replace("synchronous = FULL", "synchronous = OFF") for pragma in opening.PRAGMAS]
    monkeypatch.setattr(opening, "PRAGMAS", pragmas)


def environment() -> dict[str, str]:
    """Return the environment of a process that imports what is beside this file."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent.parent, TOP)))}


def turns_of_a_life(path: Path, seed: int, turns: int, stored: int) -> int:
    """Have a process go on with a story, and kill it once it has stored so many turns; return the last one."""
    command = [sys.executable, str(HERE / "store_writer.py"), str(path), str(seed), str(turns)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as writer:
        bound = threading.Timer(PATIENCE, writer.kill)
        bound.start()
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(stored)]
        writer.kill()
        lines += writer.stdout.read().splitlines(keepends=True)
        bound.cancel()
    whole = [int(line) for line in lines if line.endswith("\n")]
    assert len(whole) >= stored
    return whole[-1]


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_loses_nothing_and_leaves_no_turn_in_part(tmp_path, kills):
    path, chance = tmp_path / "tasks.db", random.Random(kills)
    story = Story(seed=kills)
    for _ in range(kills):
        last = turns_of_a_life(path, kills, story.turns, chance.randint(1, 60))
        while story.turns < last:
            story.tell()
        store = opened(path)
        found = load(store)
        store._connection.close()  # it does not end well
        if found != told(story):  # the turn that was begun when it was killed
            story.tell()
        assert found == told(story)


FORKS = """
import os, sys
from pathlib import Path
from store_support import NO_RESERVE, batch_of, stored
from zmqbroker.broker.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]), **NO_RESERVE)
store.start(batch_of(stored(1)))
child = os.fork()
if not child:
    store.close()
    sys.exit()  # in order, so that Python drops what there is
os.waitpid(child, 0)
store.start(batch_of(stored(2)))
os._exit(0)
"""


def test_a_forked_child_that_ends_leaves_the_store_alone(tmp_path):
    path = tmp_path / "tasks.db"
    command = [sys.executable, "-c", FORKS, str(path)]
    subprocess.run(command, env=environment(), check=True, timeout=PATIENCE)
    assert load_again(path) == [stored(1), stored(2)]


# A log that was cut off


@pytest.mark.parametrize("turns", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_log_that_is_cut_anywhere_has_whole_turns_from_the_first_one_on(tmp_path, monkeypatch, turns):
    path, story = tmp_path / "tasks.db", Story(seed=turns)
    opened(path).close()
    store = opened(path)
    states = [told(story)]
    for _ in range(turns):
        store.start(story.tell())
        states.append(told(story))
    file, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    store._connection.close()
    stop_syncing(monkeypatch)
    copy, reached = tmp_path / "copy.db", 0
    for length in [*range(0, len(log.rstrip(b"\0")), 512), len(log)]:
        copy.write_bytes(file)
        Path(f"{copy}-wal").write_bytes(log[:length])
        turn = states.index(load_again(copy))
        assert turn >= reached
        reached = turn
    assert reached == turns


# A byte that has changed


def is_right(task: StoredTask | DamagedTask | None, original: StoredTask | None, may_be_left: bool = False) -> bool:
    """Tell whether a task is as it was stored, or known not to be. How often it was handed out may be wrong."""
    if isinstance(task, DamagedTask):
        return True
    if (
        task is None
        or original is None
        or task.state.status != original.state.status
        or task.request != original.request
    ):
        return False
    return task.body == original.body or (may_be_left and task.body is None and task.state.until is not None)


def one_line(error: StoreError, what: str) -> str:
    assert str(error).isprintable()
    return what


def look_at(path: Path, original: dict[int, StoredTask]) -> str:
    """Open a damaged file, compare all that it has with what it had, and store something; return what was found."""
    try:
        store = opened(path)
    except StoreError as error:
        return one_line(error, "refused")
    try:
        found, batch = {number_of(task): task for task in load(store)}, Batch()
        for number in original.keys() | found.keys():
            batch.want(number)
        store.start(batch)
        ((_, _, _, read),) = store.finished()
        store.queues()
        store.start(batch_of(stored(max(*original, store.highest) + 1)))
    except StoreError as error:
        return one_line(error, "ended")
    finally:
        store.close()
    for number, task in found.items():
        assert is_right(task, original.get(number), may_be_left=True)
        assert is_right(read[number], original.get(number))
    missing = original.keys() - found.keys()
    damaged = [task for task in found.values() if isinstance(task, DamagedTask)]
    assert len(missing) <= len(damaged)  # one whose number has changed
    return "damaged" if damaged else "sound"


@pytest.mark.parametrize("flips", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_byte_that_has_changed_in_any_page_gives_no_wrong_task(tmp_path, monkeypatch, flips):
    path, story, chance = tmp_path / "tasks.db", Story(seed=1), random.Random(flips)
    store = opened(path)
    for _ in range(12):
        store.start(story.tell())
    store.close()
    sound = path.read_bytes()
    stop_syncing(monkeypatch)
    outcomes = []
    for page in range(len(sound) // 4096):
        for _ in range(flips):
            place = page * 4096 + chance.choice([chance.randrange(4096), chance.randrange(120)])
            damaged = bytearray(sound)
            damaged[place] ^= chance.choice([1 << chance.randrange(8), chance.randint(1, 255)])
            path.write_bytes(damaged)
            for suffix in ("-wal", "-journal"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            try:
                outcomes.append(look_at(path, story.disk.tasks))
            except BaseException:
                print(f"the byte at {place}: {sound[place]} became {damaged[place]}")
                raise
    assert {"refused", "damaged", "sound"} <= set(outcomes)
