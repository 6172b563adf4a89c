"""A broker with a store that is killed at any moment, while workers and clients of all kinds work, and die too.

    python tests/endurance/kills.py --seed 1 --kills 200

Who does what to whom is decided by the seed; when exactly it happens is up to the system. The broker is killed while it
starts, while it serves and while it drains, alone or with its workers; sometimes it may end. In the end it goes on, the
clients that live have their last answers, and every task that was ever stored is fetched by two more clients. Then most
outcomes are forgotten, the broker is killed once more, and its store is to have what is left, and at last nothing. The
books are compared: see `kills_accounts`. Exit status 0 when it all holds, else 1.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from chaos_peers import Crew, Peer
from chaos_tasks import GOT, JOURNALS, NAME, SENT, Journal, read_journals
from kills_accounts import Accounts
from kills_broker import DRAIN, MortalBroker
from kills_clients import text_of
from kills_fetchers import ROLES as FETCHERS
from kills_fetchers import class_of
from kills_tasks import ATTACHED, FORGETS, PATIENCE, TRIES, UNKNOWN
from verdict import verdict
from watched_broker import PATIENCE as BROKER_PATIENCE

import zmqbroker

TIMEOUT = 1.0  # seconds per attempt
STEP = 0.02  # seconds between looks at the crew
LIFE = 2.0  # seconds that the broker serves, on average
ACTION_EVERY = 0.7  # seconds, on average
DEEDS = {"worker killed": 4, "worker stopped": 3, "client killed": 0.4, "client stopped": 1}  # and how often
LONGEST_STOP = 3.0
LONGEST_START = 0.6  # seconds, of which some are taken to kill it in
LONGEST_ABSENCE = 0.3
IDLE = "0.7"  # seconds after which a plain worker that gets nothing connects anew
WORK_OPTIONS = ("--processes", "2", "--kill-cancelled")
KEPT = range(1)  # classes of tasks whose outcome is not forgotten until the very end


class Kills:
    """One run."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.crew = Crew(directory, options.seed, self.rng)
        self.actions: Counter[str] = Counter()
        self.kills = 0
        self.broker = MortalBroker(directory, self.rng, self.crew.marks, TRIES, TIMEOUT)
        os.environ |= self.crew.marks | {NAME: "ending", JOURNALS: str(directory)}
        self.journal = Journal()
        self._next_action = 0.0
        self._prepare_crew()

    @property
    def violations(self) -> list[str]:
        return self.crew.violations

    def run(self) -> None:
        """Kill the broker again and again, then have all settled, and judge."""
        began = time.monotonic()
        print(
            f"seed {self.options.seed}: {self.broker.requests} {self.broker.ready}, {self.broker.options}", flush=True
        )
        while self.kills < self.options.kills:
            self._live()
            self._wait(self.rng.uniform(0, LONGEST_ABSENCE))
        raged = time.monotonic()
        self._calm_down()
        self._settle()
        accounts = Accounts(self.crew.directory, self.crew.dead_clients, self.broker.deaths)
        self.crew.violations += accounts.violations + self.broker.violations
        print("clients and workers:", ", ".join(f"{name} {count:,}" for name, count in accounts.totals.items()))
        print(
            f"broker: {self.broker.lives} lives,", ", ".join(f"{count} {name}" for name, count in self.actions.items())
        )
        print(f"{self.kills} kills in {raged - began:.1f} s, and {time.monotonic() - raged:.1f} s until all was judged")

    def clean_up(self) -> None:
        """Leave no process behind, however often Ctrl-C is pressed."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.broker.kill()
        left = self.crew.kill_all(spared=os.getpid())
        if left:
            self.violations.append(f"processes that did not leave by themselves: {left}")

    def _prepare_crew(self) -> None:
        broker, crew = self.broker, self.crew
        addresses = broker.ready, broker.results
        for number in range(self.options.workers):
            commands = (
                ["chaos_workers.py", "req", *addresses, IDLE],
                ["chaos_workers.py", "library", *addresses, str((number + 1) // 2)],
                ["-m", "zmqbroker", "work", "-q", broker.ready, "chaos_workers:handle", *WORK_OPTIONS],
                ["chaos_workers.py", "announced", broker.ready, str((number + 1) // 2), IDLE],
                ["chaos_workers.py", "dealer", *addresses, IDLE],
                ["chaos_workers.py", "library", *addresses],
            )
            command = commands[number % len(commands)]
            kind = "work" if command[0] == "-m" else command[1]
            crew.workers.append(Peer(f"worker-{number}-{kind}", command))
        for number, role in enumerate(self.options.clients):
            name, script = (role, "kills_fetchers.py") if role in FETCHERS else (f"client-{number}", "kills_clients.py")
            crew.clients.append(Peer(name, [script, role, "{life}", broker.requests]))

    # While it is killed

    def _live(self) -> None:
        """Have the broker live once."""
        ways: dict[str, tuple[float, Callable[[], None]]] = {
            "killed while it starts": (2, self._kill_at_start),
            "killed": (6, self._kill),
            "killed with its workers": (0.7, self._kill_with_workers),
            "killed while it drains": (1.5, self._kill_in_drain),
            "ended": (0.7, self._end),
        }
        way = self.rng.choices(list(ways), [weight for weight, _ in ways.values()])[0]
        self.actions[f"times {way}"] += 1
        self.broker.start()
        ways[way][1]()

    def _kill_at_start(self) -> None:
        self._wait(self.rng.uniform(0, LONGEST_START))
        self._kill_now()

    def _kill(self) -> None:
        self._serve()
        self._kill_now()

    def _kill_with_workers(self) -> None:
        self._serve()
        self._kill_now()
        for peer in self.crew.workers:
            if peer.is_running:
                peer.signal(signal.SIGKILL)

    def _kill_in_drain(self) -> None:
        self._serve()
        self.broker.tell_to_end()
        self._wait(self.rng.uniform(0, DRAIN))
        self._kill_now()

    def _end(self) -> None:
        self._serve()
        self.broker.end()

    def _kill_now(self) -> None:
        self.kills += self.broker.kill()

    def _serve(self) -> None:
        """Have the broker serve for some time."""
        self._await_service()
        self._wait(self.rng.expovariate(1 / self.options.life))

    def _await_service(self) -> None:
        until = time.monotonic() + BROKER_PATIENCE
        while not self.broker.is_serving and self.broker.is_running:
            self._wait(STEP)
            if time.monotonic() > until:
                self.violations.append(f"the broker does not begin to serve: {self.broker.output}")
                return

    def _wait(self, seconds: float) -> None:
        """Tend the crew for some time, and do something to it now and then."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self.crew.tend(self.crew.all, now)
            if now >= self._next_action:
                self._next_action = now + self.rng.expovariate(1 / ACTION_EVERY)
                self._act(now)
            time.sleep(max(0.0, min(STEP, until - now)))

    def _act(self, now: float) -> None:
        """Do something to a worker or a client."""
        deed = self.rng.choices(list(DEEDS), list(DEEDS.values()))[0]
        who, what = deed.split()
        peer = self.rng.choice(self.crew.workers if who == "worker" else self.crew.clients)
        if not peer.is_running or peer.process is None:
            return
        self.actions[f"times a {deed}"] += 1
        process_id = self.rng.choice([peer.process.pid, *self.crew.children(peer)])
        if what == "stopped":
            self.crew.stop(process_id, now + self.rng.uniform(0.05, LONGEST_STOP))
        elif process_id == peer.process.pid:
            peer.signal(signal.SIGKILL)
        else:
            self.crew.kill_process(process_id)

    # When that is over

    def _calm_down(self) -> None:
        """Have the broker live, and the clients finish."""
        self.broker.start()
        self.crew.continue_all()
        for peer in self.crew.clients:
            peer.close_stdin()
        until = time.monotonic() + 2 * PATIENCE
        while any(peer.is_running for peer in self.crew.clients) and time.monotonic() < until:
            self.crew.tend(self.crew.workers, time.monotonic())
            time.sleep(STEP)
        for peer in self.crew.clients:
            if peer.is_running:
                self.violations.append(f"{peer.name} does not end")
                peer.signal(signal.SIGKILL)
            self.crew.bury(peer)

    def _settle(self) -> None:
        """Have everything fetched twice, and forgotten; see what the store has of it."""
        sent = [entry for entry in read_journals(self.crew.directory) if entry.what == SENT]
        names = [entry.name for entry in sent if ATTACHED not in entry.rest.split()]
        self._fetch(names)
        known = self._fetch(names)
        self._forget([name for name in known if class_of(name) not in KEPT])
        self.broker.kill()
        self._expect_in_store({name for name in known if class_of(name) in KEPT})
        self.broker.start()
        self._fetch(names)
        self._forget(names)
        self.crew.end_workers()
        self.broker.end()
        self._expect_in_store(set())

    def _fetch(self, names: list[str]) -> list[str]:
        """Fetch all of these by a client of one's own; return those that are known."""
        known = []
        with zmqbroker.Client(self.broker.requests) as client:
            for name, future in [(name, client.outcome(name, PATIENCE)) for name in names]:
                while not future.done():
                    self.crew.tend(self.crew.workers, time.monotonic())
                    time.sleep(STEP)
                if isinstance(future.exception(), KeyError):
                    self.journal.write(UNKNOWN, name)
                else:
                    known.append(name)
                    self.journal.write(GOT, name, text_of(name, future))
        return known

    def _forget(self, names: list[str]) -> None:
        for name in names:
            self.journal.write(FORGETS, name)
        with zmqbroker.Client(self.broker.requests) as client:
            client.forget(*names)

    def _expect_in_store(self, expected: set[str]) -> None:
        """See that a broker that has ended has left this, and nothing else."""
        found = self.broker.stored_keys()
        if found != expected:
            wrong = f"{len(found - expected)} too many, {len(expected - found)} are missing"
            self.violations.append(f"of {len(expected)} outcomes in the store {wrong}: {found ^ expected}"[:1000])


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="decides what happens (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=200, help="of the broker (default: %(default)s)")
    parser.add_argument("--life", type=float, default=LIFE, help="seconds, on average (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=9, help="default: %(default)s")
    parser.add_argument(
        "--clients",
        nargs="+",
        default=["dealer", "library", "dealer", "library", "fetcher", "remover"],
        help="which there are (default: %(default)s)",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up
    directory = Path(tempfile.mkdtemp(prefix="kills-"))
    return verdict(Kills(options, directory), directory)


if __name__ == "__main__":
    sys.exit(main())
