"""Hosts that are cut off and come back, bad cables: broker, workers and clients on hosts of the test's own.

A scenario mostly waits, so several run at once, each on a network of its own. `pytest -rP` shows their figures.
"""

import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic

import pytest
from helpers import Program, wait_until
from network_hosts import CannotError, Host, Network

pytestmark = pytest.mark.slow

PEERS = "tests/endurance/network_peers.py"
ADDRESSES = tuple(f"tcp://*:{port}" for port in (4161, 4162, 4163))
AT_A_TIME = 4  # scenarios
BROKER_CUT = 10.0  # seconds
BUSY = 2000  # tasks that are under way then
KEEP_ALIVE = "--keep-alive 1 1 2"
HEARTBEAT = "--heartbeat 1"
NOTICES = {HEARTBEAT: 2.5, "-T 1": 2.5, KEEP_ALIVE: 4.5}  # seconds within which a worker that is gone is noticed so
SCENARIOS: dict[str, Callable[[], str]] = {}  # by name; each returns its figures

Scenario = Callable[..., str]  # of a network, and what else it is about


def scenario(*cases: tuple[str, ...]) -> Callable[[Scenario], Scenario]:
    """Have a function run as a test, once for each case of its further arguments."""

    def declare(function: Scenario) -> Scenario:
        for case in cases or ((),):

            def run(case: tuple[str, ...] = case) -> str:
                with Network() as network:
                    return function(network, *case)

            SCENARIOS["-".join([function.__name__, *(argument or "no option" for argument in case)])] = run
        return function

    return declare


class Site:
    """A broker on a host of its own, and what runs on the others."""

    def __init__(self, network: Network, options: str, loss: float = 0.0, delay: float = 0.0) -> None:
        self._new_host: Callable[[], Host] = lambda: network.host(loss, delay)
        self.host = self._new_host()
        self.broker = self.host.start("broker.py", "-v", *options.split(), *ADDRESSES)
        self.broker.wait_for("^limits")
        self.tasks = 0  # that clients were told to send

    def add(self, role: str, *arguments: object) -> tuple[Host, Program]:
        """Start a worker or a client on a new host."""
        host = self._new_host()
        if "client" in role:
            self.tasks += int(str(arguments[1]))
        ports = ADDRESSES[:1] if "client" in role else ADDRESSES[1:]
        return host, host.start(PEERS, role, *(port.replace("*", self.host.address) for port in ports), *arguments)

    def end(self) -> dict[str, int]:
        """End the broker; return what it counted, by the last word of each count."""
        assert self.broker.end() == 0
        totals = self.broker.wait_for("^.*tasks done.*$")[0]
        return {
            what: int(number) for number, what in re.findall(r"(\d+) [^,;]*?(done|failed|retried|delivered)", totals)
        }


def replies(client: Program) -> Counter[str]:
    """Return how often a client has printed each reply so far."""
    return Counter(line.removeprefix("reply ") for line in client.lines if line.startswith("reply "))


def let_go(worker: Program) -> None:
    """Let a worker finish the task that it holds."""
    worker.process.send_signal(signal.SIGUSR1)


def wait_for_heartbeats(host: Host) -> None:
    """Wait until something has come by each connection of a host that has nothing to receive but heartbeats."""
    before = host.received()
    wait_until(lambda: all(after > count for after, count in zip(host.received(), before, strict=True)))


@scenario(("worker", HEARTBEAT), ("worker", "-T 1"), ("worker", KEEP_ALIVE), ("plain_worker", HEARTBEAT))
def the_task_of_a_worker_whose_host_is_cut_off_goes_to_another_one(network: Network, kind: str, option: str) -> str:
    site = Site(network, option)
    host, cut_off = site.add(kind)
    _, client = site.add("client", "hold", 1)
    cut_off.wait_for("took hold 0")
    _, other = site.add(kind)
    other.wait_for("asking")
    if "heartbeat" in option:
        wait_for_heartbeats(host)
    with host.cut_off():
        began = monotonic()
        other.wait_for("took hold 0")
        took = monotonic() - began
        let_go(other)
        assert client.wait() == 0
    assert replies(client) == {"HOLD 0": 1}
    assert took < NOTICES[option]
    let_go(cut_off)  # its result comes late, if at all
    other.clean_up()
    if kind == "worker":  # a plain one may have said that it is ready by the connection that was cut, and wait for ever
        _, client = site.add("client", "next", 1)  # nobody is there to do it but who was cut off
        assert client.wait() == 0
        assert replies(client) == {"NEXT 0": 1}
        assert cut_off.output.count("took next 0") == 1
    assert site.end() == {"done": site.tasks, "failed": 0, "retried": 1, "delivered": 0}
    return f"on another worker {took:.2f} s after the cut"


@scenario()
def keep_alive_notices_a_host_that_was_cut_off_before_a_task_was_sent_to_it(network: Network) -> str:
    """TCP sends no probes while it has data to send again."""
    site = Site(network, KEEP_ALIVE)
    host, _ = site.add("worker")
    _, client = site.add("client", "first", 1)
    assert client.wait() == 0  # so the worker is idle, or about to be
    _, other = site.add("worker")
    other.wait_for("asking")
    with host.cut_off():
        _, client = site.add("client", "second", 2)  # one for each of the two
        client.wait_for("sent")
        began = monotonic()
        assert client.wait() == 0
        took = monotonic() - began
    assert replies(client) == {"SECOND 0": 1, "SECOND 1": 1}
    assert took < NOTICES[KEEP_ALIVE]
    totals = site.end()
    assert (totals["done"], totals["failed"]) == (site.tasks, 0)
    return f"a task sent after the cut was done {took:.2f} s later"


@scenario(("",), (KEEP_ALIVE,))
def a_client_whose_host_is_cut_off_has_each_reply_once_when_it_is_back(network: Network, option: str) -> str:
    site = Site(network, option)
    _, worker = site.add("worker")
    host, client = site.add("client", "hold", 1, *option.split()[1:])
    worker.wait_for("took hold 0")
    with host.cut_off():
        if option:
            wait_until(lambda: not site.host.received(host))  # the broker has hung up
        let_go(worker)
        site.broker.wait_for(r"task 1 \(\S+\): done")
    began = monotonic()
    assert client.wait() == 0
    took = monotonic() - began
    assert replies(client) == {"HOLD 0": 1}
    assert worker.output.count("took") == 1
    assert site.end() == {"done": 1, "failed": 0, "retried": 0, "delivered": 1 if option else 0}
    return f"the reply came {took:.2f} s after the host was back"


@scenario()
def a_reply_to_a_plain_client_whose_host_is_gone_is_counted_as_undeliverable(network: Network) -> str:
    site = Site(network, KEEP_ALIVE)
    _, worker = site.add("plain_worker")
    host, client = site.add("plain_client", "hold", 1)
    worker.wait_for("took hold 0")
    with host.cut_off():
        wait_until(lambda: not site.host.received(host))
        let_go(worker)
        site.broker.wait_for("a reply was dropped")
    assert not replies(client)
    assert site.end() == {"done": 1, "failed": 0, "retried": 0, "delivered": 1}
    return ""


@scenario()
def cables_that_lose_and_delay_packets_cost_no_reply(network: Network) -> str:
    site = Site(network, "--heartbeat 5", loss=0.01, delay=0.025)
    for kind in ("worker", "worker", "plain_worker"):
        site.add(kind)
    began = monotonic()
    clients = [site.add("client", "many", 30)[1], site.add("plain_client", "one", 3)[1]]
    for client, name, count in zip(clients, ("MANY", "ONE"), (30, 3), strict=True):
        assert client.wait() == 0
        assert replies(client) == {f"{name} {number}": 1 for number in range(count)}
    took = monotonic() - began
    assert site.end() == {"done": site.tasks, "failed": 0, "retried": 0, "delivered": 0}
    return f"1 % loss in each cable, 50 ms from host to host: {site.tasks} tasks in {took:.2f} s"


@scenario(("",), (HEARTBEAT,))
def a_broker_whose_host_is_cut_off_for_seconds_answers_each_task_once(network: Network, option: str) -> str:
    site = Site(network, option)
    _, worker = site.add("worker")
    site.add("worker")
    _, client = site.add("client", "busy", BUSY)
    worker.wait_for("took")
    with site.host.cut_off():
        assert client.process.poll() is None
        threading.Event().wait(BROKER_CUT)
    began = monotonic()
    assert client.wait() == 0
    took = monotonic() - began
    assert replies(client) == {f"BUSY {number}": 1 for number in range(BUSY)}
    totals = site.end()
    assert (totals["done"], totals["failed"]) == (BUSY, 0)
    return f"all was done {took:.2f} s after the host was back"


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[dict[str, "Future[str]"]]:
    """Start the scenarios that were chosen, the longest ones first, and return their outcomes to come."""
    chosen = {item.name for item in request.session.items}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {name: pool.submit(run) for name, run in reversed(SCENARIOS.items()) if f"test_hosts[{name}]" in chosen}


@pytest.mark.parametrize("name", SCENARIOS)
def test_hosts(running: dict[str, "Future[str]"], name: str):
    try:
        print(running[name].result())
    except CannotError as error:
        pytest.skip(f"no network of our own: {error}")
