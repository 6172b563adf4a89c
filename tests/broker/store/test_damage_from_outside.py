"""A broker whose store has a log that was cut off, or a byte that has changed: no wrong body, and no traceback."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from asking import Serving, serving

from zmqbroker.broker.store import opening
from zmqbroker.broker.store.gate import DAMAGED, StoreError

PAGE, SECTOR = 4096, 512  # bytes
DONE, LEFT = 6, 6  # tasks of a story: that are done, that are not
KEYS = [f"key-{number}" for number in range(DONE + LEFT)]
UNSETTLED = ("waiting", "running")
NOTHING = "unknown"


def body_of(key: str) -> bytes:
    return b"<the body of %s>" % key.encode() * 30


def result_of(key: str) -> bytes:
    return b"<the result of %s>" % key.encode() * 40


def tell(broker: Serving) -> Iterator[dict[str, str]]:
    """Leave tasks, and have some done; yield what has become of each after each turn."""
    worker = broker.worker()
    now = dict.fromkeys(KEYS, NOTHING)
    yield dict(now)
    for key in KEYS:
        broker.leave(key, body_of(key))
        now[key] = "unsettled"
        yield dict(now)
    for key in KEYS[:DONE]:
        attempt_id, body = worker.take()
        assert body == [body_of(key)]
        worker.reply(attempt_id, result_of(key))
        assert broker.fetch(key, 1000)[2] == [result_of(key)]
        now[key] = "done"
        yield dict(now)


def look(broker: Serving, key: str) -> str:
    """Return what has become of a task; a result that it has is its own."""
    status, reason, body = broker.fetch(key)
    assert (status == "done") == (body == [result_of(key)])
    if reason == DAMAGED:
        return "damaged"
    return "unsettled" if status in UNSETTLED else status


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stores opened without waiting for the disk: what they read is not about that."""
    pragmas = [pragma.replace("synchronous = FULL", "synchronous = OFF") for pragma in opening.PRAGMAS]
    monkeypatch.setattr(opening, "PRAGMAS", pragmas)


@pytest.mark.parametrize("step", [61 * SECTOR, pytest.param(3 * SECTOR, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unsynced")
def test_a_broker_with_a_log_that_was_cut_anywhere_goes_on_from_some_moment(tmp_path: Path, step: int):
    path, copy = tmp_path / "tasks.db", tmp_path / "copy.db"
    with serving(path) as broker:
        moments = list(tell(broker))
        file, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()  # as a broker leaves them that is killed
    reached = 0
    for length in [*range(0, len(log.rstrip(b"\0")), step), len(log)]:
        copy.write_bytes(file)
        Path(f"{copy}-wal").write_bytes(log[:length])
        with serving(copy) as broker:
            moment = moments.index({key: look(broker, key) for key in KEYS})
        assert broker.failure is None
        assert moment >= reached
        reached = moment
    assert reached == len(moments) - 1


@contextmanager
def a_changed_byte(text: bytes, path: Path, place: int, by: int) -> Iterator[None]:
    """Have a file with a byte that has changed, and say which one if that is why something fails."""
    damaged = bytearray(text)
    damaged[place] ^= by
    path.write_bytes(damaged)
    Path(f"{path}-wal").unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        print(f"the byte at {place}: {text[place]} became {damaged[place]}")
        raise


def look_at(path: Path) -> str:
    """Have a broker serve what is damaged, look at all of it, have all done that waits, and leave something new."""
    try:
        with serving(path) as broker:
            found = [look(broker, key) for key in KEYS]
            if broker.fetch("nobody's")[0] == "unavailable":
                return "ended"
            worker = broker.worker()
            for _ in range(found.count("unsettled")):
                attempt_id, body = worker.take()
                assert body in [[body_of(key)] for key in KEYS[DONE:]]
                worker.reply(attempt_id, b"done")
            broker.leave("new", b"task")
    except StoreError as error:
        return "refused" if str(error).isprintable() else "refused in several lines"
    assert broker.failure is None
    assert found.count(NOTHING) <= 1  # its key or its number has changed
    return "sound" if set(found) == {"done", "unsettled"} else "damaged"


@pytest.mark.parametrize("flips", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unsynced")
def test_a_broker_gives_nobody_what_is_another_ones_when_a_byte_has_changed_in_any_page(tmp_path: Path, flips: int):
    path, chance = tmp_path / "tasks.db", random.Random(flips)
    with serving(path) as broker:
        for _ in tell(broker):
            pass
    sound, seen = path.read_bytes(), set()
    for page in range(len(sound) // PAGE):
        for _ in range(flips):
            place = page * PAGE + chance.choice([chance.randrange(PAGE), chance.randrange(120)])
            with a_changed_byte(sound, path, place, 1 << chance.randrange(8)):
                seen.add(look_at(path))
    assert seen <= {"refused", "ended", "damaged", "sound"}
    assert len(seen) > 2 or flips == 1
