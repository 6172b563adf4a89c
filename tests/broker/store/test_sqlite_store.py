"""The store in a file: what was stored is there again, as it was; and what keeps it from being opened."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
from helpers import PATIENCE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_store import SimulatedStore, number_of
from store_support import LATER, NO_RESERVE, Story, batch_of, stored

from zmqbroker.broker.store import opening, schema, sqlite
from zmqbroker.broker.store.disk import network_of
from zmqbroker.broker.store.encoding import decode, encode
from zmqbroker.broker.store.gate import Batch, Store, StoreError
from zmqbroker.broker.store.rows import DamagedTask, QueueSettings, Request, State, StoredTask
from zmqbroker.broker.store.sqlite import SqliteStore
from zmqbroker.wire import DONE, FAILED

RUNNING = State("running", None, 1, 1, worker="some")
SETTLED = State(DONE, None, 1, 1, until=LATER)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.db"


def opened(path: Path) -> SqliteStore:
    return SqliteStore(path, **NO_RESERVE)


def load(store: Store) -> list[StoredTask | DamagedTask]:
    return [task for some in store.load() for task in some]


def load_again(path: Path) -> list[StoredTask | DamagedTask]:
    store = opened(path)
    try:
        return load(store)
    finally:
        store.close()


def store_all(path: Path, *batches: Batch) -> None:
    store = opened(path)
    for batch in batches:
        store.start(batch)
    store.close()


def change(path: Path, *statements: str) -> None:
    """Change a file that nobody has open, by other means than the store."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# What was stored is there again


def test_a_task_is_there_again_with_all_that_was_asked_for(path):
    request = Request(7, b"8 bytes.", "key", "mail", 1.5e9, "me", "gr\ud83dup", -3, 0, 5, 0.5, 2, 1e300, LATER, 60.0)
    task = StoredTask(request, State(due=LATER, hand_outs=2, attempts=1, reason="nö"), [b"one", b"", b"three"], 8)
    store_all(path, batch_of(task))
    assert load_again(path) == [task]


@pytest.mark.parametrize("body", [[b""], [b"one"], [b"", b""], [b"a", b"bc", b""], [b"\x00" * 100_000]])
def test_a_body_is_there_again_frame_by_frame(path, body):
    store_all(path, batch_of(stored(1, *body)))
    (task,) = load_again(path)
    assert task.body == body


def test_frames_are_stored_as_they_came_by_a_socket(path):
    frames = [zmq.Frame(b"one"), memoryview(b"two"), b"three"]
    store = opened(path)
    store.start(batch_of(stored(1, *frames), stored(2, zmq.Frame(b"alone")), stored(3, memoryview(b"too"))))
    store.close()
    assert [task.body for task in load_again(path)] == [[b"one", b"two", b"three"], [b"alone"], [b"too"]]


def test_a_result_replaces_the_body_and_a_failure_keeps_it(path):
    batch = Batch()
    batch.change(1, SETTLED, [b"result"])
    failed = State(FAILED, None, 3, 3, 0, "no", "some", LATER)
    batch.change(2, failed)
    store_all(path, batch_of(stored(1), stored(2)), batch)
    store = opened(path)
    batch = Batch()
    for number in (1, 2, 3):
        batch.want(number)
    store.start(batch)
    ((_, _, _, found),) = store.finished()
    store.close()
    assert found[1] == StoredTask(stored(1).request, SETTLED, [b"result"], 6)
    assert found[2] == stored(2)._replace(state=failed)
    assert found[3] is None


def test_what_is_settled_is_loaded_without_its_body(path):
    batch = Batch()
    batch.change(1, SETTLED, [b"result"])
    store_all(path, batch_of(stored(1)), batch)
    assert load_again(path) == [StoredTask(stored(1).request, SETTLED, None, 6)]


def test_what_is_forgotten_is_not_there_any_more(path):
    batch = Batch()
    batch.forget(1)
    batch.forget(3)  # it never was
    store_all(path, batch_of(stored(1), stored(2)), batch)
    assert load_again(path) == [stored(2)]


def test_it_loads_some_at_a_time_and_goes_on_storing_meanwhile(path, monkeypatch):
    monkeypatch.setattr(sqlite, "SLICE", 2)
    store_all(path, batch_of(*map(stored, range(1, 6))))
    store = opened(path)
    assert store.highest == 5
    slices = []
    for some in store.load():
        slices.append([number_of(task) for task in some])
        store.start(batch_of(stored(5 + len(slices))))
    store.close()
    assert slices == [[1, 2], [3, 4], [5]]


def test_settings_of_queues_are_there_again_until_they_are_dropped(path):
    batch = Batch()
    batch.set_queue("mail", QueueSettings("mail", 3, None, True))
    batch.set_queue("default", QueueSettings("default", None, 100))
    store_all(path, batch)
    store = opened(path)
    assert store.queues() == [QueueSettings("default", None, 100, False), QueueSettings("mail", 3, None, True)]
    batch = Batch()
    batch.set_queue("mail", None)
    store.start(batch)
    assert store.queues() == [QueueSettings("default", None, 100, False)]
    store.close()


def test_each_life_has_the_same_run_and_knows_how_the_one_before_ended(path):
    store = opened(path)
    assert not store.has_ended_well
    store.close()
    again = opened(path)
    assert again.run == store.run
    assert len(again.run) == 8
    assert again.has_ended_well
    again._connection.close()  # as a process does that is killed
    third = opened(path)
    assert not third.has_ended_well
    third.close()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), lives=st.lists(st.integers(1, 8), min_size=1, max_size=3))
def test_a_file_has_what_the_simulated_store_has(tmp_path_factory, seed, lives):
    path = tmp_path_factory.mktemp("story") / "tasks.db"
    story = Story(seed)
    for turns in lives:
        store = opened(path)
        for _ in range(turns):
            batch = story.tell()
            for number in list(batch.results)[:3]:
                batch.want(number)
            store.start(batch)
            (finished,) = store.finished()
            assert finished.found == {number: story.disk.find(number, most) for number, most in batch.wanted.items()}
        store.close()
        assert load_again(path) == load(SimulatedStore(story.disk))


def test_a_task_that_begins_anew_has_another_request_and_the_same_body(path):
    first, batch = stored(1, b"body", expires=5.0, priority=3), Batch()
    batch.renew(first.request._replace(accepted=100.0, expires=105.0))
    batch.change(1, State("waiting", None, 4))
    store_all(path, batch_of(first, stored(2)), batch)
    (task, _) = load_again(path)
    assert task == StoredTask(first.request._replace(accepted=100.0, expires=105.0), State(hand_outs=4), [b"body"], 4)


def test_what_begins_anew_and_is_forgotten_in_the_same_turn_is_forgotten(path):
    batch = Batch()
    batch.renew(stored(1).request)
    batch.forget(1)
    store_all(path, batch_of(stored(1)), batch)
    assert load_again(path) == []


def test_a_large_body_of_a_settled_task_may_be_left_where_it_is(path):
    store = opened(path)
    store.start(batch_of(stored(1, b"x" * 10), stored(2, b"x" * 10)))
    batch = Batch()
    batch.change(1, State(FAILED, until=LATER))
    for number in (1, 2):
        batch.want(number, 9)
    store.start(batch)
    first, second = store.finished()[-1].found.values()
    assert (first.body, first.size, second.body) == (None, 10, [b"x" * 10])
    batch = Batch()
    batch.want(1, 9)
    batch.want(1)
    store.start(batch)
    assert store.finished()[-1].found[1].body == [b"x" * 10]
    store.close()


def test_text_from_outside_that_is_none_is_stored_as_far_as_it_can_be(path):
    batch = Batch()
    batch.change(1, State(FAILED, reason="half \ud83d", worker="\udcff", until=LATER))
    store_all(path, batch_of(stored(1)), batch)
    (task,) = load_again(path)
    assert (task.state.reason, task.state.worker) == ("half ?", "?")


def test_how_long_batches_take_is_counted_and_asking_is_no_batch(path):
    store = opened(path)
    store.start(batch_of(stored(1)))
    batch = Batch()
    batch.want(1)
    store.start(batch)
    assert sum(store.commits.counts) == 1
    assert store.commits.total > 0
    store.close()


def test_a_path_is_taken_as_it_is_and_only_its_owner_may_read_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store_all(Path(":memory:"), batch_of(stored(1)))
    assert load_again(tmp_path / ":memory:") == [stored(1)]
    assert stat.S_IMODE(os.stat(tmp_path / ":memory:").st_mode) == 0o600


def test_the_file_is_set_up_as_it_should_be(path):
    store = opened(path)
    pragmas = ["journal_mode", "synchronous", "auto_vacuum", "locking_mode", "secure_delete", "wal_autocheckpoint"]
    found = [store._connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]
    assert found == ["wal", 2, 2, "exclusive", 0, 1000]
    assert [one.name for one in path.parent.iterdir()].count("tasks.db-shm") == 0
    store.close()


# The size of the file


def test_the_log_is_as_long_at_first_as_it_becomes_and_ends_where_its_own_part_does(path):
    store = opened(path)
    log = Path(f"{path}-wal")
    assert log.stat().st_size == sqlite.LOG
    for number in range(1, 1001):
        store.start(batch_of(stored(number, b"x" * 6000)))
    assert log.stat().st_size == sqlite.LOG
    copy = path.with_name("copy.db")  # as a broker leaves it that is killed
    copy.write_bytes(path.read_bytes())
    Path(f"{copy}-wal").write_bytes(log.read_bytes())
    store.close()
    assert not log.exists()
    assert load_again(copy) == [stored(number, b"x" * 6000) for number in range(1, 1001)]


def test_the_log_takes_no_room_that_is_to_be_free(path, monkeypatch):
    monkeypatch.setattr(sqlite, "free_bytes", lambda _: sqlite.LOG)
    store = opened(path)
    assert Path(f"{path}-wal").stat().st_size < sqlite.LOG
    store.start(batch_of(stored(1)))
    store.close()
    assert load_again(path) == [stored(1)]


def test_what_is_unused_is_given_back_step_by_step(path):
    store = opened(path)
    numbers = range(1, 4001)
    store.start(batch_of(*(stored(number, b"x" * 6000) for number in numbers)))
    store.look()
    assert store.size > 24 << 20
    batch = Batch()
    for number in numbers:
        batch.forget(number)
    store.start(batch)
    steps = 0
    while store.tidy():
        steps += 1
    assert 10 < steps < 40
    assert not store.tidy()
    store.look()
    assert store.size < 6 << 20
    store.start(batch_of(stored(5000)))
    assert not store.tidy()
    store.close()
    assert load_again(path) == [stored(5000)]


# What keeps it from being opened, or from going on


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        opened(path)
    text = str(caught.value)
    assert text.isprintable()
    assert str(path) in text
    return text


def test_a_file_that_another_broker_has_is_refused(path):
    holder = opened(path)
    assert refusal(path).endswith("another broker has it")
    code = (
        f"from zmqbroker.broker.store.sqlite import SqliteStore as S; from pathlib import Path; S(Path({str(path)!r}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert "another broker has it" in other.stderr
    holder.start(batch_of(stored(1)))
    holder.close()
    assert load_again(path) == [stored(1)]


def test_a_newer_file_is_refused_and_left_as_it_is(path):
    store_all(path, batch_of(stored(1)))
    change(path, "PRAGMA user_version = 2")
    assert "newer zmqbroker (version 2 of the file; this one knows 1)" in refusal(path)
    change(path, "PRAGMA user_version = 1")
    assert load_again(path) == [stored(1)]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_refused_as_that(path, make):
    make(path)
    with pytest.raises(StoreError, match=r"it is no file$"):
        opened(path)


def test_a_name_that_is_too_long_is_refused_in_one_line(tmp_path):
    assert "too long" in refusal(tmp_path / ("long" * 75))


def test_only_its_owner_may_read_what_is_beside_it(path):
    SqliteStore(path, floor=0, reserve=1000).close()
    assert stat.S_IMODE(path.with_name(f"{path.name}-reserve").stat().st_mode) == 0o600


@pytest.mark.parametrize("statement", ["CREATE TABLE other (one)", "PRAGMA application_id = 1"])
def test_a_database_of_something_else_is_refused(path, statement):
    change(path, statement)
    assert "database of something else" in refusal(path)


def test_a_store_with_other_tables_is_refused(path):
    opened(path).close()
    change(path, "ALTER TABLE task RENAME COLUMN due TO duf")
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("byte", [b"\xaf", b"Z", b"\0"])
def test_a_store_whose_tables_cannot_be_read_is_refused(path, byte):
    opened(path).close()
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"CREATE TABLE setting", b"CREAT" + byte + b" TABLE setting"))
    assert "damaged" in refusal(path)


def test_what_is_no_database_is_refused(path):
    path.write_bytes(b"something else " * 1000)
    assert "no store of a broker" in refusal(path)


def test_a_file_without_its_second_half_is_refused(path):
    store_all(path, batch_of(*map(stored, range(1, 1000))))
    os.truncate(path, os.path.getsize(path) // 2)
    assert ".recover" in refusal(path)


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    assert "No such file or directory" in refusal(tmp_path / "missing" / "tasks.db")


def test_a_file_that_is_gone_or_another_one_is_the_end(path):
    store = opened(path)
    path.rename(f"{path}.old")
    with pytest.raises(StoreError, match="No such file"):
        store.look()
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="replaced"):
        store.look()
    store.close()


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:40 / /srv/with\\040space rw - nfs4 server:/x rw
32 22 0:41 / /srv rw - tmpfs tmpfs rw
33 22 0:42 / /far rw shared:7 - fuse.sshfs server: rw
34 22 0:43 / /near rw - fuse.ntfs /dev/b rw
35 33 0:44 / /far/near rw - xfs /dev/c rw
"""


@pytest.mark.parametrize(
    ("place", "network"),
    [
        ("/", ""),
        ("/srv", ""),
        ("/srv/with space/a", "nfs4"),
        ("/far", "fuse.sshfs"),
        ("/near", ""),
        ("/far/near/a", ""),
    ],
)
def test_a_network_file_system_is_known(tmp_path, place, network):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert network_of(Path(place), mounts) == network


def test_where_the_system_does_not_tell_no_network_is_known(tmp_path):
    assert network_of(tmp_path, tmp_path / "missing") == ""


def test_a_store_on_a_network_file_system_is_refused(path, monkeypatch):
    monkeypatch.setattr(opening, "network_of", lambda place: "nfs4")
    assert "network file system (nfs4)" in refusal(path)
    assert not path.exists()


# Rows that cannot be relied on


@pytest.mark.parametrize(
    "what",
    [
        "body = x'00'",
        "body = NULL",
        "body = 'text'",
        "sizes = '1 2'",
        "sizes = x'31'",
        "key = 'other'",
        "key = 5",
        "key = CAST(x'ff' AS TEXT)",
        "secret = CAST(x'ff' AS TEXT)",
        """wishes = '{"timeout": 6}'""",
        "wishes = 'none'",
        "wishes = NULL",
        "crc = NULL",
        "body_crc = 'text'",
        "status = 'dune'",
        "status = 'done'",
        "attempts = NULL",
        "hand_outs = 0.0",
        "attempts = 0.0",
        "deaths = 0.0",
        "deaths = 1.0",
        "due = 'soon'",
        "until = 1.0",
        "until = 1",
        "reason = CAST(x'fffe' AS BLOB)",
        "number = 20",
    ],
)
def test_a_damaged_row_is_named_and_all_others_load(path, what):
    store_all(path, batch_of(stored(1), stored(2, timeout=5), stored(3)))
    change(path, f"UPDATE task SET {what} WHERE number = 2")
    store = opened(path)
    loaded = load(store)
    number = 20 if "number" in what else 2
    (damaged,) = [task for task in loaded if isinstance(task, DamagedTask)]
    assert damaged.number == number
    assert damaged.key == "key-2" or what.startswith("key")
    assert [task for task in loaded if not isinstance(task, DamagedTask)] == [stored(1), stored(3)]
    batch = Batch()
    batch.want(number)
    store.start(batch)
    assert store.finished()[0].found == {number: damaged}
    store.close()
    assert len(load_again(path)) == 3  # it is left as it is


@pytest.mark.parametrize("column", [name for name, new in State._field_defaults.items() if new == 0])
@pytest.mark.parametrize("count", [0.0, False, True, 1.0, None, "0"])
def test_a_count_that_is_no_whole_number_is_damage(column: str, count: object):
    row = list(encode(stored(1)))
    row[[*schema.ASKED, "crc", *schema.TOLD].index(column)] = count
    assert decode(tuple(row)) == DamagedTask(1, "key-1")
    row[[*schema.ASKED, "crc", *schema.TOLD].index(column)] = 1
    assert decode(tuple(row)) == stored(1)._replace(state=State(**{column: 1}))


def test_a_damaged_result_is_seen_when_it_is_fetched(path):
    batch = Batch()
    batch.change(1, SETTLED, [b"result"])
    store_all(path, batch_of(stored(1)), batch)
    change(path, "UPDATE task SET body = CAST('resulT' AS BLOB)")
    store = opened(path)
    batch = Batch()
    batch.want(1)
    store.start(batch)
    assert store.finished()[0].found == {1: DamagedTask(1, "key-1")}
    store.close()


def test_settings_that_are_none_are_damage(path):
    opened(path).close()
    change(path, "INSERT INTO queue VALUES ('mail', 'many', NULL, 0)")
    store = opened(path)
    with pytest.raises(StoreError, match="damaged"):
        store.queues()
    store.close()
    change(path, "UPDATE setting SET value = 'text' WHERE name = 'run'")
    assert "damaged" in refusal(path)


def test_a_task_that_is_not_there_to_be_changed_is_the_end(path):
    store = opened(path)
    batch = batch_of(stored(1))
    batch.change(2, RUNNING)
    with pytest.raises(StoreError, match="not found"):
        store.start(batch)
    store.close()
    again = opened(path)
    assert load(again) == []
    assert not again.has_ended_well
    again.close()


def test_the_table_has_the_columns_that_are_stored():
    assert schema.INSERT.count("?") == len(schema.ASKED) + len(schema.TOLD) + 4
