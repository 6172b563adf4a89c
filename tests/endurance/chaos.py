"""Workers and clients of all kinds that die, hang, fail and come back, and a vandal: does every task have its reply?

    python tests/endurance/chaos.py --seed 1 --minutes 2

Who does what to whom, and how often, is decided by the seed; when exactly it happens is up to the system. In the end
the chaos stops, the clients that live wait for their last replies, and the books are compared: see `chaos_accounts`.
Then all peers leave, and the broker must be as it was at the start. Exit status 0 when it all holds, else 1.
"""

import argparse
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from chaos_accounts import Accounts
from chaos_peers import Crew, Peer
from chaos_tasks import CLIENT_PATIENCE, TRIES
from verdict import verdict
from watched_broker import TOP, Look, UnansweredError, WatchedBroker

sys.path[:0] = [str(TOP), str(TOP / "tests")]

from library_support import Proxy  # noqa: E402

TIMEOUT = 1.0  # seconds per attempt
STEP = 0.02  # seconds between looks at the crew
ACTION_EVERY = 0.35  # seconds, on average
LOOK_EVERY = 1.0
LONGEST_STOP = 4.0
LONGEST_STOP_OF_BROKER = 1.5
SETTLING = 60.0  # seconds in which tasks nobody waits for are settled, and connections of who is gone are closed
STALE_KEPT = 1000  # stale entries that each of the queues may keep, see `zmqbroker.broker.queues`
QUEUES = ("timers", "waiting", "idle", "ahead")
KIB_PER_KEPT_REPLY = 4  # replies with a key are kept for a minute, 10,000 at most; these have small bodies
# What the allocators keep of the largest load: pymalloc's arenas, of which every one may hold a live object, malloc's
# heap below its last live block, and libzmq's chunks. Seen: 5 to 10 MiB. A leak is also told exactly: by `sizes`, and
# by the number of task objects.
MEMORY_SLACK_KIB = 24 * 1024

WORKER_KINDS = ("req", "dealer", "library", "work", "announced")
CLIENT_KINDS = ("req", "relaxed", "dealer", "library", "dealer")
PROXY_SHARE = 0.75  # of the runs that have a proxy in front of those workers that are to bear that
LIVES = (math.inf, math.inf, 50_000, 2_000, 300)  # bytes that a connection passes on, both ways, until it is cut
WORK_PROCESSES = 2  # of each `zmqbroker work`, which counts as so many workers
WORK_OPTIONS = ("--processes", str(WORK_PROCESSES), "--kill-cancelled")


class Chaos:
    """One run."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.crew = Crew(directory, options.seed, self.rng)
        self.violations = self.crew.violations
        self.actions: Counter[str] = Counter()
        self.proxy: Proxy | None = None
        self.errors = directory / "broker.errors"
        with open(self.errors, "wb") as errors:
            arguments = ("-t", TRIES, "-T", options.timeout)
            self.broker = WatchedBroker(
                self._addresses(directory), *arguments, errors=errors.fileno(), marks=self.crew.marks
            )
        self.at_start = self.broker.look(census=True)
        self._prepare_crew()

    def run(self) -> None:
        """Have chaos, then order, then a reckoning."""
        print(f"seed {self.options.seed}: requests {self.broker.requests}, ready {self.broker.ready}", flush=True)
        try:
            self._play()
        except UnansweredError as error:
            self.violations.append(f"{error}: {self.errors.read_text(errors='replace')[-1000:]}")

    def _play(self) -> None:
        self._rage()
        self._calm_down()
        at_end = self._wait_until_as_before()
        accounts = Accounts(self.crew.directory, self.crew.dead_clients)
        self.violations += accounts.violations
        status = self.broker.end()
        if status != 0:
            self.violations.append(f"the broker ended with status {status}")
        if b"Traceback" in self.errors.read_bytes():
            self.violations.append(f"the broker said: {self.errors.read_text(errors='replace')[-1000:]}")
        self._print_table(accounts, at_end)

    def clean_up(self) -> None:
        """Leave no process behind, however often Ctrl-C is pressed."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        left = self.crew.kill_all(spared=self.broker.process.pid)
        if left:
            self.violations.append(f"processes that did not leave by themselves: {left}")
        self.broker.end()

    def _addresses(self, directory: Path) -> tuple[str, str, str]:
        """Choose tcp or ipc for each of the three sockets."""
        tcp = "tcp://127.0.0.1:*"
        requests, results = (self.rng.choice([tcp, f"ipc://{directory}/{name}"]) for name in ("requests", "results"))
        return requests, tcp if self.rng.random() < PROXY_SHARE else f"ipc://{directory}/ready", results

    def _open_proxy(self) -> str:
        """Have a proxy cut the connections of workers at any byte; return the address for them."""
        if not self.broker.ready.startswith("tcp:"):
            return self.broker.ready
        rng = random.Random(self.options.seed)
        self.proxy = Proxy(self.broker.ready, lambda _: rng.choice(LIVES) * rng.uniform(0.1, 1.0))
        return self.proxy.address

    def _prepare_crew(self) -> None:
        broker, crew = self.broker, self.crew
        workers = [broker.ready, broker.results]
        unsteady = self._open_proxy()
        places = 0
        while places < self.options.workers:
            number = len(crew.workers)
            kind = WORKER_KINDS[number % len(WORKER_KINDS)]
            ready = unsteady if number // len(WORKER_KINDS) % 2 else broker.ready
            commands = {
                "library": ["chaos_workers.py", kind, ready, broker.results],
                "announced": ["chaos_workers.py", kind, broker.ready, str(number // len(WORKER_KINDS))],
                "work": ["-m", "zmqbroker", "work", "-q", ready, "chaos_workers:handle", *WORK_OPTIONS],
            }
            crew.workers.append(
                Peer(f"worker-{number}-{kind}", commands.get(kind, ["chaos_workers.py", kind, *workers]))
            )
            places += WORK_PROCESSES if kind == "work" else 1
        for number in range(self.options.clients):
            kind = CLIENT_KINDS[number % len(CLIENT_KINDS)]
            crew.clients.append(Peer(f"client-{number}-{kind}", ["chaos_clients.py", kind, "{life}", broker.requests]))
        crew.vandals.append(Peer("vandal", ["chaos_garbage.py", broker.requests, *workers]))

    def _rage(self) -> None:
        """Tend the crew, and do something to it now and then."""
        now = time.monotonic()
        until = now + 60 * self.options.minutes
        next_action = next_look = now + 1
        while now < until:
            self.crew.tend(self.crew.all, now)
            if now >= next_action:
                self._act(now)
                next_action = now + self.rng.expovariate(1 / ACTION_EVERY)
            if now >= next_look and not self.crew.is_stopped(self.broker.process.pid):
                self._look()
                next_look = now + LOOK_EVERY
            time.sleep(STEP)
            now = time.monotonic()

    def _act(self, now: float) -> None:
        """Do one thing to one process."""
        deeds: dict[str, tuple[float, Callable[[float], None]]] = {
            "worker killed": (4, self._kill_worker),
            "worker stopped": (4, self._stop_worker),
            "worker told to end": (2, self._end_worker),
            "client killed": (0.4, self._kill_client),
            "client stopped": (3, self._stop_client),
            "broker stopped": (0.5, self._stop_broker),
            "proxy cut": (3, self._cut),
        }
        name = self.rng.choices(list(deeds), [weight for weight, _ in deeds.values()])[0]
        self.actions[name] += 1
        deeds[name][1](now)

    def _kill_worker(self, now: float) -> None:
        if (peer := self._choose(self.crew.workers)) is not None:
            children = self.crew.children(peer)
            if children and self.rng.random() < 0.7:
                self.crew.kill_process(self.rng.choice(children))
            else:
                peer.signal(signal.SIGKILL)

    def _stop_worker(self, now: float) -> None:
        if (peer := self._choose(self.crew.workers)) is not None and peer.process is not None:
            process_id = self.rng.choice(self.crew.children(peer) or [peer.process.pid])
            self.crew.stop(process_id, now + self.rng.uniform(0.05, LONGEST_STOP))

    def _end_worker(self, now: float) -> None:
        if (peer := self._choose(self.crew.workers)) is not None:
            peer.signal(signal.SIGTERM)

    def _kill_client(self, now: float) -> None:
        if (peer := self._choose(self.crew.clients)) is not None:
            peer.signal(signal.SIGKILL)

    def _stop_client(self, now: float) -> None:
        if (peer := self._choose(self.crew.clients)) is not None and peer.process is not None:
            self.crew.stop(peer.process.pid, now + self.rng.uniform(0.05, LONGEST_STOP))

    def _stop_broker(self, now: float) -> None:
        self.crew.stop(self.broker.process.pid, now + self.rng.uniform(0.05, LONGEST_STOP_OF_BROKER))

    def _cut(self, now: float) -> None:
        if self.proxy is not None:
            self.proxy.cut()

    def _choose(self, peers: list[Peer]) -> Peer | None:
        peer = self.rng.choice(peers)
        return peer if peer.is_running else None

    def _look(self, census: bool = False) -> Look:
        look = self.broker.look(census)
        if look.unaccounted:
            self.violations.append(f"the counters do not add up: {look.counters}")
        return look

    def _calm_down(self) -> None:
        """Stop the chaos; have the living clients finish, then the workers."""
        self.crew.continue_all()
        for peer in self.crew.vandals:
            if peer.is_running:
                peer.signal(signal.SIGKILL)
            self.crew.bury(peer)
        for peer in self.crew.clients:
            peer.close_stdin()
        until = time.monotonic() + 2 * CLIENT_PATIENCE
        while (any(peer.is_running for peer in self.crew.clients) or self._look().unsettled) and (
            time.monotonic() < until
        ):
            self.crew.tend(self.crew.workers, time.monotonic())
            time.sleep(STEP)
        for peer in self.crew.clients:
            if peer.is_running:
                self.violations.append(f"{peer.name} does not end")
                peer.signal(signal.SIGKILL)
            self.crew.bury(peer)
        self.crew.end_workers()

    def _wait_until_as_before(self) -> Look:
        """Wait for the broker to have as many descriptors as at the start, and judge what else it has."""
        until = time.monotonic() + SETTLING
        look = self._look(census=True)
        while (look.unsettled or look.descriptors != self.at_start.descriptors) and time.monotonic() < until:
            time.sleep(0.2)
            look = self._look(census=True)
        kept = look.sizes["kept"]
        memory = look.resident_kib - self.at_start.resident_kib
        stale = {name: STALE_KEPT if name in QUEUES else 0 for name in look.sizes}
        stale |= {"kept": kept, "connections": look.sizes["connections"]}  # the latter is bounded by the descriptors
        for name, size in look.sizes.items():
            if size > stale[name]:
                self.violations.append(f"{size} entries are left in {name!r}")
        if look.unsettled:
            self.violations.append(f"{look.unsettled} tasks are not settled: {look.counters}")
        if look.descriptors != self.at_start.descriptors:
            self.violations.append(f"{look.descriptors} descriptors, {self.at_start.descriptors} at the start")
        if memory > MEMORY_SLACK_KIB + kept * KIB_PER_KEPT_REPLY:
            self.violations.append(f"{memory} KiB more than at the start, {kept} replies kept")
        if look.tasks > kept + look.sizes["timers"] + look.sizes["waiting"]:
            self.violations.append(f"{look.tasks} task objects: {look.sizes}")
        return look

    def _print_table(self, accounts: Accounts, at_end: Look) -> None:
        print("clients and workers:", ", ".join(f"{name} {count:,}" for name, count in accounts.totals.items()))
        print("broker:", ", ".join(f"{name} {count:,}" for name, count in at_end.counters.items() if count))
        print("chaos:", ", ".join(f"{name} {count}" for name, count in sorted(self.actions.items())))
        starts = Counter({peer.name.split("-")[0]: 0 for peer in self.crew.all})
        for peer in self.crew.all:
            starts[peer.name.split("-")[0]] += peer.lives
        print("processes started:", ", ".join(f"{name}s {count}" for name, count in starts.items()))
        print(f"{'':12} {'KiB':>8} {'descriptors':>12} {'task objects':>13} {'replies kept':>13}")
        for name, look in (("at the start", self.at_start), ("at the end", at_end)):
            numbers = f"{look.resident_kib:>8} {look.descriptors:>12} {look.tasks:>13} {look.sizes['kept']:>13}"
            print(f"{name:12} {numbers}")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="decides what happens (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the chaos lasts (default: %(default)g)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds per attempt (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=10, help="default: %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    return verdict(Chaos(options, directory), directory)


if __name__ == "__main__":
    sys.exit(main())
