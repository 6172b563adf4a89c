"""Full load for a long time, with clients and workers that come and go: do memory and descriptors stay flat?

    python tests/endurance/soak.py --minutes 30
    python tests/endurance/soak.py --churn 12000

The load: a client with a window, two workers with slots, two that announce themselves; a process in which clients and
workers connect, do one thing and disconnect, some of them with a task in hand; and workers whose process dies with a
task in hand. All replies are checked. Exit status 0 when all is well and flat, else 1.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from watched_broker import Look, UnansweredError, WatchedBroker, environment

PEERS = Path(__file__).with_name("soak_peers.py")
ROWS = 20
SAMPLES = 300  # looks at the broker in a whole run, for the verdict
WARM_UP = 0.1  # of the run; replies with a key are kept for 60 s, so short runs end before these have levelled off
KEPT_FOR = 75.0  # seconds after which no reply is kept any more
MEMORY_SLACK_KIB = 3072  # the allocators keep what a burst needed; a leak of a byte per task is 10 MiB in half an hour
DESCRIPTOR_SLACK = 20  # how many more peers may happen to be connected at a time
DEATH_EVERY = 1.0  # seconds
PATIENCE = 90.0  # seconds for a peer to end
CHURN_WARM_UP = 2000  # connects and disconnects before memory is first looked at
LOOPBACK = ("tcp://127.0.0.1:*",) * 3

Row = tuple[float, Look]


class Peer:
    """A process of `soak_peers.py`."""

    def __init__(self, *arguments: object) -> None:
        self.name = str(arguments[0])
        self.process = subprocess.Popen(
            [sys.executable, str(PEERS), *map(str, arguments)],
            stdin=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )

    def end(self) -> int:
        """Have it finish and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return 1

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Soak:
    """A broker, its peers, and what was seen of it."""

    def __init__(self) -> None:
        self.broker = WatchedBroker(LOOPBACK, "-t", 20, "-T", 10, marks={})
        self.began = time.monotonic()
        self.at_start = self.broker.look()
        self.troubles: list[str] = []
        self._peers: list[Peer] = []

    @property
    def addresses(self) -> tuple[str, str, str]:
        return self.broker.requests, self.broker.ready, self.broker.results

    def start(self, *arguments: object) -> Peer:
        """Start a peer."""
        peer = Peer(*arguments)
        self._peers.append(peer)
        return peer

    def look(self) -> Row:
        """Look at the broker, and at whether a peer has found something wrong."""
        look = self.broker.look()
        if look.unaccounted:
            self.troubles.append(f"the counters do not add up: {look.counters}")
        for peer in [peer for peer in self._peers if peer.process.poll() is not None]:
            self._peers.remove(peer)
            if peer.process.returncode:
                self.troubles.append(f"the process {peer.name!r} ended with status {peer.process.returncode}")
        return time.monotonic() - self.began, look

    def end_peers(self) -> None:
        """Have all peers finish, those that do the work last."""
        for peer in sorted(self._peers, key=lambda peer: peer.name in ("work", "serve")):
            if peer.name == "die":
                peer.kill()
            elif peer.end():
                self.troubles.append(f"the process {peer.name!r} ended with status {peer.process.returncode}")
        self._peers.clear()

    def kill(self) -> None:
        """Leave no process behind, however often Ctrl-C is pressed."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for peer in self._peers:
            peer.kill()
        self.broker.end()

    def wait_for_start(self, patience: float) -> Row:
        """Wait until there are as many descriptors as at the start, and no reply is kept."""
        until = time.monotonic() + patience
        while True:
            elapsed, look = self.look()
            if look.descriptors == self.at_start.descriptors and not look.sizes["kept"]:
                return elapsed, look
            if time.monotonic() > until:
                self.troubles.append(
                    f"{look.descriptors} descriptors after all peers have gone, {self.at_start.descriptors} before; "
                    f"{look.sizes['kept']} replies kept"
                )
                return elapsed, look
            time.sleep(0.5)


def print_head(look: Look) -> None:
    print(f"{'elapsed':>8} {'done':>11} {'tasks/s':>8} {'KiB':>8} {'descr':>6}", *(f"{n:>10}" for n in look.sizes))


def print_row(row: Row, before: Row) -> None:
    elapsed, look = row
    done = look.counters["done"]
    rate = (done - before[1].counters["done"]) / max(elapsed - before[0], 0.001)
    sizes = (f"{size:>10}" for size in look.sizes.values())
    print(
        f"{elapsed:>7.0f}s {done:>11,} {rate:>8,.0f} {look.resident_kib:>8} {look.descriptors:>6}", *sizes, flush=True
    )


def soak(running: Soak, minutes: float) -> None:
    """Run for so long, print rows, judge."""
    requests, ready, results = running.addresses
    for _ in range(2):
        running.start("work", ready, results, 200)
        running.start("serve", ready)
    running.start("ask", requests, 1000, 0, "client")
    running.start("churn", requests, ready, results, "churn", 0, 0.005)
    span = 60 * minutes
    print_head(running.at_start)
    rows = [(0.0, running.at_start)]
    printed = rows[0]
    deaths = 0
    while rows[-1][0] < span and not running.troubles:
        time.sleep(min(span / SAMPLES, DEATH_EVERY))
        elapsed = time.monotonic() - running.began
        if elapsed >= deaths * DEATH_EVERY:
            deaths += 1
            running.start("die", ready, results, deaths)
        if elapsed - rows[-1][0] >= span / SAMPLES:
            rows.append(running.look())
        if rows[-1][0] - printed[0] >= span / ROWS:
            print_row(rows[-1], printed)
            printed = rows[-1]
    running.end_peers()
    last = running.wait_for_start(KEPT_FOR)
    print("after all peers have gone:")
    print_row(last, printed)
    print(f"counters: {last[1].counters}")
    print(f"workers that died with a task in hand: {deaths}")
    judge([look for elapsed, look in rows if elapsed >= WARM_UP * span], running.troubles)


def judge(looks: Sequence[Look], troubles: list[str]) -> None:
    """Compare the last third with the first."""
    third = len(looks) // 3
    if not third:
        troubles.append("too short for a verdict")
        return
    first, last = looks[:third], looks[-third:]
    memory = [mean(look.resident_kib for look in part) for part in (first, last)]
    descriptors = [median(look.descriptors for look in part) for part in (first, last)]
    print(f"memory:      first third {memory[0]:,.0f} KiB, last third {memory[1]:,.0f} KiB")
    print(f"descriptors: first third {descriptors[0]:g}, last third {descriptors[1]:g}")
    if memory[1] - memory[0] > MEMORY_SLACK_KIB:
        troubles.append(f"memory has grown by {memory[1] - memory[0]:,.0f} KiB")
    if descriptors[1] - descriptors[0] > DESCRIPTOR_SLACK:
        troubles.append(f"there are {descriptors[1] - descriptors[0]:g} more descriptors")


def churn(running: Soak, rounds: int) -> None:
    """Let so many clients and as many workers come and go while one of each stays; compare before and after."""
    requests, ready, results = running.addresses
    running.start("work", ready, results, 4)
    running.start("ask", requests, 1, 0.05, "client")
    print_head(running.at_start)
    before = (0.0, running.at_start)
    print_row(before, before)
    memory = []
    for name, count in (("warm-up", CHURN_WARM_UP), ("churn", rounds)):
        started = time.monotonic()
        peer = running.start("churn", requests, ready, results, name, count, 0)
        peer.process.wait()
        row = running.look()
        print(f"{name}: {count} clients and {count} workers in {time.monotonic() - started:.0f} s")
        print_row(row, before)
        memory.append(row[1].resident_kib)
        before = row
    running.end_peers()
    last = running.wait_for_start(KEPT_FOR)
    print("after all peers have gone and no reply is kept:")
    print_row(last, before)
    print(f"counters: {last[1].counters}")
    kept = 0.6 * rounds  # KiB; three in ten leave a reply with a key, 2 KiB each, which is kept for a minute
    if memory[1] - memory[0] > MEMORY_SLACK_KIB + kept:
        running.troubles.append(f"memory has grown by {memory[1] - memory[0]:,} KiB")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run (default: %(default)g)")
    parser.add_argument("--churn", type=int, metavar="N", help="instead: N clients and N workers come and go")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up
    running = Soak()
    try:
        if options.churn:
            churn(running, options.churn)
        else:
            soak(running, options.minutes)
    except UnansweredError as error:
        running.troubles.append(str(error))
    except KeyboardInterrupt:
        running.troubles.append("interrupted")
    finally:
        running.kill()
    for trouble in running.troubles[:20]:
        print(f"WRONG: {trouble}")
    print("not flat, or wrong" if running.troubles else "flat, and all replies right")
    return 1 if running.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
