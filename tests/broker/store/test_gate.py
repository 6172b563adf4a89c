"""What a turn gathers, what comes of it, and the store that is simulated."""

import pytest
from simulated_store import SimulatedDisk, SimulatedStore
from store_support import LATER, batch_of, stored

from zmqbroker.broker.store.gate import Batch, StoreError, unfit
from zmqbroker.broker.store.rows import LARGEST_BODY, DamagedTask, State, unstorable
from zmqbroker.wire import DONE, FAILED

RUNNING = State("running", None, 1, 1, worker="some")
SETTLED = State(DONE, None, 1, 1, until=LATER)


def test_a_task_handed_out_in_its_first_turn_is_stored_once():
    batch = batch_of(stored(1))
    batch.change(1, RUNNING)
    assert batch.new[1].state == RUNNING
    assert not batch.states


def test_a_task_forgotten_in_its_first_turn_is_not_stored_at_all():
    batch = batch_of(stored(1))
    batch.forget(1)
    assert not batch


def test_the_last_state_of_a_turn_counts():
    batch = Batch()
    batch.change(1, RUNNING)
    batch.change(1, SETTLED, [b"result"])
    batch.change(1, SETTLED._replace(until=LATER + 1))
    assert batch.results == {1: (SETTLED._replace(until=LATER + 1), [b"result"])}
    assert not batch.states
    batch.forget(1)
    assert batch.forgotten == {1}
    assert not batch.results


def test_a_batch_that_only_asks_changes_nothing():
    batch = Batch()
    assert not batch
    batch.want(1)
    assert batch
    assert not batch.changes_anything


def test_the_largest_results_are_left_out_first():
    results = {number: (SETTLED, [b"x" * size]) for number, size in ((1, 50), (2, 10), (3, 30))}
    assert unfit(results, 90) == set()
    assert unfit(results, 89) == {1}
    assert unfit(results, 39) == {1, 3}
    assert unfit(results, 0) == {1, 2, 3}


def test_a_result_that_does_not_fit_becomes_a_failure_that_says_so():
    batch = Batch()
    batch.change(1, SETTLED, [b"12345", b"67890"])
    batch.change(2, SETTLED, [b"small"])
    smaller = batch.without_results({1})
    reason = "the result (10 bytes) does not fit on the store's disk"
    assert smaller.states == {1: SETTLED._replace(status=FAILED, reason=reason)}
    assert list(smaller.results) == [2]
    assert list(batch.results) == [1, 2]


@pytest.mark.parametrize(("key", "is_storable"), [("plain", True), ("schön 🙂", True), ("half \ud83d", False)])
def test_half_a_character_cannot_be_stored(key, is_storable):
    why = unstorable(key, 4)
    assert (why == "") == is_storable
    assert why.isprintable()


def test_a_body_larger_than_a_row_may_be_cannot_be_stored():
    assert unstorable("key", LARGEST_BODY) == ""
    assert "the limit is" in unstorable("key", LARGEST_BODY + 1)


# The simulated store


def test_what_was_started_is_told_when_it_is_on_the_disk_and_in_order():
    store = SimulatedStore(SimulatedDisk())
    batches = [batch_of(stored(1)), batch_of(stored(2))]
    for batch in batches:
        store.start(batch)
    assert store.finished() == []
    store.commit()
    assert [finished.batch for finished in store.finished()] == batches[:1]
    store.commit()
    assert [finished.batch for finished in store.finished()] == batches[1:]


def test_what_was_not_committed_dies_with_the_store():
    disk = SimulatedDisk()
    store = SimulatedStore(disk)
    store.start(batch_of(stored(1)))
    store.commit()
    store.start(batch_of(stored(2)))
    store.die()
    with pytest.raises(StoreError):
        store.finished()
    again = SimulatedStore(disk)
    assert list(again.load()) == [[stored(1)]]
    assert again.highest == 1
    assert not again.has_ended_well


def test_a_store_that_was_closed_has_ended_well():
    disk = SimulatedDisk()
    store = SimulatedStore(disk)
    store.start(batch_of(stored(1), stored(2), stored(3)))
    store.close()
    again = SimulatedStore(disk)
    assert again.has_ended_well
    assert [len(some) for some in again.load()] == [2, 1]


def test_a_full_disk_refuses_new_tasks_and_a_damaged_one_is_named():
    disk = SimulatedDisk()
    store = SimulatedStore(disk)
    store.start(batch_of(stored(1)))
    store.commit()
    disk.is_full = True
    disk.damaged = {1}
    batch = batch_of(stored(2))
    batch.want(1)
    batch.want(2)
    store.start(batch)
    store.commit()
    assert store.finished()[1].refused == {2}
    assert store.disk.find(2) is None
    assert list(SimulatedStore(disk).load()) == [[DamagedTask(1, "key-1")]]


def test_a_disk_that_is_nearly_full_leaves_the_largest_results_out():
    disk = SimulatedDisk()
    store = SimulatedStore(disk)
    batch = batch_of(stored(1), stored(2))
    store.start(batch)
    store.commit()
    disk.room = 10
    batch = Batch()
    batch.change(1, SETTLED, [b"a large result"])
    batch.change(2, SETTLED, [b"small"])
    store.start(batch)
    store.commit()
    assert [state.status for state in store.finished()[1].unfit.values()] == [FAILED]
    assert [task.state.status for task in disk.tasks.values()] == [FAILED, DONE]
    assert [task.body for task in disk.tasks.values()] == [stored(1).body, [b"small"]]
