"""The brokers of this user that are found, as they come and go."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from web_support import PATIENCE

from zmqbroker.transport.control import NoAnswerError
from zmqbroker.web import brokers, watched
from zmqbroker.web.asker import Answer
from zmqbroker.web.brokers import Brokers

TOTALS = dict.fromkeys(("accepted", "done", "failed", "late"), 0)
TASKS = dict.fromkeys(("waiting", "delayed", "running", "workers", "idle", "unserved", "total_queues"), 0)
STATUS = {"version": "1", "pid": 1, "uptime": 1, "state": "serving", "memory": None, "descriptors": None} | {
    "open_to": [],
    "refusals": None,
    "busy": 0,
    "longest_turn": 0,
    "sockets": {},
    "totals": TOTALS,
    "queues": [],
    "slowest": [],
    "failures": [],
    "store": None,
}


class Machine:
    """A machine with brokers that are there or not."""

    def __init__(self) -> None:
        self.there: dict[str, Answer] = {}  # what they tell, by their addresses
        self.asked: list[str] = []  # their addresses

    def begin(self, address: str, requests: str, **fields: Any) -> None:
        self.there[address] = STATUS | TASKS | {"addresses": {"requests": requests}} | fields

    def connect(self, address: str) -> Any:
        return Socket(self, address)


class Socket:
    """In place of a control socket."""

    def __init__(self, machine: Machine, address: str) -> None:
        self._machine = machine
        self._address = address

    def ask(self, what: str, **fields: Any) -> Answer:
        self._machine.asked.append(self._address)
        if self._address not in self._machine.there:
            raise NoAnswerError("no broker answers")
        if what == "status":
            return self._machine.there[self._address]
        return {what: [], "bounds": [], "total": 0, "cursor": None}

    def close(self) -> None:
        pass


@pytest.fixture
def machine(monkeypatch) -> Iterator[Machine]:
    machine = Machine()
    monkeypatch.setattr(brokers, "SOUGHT_EVERY", 0)
    monkeypatch.setattr(brokers, "control_addresses", lambda: [*machine.there])
    monkeypatch.setattr(watched, "LOOKS_EVERY", 0.01)
    monkeypatch.setattr(watched, "LOOKS_SHARE", 0)
    return machine


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, PATIENCE))


def askers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zmqbroker asker"]


async def names(found: Brokers) -> dict[str, bool]:
    """Return the names of brokers, and whether they answer."""
    return {one.name: not one.asker.trouble for one in await found.all()}


def test_a_broker_that_is_gone_is_told_of_and_not_asked_any_more(machine):
    async def main() -> None:
        found, before = Brokers([], machine.connect), len(askers())
        machine.begin("ipc://1", "tcp://a:1")
        machine.begin("ipc://2", "tcp://b:1")
        assert await names(found) == {"tcp://a:1": True, "tcp://b:1": True}
        del machine.there["ipc://2"]
        assert await names(found) == {"tcp://a:1": True, "tcp://b:1": False}
        (gone,) = (one for one in await found.all() if one.name == "tcp://b:1")
        assert gone.asker.trouble == "no broker answers at ipc://2 any more"
        while len(askers()) > before + 1:
            await asyncio.sleep(0.005)
        machine.asked.clear()
        while len(machine.asked) < 3:
            assert await names(found) == {"tcp://a:1": True, "tcp://b:1": False}
            await asyncio.sleep(0.01)
        assert "ipc://2" not in machine.asked
        await found.close()

    run(main())


def test_of_those_that_are_gone_the_last_ones_are_kept(machine, monkeypatch):
    monkeypatch.setattr(brokers, "MOST_GONE", 3)

    async def main() -> None:
        found = Brokers([], machine.connect)
        for number in range(10):
            machine.begin("ipc://1", f"tcp://a:{number}")
            await found.all()
            del machine.there["ipc://1"]
            await found.all()
        assert await names(found) == {f"tcp://a:{number}": False for number in (7, 8, 9)}
        monkeypatch.setattr(brokers, "GONE_KEPT", -1)
        assert await names(found) == {}
        await found.close()

    run(main())


@pytest.mark.parametrize("address", ["ipc://1", "ipc://2"])
def test_the_last_minutes_go_on_in_the_next_life_of_a_broker(address, machine):
    async def main() -> None:
        found = Brokers([], machine.connect)

        async def waiting(least: int) -> list[int | None]:
            """Return how many tasks waited at each look, when there were so many looks."""
            while True:
                (one,) = await found.all()
                if len(seen := one.history.total()["waiting"]) >= least:
                    return seen
                await asyncio.sleep(0.01)

        machine.begin("ipc://1", "tcp://a:1", waiting=5)
        earlier = len(await waiting(2))
        del machine.there["ipc://1"]
        assert len(await waiting(earlier)) >= earlier
        machine.begin(address, "tcp://a:1", waiting=7, pid=2)
        while (seen := await waiting(earlier))[-1] != 7:
            await asyncio.sleep(0.01)
        assert seen[:2] == [5, 5]
        await found.close()

    run(main())


def test_a_broker_that_has_ended_as_it_was_told_to_is_not_missed(machine):
    async def main() -> None:
        found = Brokers([], machine.connect)
        machine.begin("ipc://1", "tcp://a:1", state="draining")
        assert await names(found) == {"tcp://a:1": True}
        del machine.there["ipc://1"]
        assert await names(found) == {}
        await found.close()

    run(main())
