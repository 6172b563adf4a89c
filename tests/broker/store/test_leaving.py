"""What a broker says of stored tasks while it leaves them in the store."""

import pytest

from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.store.journal import Journal
from zmqbroker.wire import UNAVAILABLE, Header


@pytest.mark.parametrize("header", [Header(key="mine", fetch=0.0), Header(key="mine", forget=True)])
def test_a_task_that_was_left_in_the_store_is_not_unknown(header: Header):
    core = Dispatcher(journal=Journal())
    core.submit([b"c"], [b"task"], 1.0, Header(key="mine", durable=True))
    core.stop_accepting("the broker was shut down")
    core.abandon("the broker was shut down", 2.0)
    core.settled.clear()
    core.submit([b"c"], [b""], 2.0, header)
    assert [answer.status for answer in core.settled] == [UNAVAILABLE]
