"""What a broker says of stored tasks when it leaves them in the store, drops them there, or takes none."""

import logging
from time import monotonic

import pytest
from simulated_store import SimulatedDisk, SimulatedStore

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.store.journal import Journal
from zmqbroker.broker.storing import LOAD_INTERVAL, Storing
from zmqbroker.wire import CANCELLED, UNAVAILABLE, Header


@pytest.mark.parametrize("header", [Header(key="mine", fetch=0.0), Header(key="mine", forget=True)])
def test_a_task_that_was_left_in_the_store_is_not_unknown(header: Header):
    core = Dispatcher(journal=Journal())
    core.submit([b"c"], [b"task"], 1.0, Header(key="mine", durable=True))
    core.stop_accepting("the broker was shut down")
    core.abandon("the broker was shut down", 2.0)
    core.settled.clear()
    core.submit([b"c"], [b""], 2.0, header)
    assert [answer.status for answer in core.settled] == [UNAVAILABLE]


@pytest.mark.parametrize(("fetch", "is_there"), [(None, False), (0.0, True)])
def test_an_outcome_is_out_of_the_store_when_somebody_is_told_so_but_not_before_it_was_fetched(
    fetch: float | None, is_there: bool
):
    disk, core = SimulatedDisk(), Dispatcher(journal=Journal())
    store = SimulatedStore(disk)
    storing = Storing(store, core, lambda hand_out, now: None)

    def store_until_told() -> str:
        while not core.settled:
            store.commit()
            storing.turn(1.0)
        status = core.settled[0].status
        core.settled.clear()
        return status

    core.submit([b"c"], [b"task"], 1.0, Header(key="mine", durable=True))
    core.submit([b"c"], [b""], 1.0, Header(key="mine", cancel=True))
    assert store_until_told() == CANCELLED
    core.submit([b"c"], [b""], 1.0, Header(key="mine", fetch=fetch, forget=True))
    assert store_until_told() == CANCELLED
    assert bool(disk.tasks) == is_there
    while storing.has_news or store.commit():
        storing.turn(1.0)
    assert not disk.tasks


def test_the_log_says_when_the_disk_has_too_little_room_for_new_tasks_and_when_it_has_enough_again(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO, "zmqbroker")
    store = SimulatedStore(SimulatedDisk())
    storing = Storing(store, Dispatcher(journal=Journal()), lambda hand_out, now: None)
    for second, floor in enumerate([0, 1, 1, 0, 0]):
        store.floor = floor
        storing.look(float(second), is_idle=False)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "new tasks are not stored: 0 bytes are free on the disk of simulated, and 1 are to be"),
        ("INFO", "new tasks are stored again: 0 bytes are free on the disk of simulated"),
    ]


@pytest.mark.parametrize(
    ("is_over", "words"),
    [
        (False, ["reading the store: 2 tasks and 0 outcomes so far", "2 tasks are left in the store"]),
        (True, ["tasks are left in the store, which was not read to its end"]),
    ],
)
def test_the_log_says_how_much_was_read_when_that_takes_long_and_what_is_left_at_the_end(
    is_over: bool, words: list[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "zmqbroker")
    disk, core = SimulatedDisk(), Dispatcher(journal=Journal())
    for key in ("one", "two"):
        core.submit([b"c"], [b"task"], 1.0, Header(key=key, durable=True))
    store = SimulatedStore(disk)
    before = Storing(store, core, lambda hand_out, now: None)
    while core.journal.has_news or store.commit():
        before.turn(1.0)
    storing = Storing(SimulatedStore(disk), Dispatcher(journal=Journal()), lambda hand_out, now: None)
    storing.load(monotonic() - LOAD_INTERVAL, lambda: is_over)
    storing.tell_left()
    said = [record.getMessage() for record in caplog.records]
    assert all(any(line.startswith(word) for line in said) for word in words)
