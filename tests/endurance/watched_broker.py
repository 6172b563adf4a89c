"""A broker in a process of its own that says how it is doing, and the handle by which a script asks it.

The process serves like `broker.py`. For each line on its stdin it prints a line of JSON: the counters, the number of
descriptors, the resident memory, and the lengths of what the dispatcher keeps, as they are between two turns of the
loop. At the end of file on its stdin it ends.
"""

import argparse
import gc
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds; a broker that does not answer for so long has failed
STATES = ("waiting", "delayed", "running")
SETTLED = ("done", "failed", "cancelled", "expired", "unfinished")
CENSUS = b"census\n"  # a question whose answer also has the number of task objects; dear with a great many


class UnansweredError(Exception):
    """The broker has ended, or does not answer."""


@dataclass(frozen=True)
class Look:
    """What the broker said of itself at one moment."""

    counters: dict[str, int]
    descriptors: int
    resident_kib: int
    sizes: dict[str, int]
    tasks: int  # task objects in memory; -1: not counted

    @property
    def unsettled(self) -> int:
        """The number of tasks that have no reply yet."""
        return sum(self.counters[state] for state in STATES)

    @property
    def unaccounted(self) -> int:
        """How many tasks the counters have lost: 0, if they add up."""
        return self.counters["accepted"] - sum(self.counters[name] for name in SETTLED) - self.unsettled


class WatchedBroker:
    """The process, seen from the script that started it."""

    def __init__(
        self, addresses: tuple[str, str, str], *options: object, errors: int | None = None, marks: dict[str, str]
    ) -> None:
        """Start it and wait until it is bound; its stderr goes to the descriptor `errors`."""
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, options), *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment() | marks,
            start_new_session=True,
        )
        self.requests, self.ready, self.results = json.loads(self._read_line())

    def look(self, census: bool = False) -> Look:
        """Ask how it is doing; raises UnansweredError when it does not say."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(CENSUS if census else b"\n")
            self.process.stdin.flush()
        except OSError:
            raise UnansweredError("the broker has ended") from None
        return Look(**json.loads(self._read_line()))

    def end(self) -> int | None:
        """Have it leave at once and return its exit status; None if it had to be killed."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # it has died, and left a question unread
                    pipe.close()
        try:
            self.process.send_signal(signal.SIGCONT)
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def _read_line(self) -> bytes:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise UnansweredError(f"the broker has not answered for {PATIENCE:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise UnansweredError("the broker has ended")
        return line


def environment() -> dict[str, str]:
    """Return that of a process which is to import this tree's package, and not one that is installed."""
    return os.environ | {"PYTHONPATH": str(TOP)}


def _describe(broker: Any, census: bool) -> dict[str, Any]:
    dispatcher = broker._dispatcher
    pools = dispatcher._workers._pools.values()
    groups = [group for queue in dispatcher._queues for group in queue._groups.values()]
    return {
        "counters": broker.counters(),
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # the listing has one itself
        "resident_kib": _resident_kib(),
        "sizes": {
            "timers": len(dispatcher._timers._heap),
            "waiting": sum(len(line) for group in groups for line in group._lines.values()),
            "idle": sum(len(pool.free._entries) + len(pool.free._doubted) for pool in pools),
            "ahead": sum(len(pool.ahead._entries) + len(pool.ahead._doubted) for pool in pools),
            "handed_out": len(dispatcher.ledger),
            "workers": len(dispatcher._workers._workers),
            "by_key": len(dispatcher._by_name),
            "kept": len(dispatcher._kept),
            "connections": len(broker._sockets.workers),
        },
        "tasks": _count_tasks() if census else -1,
    }


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _count_tasks() -> int:
    from zmqbroker.broker.task import Task

    gc.collect()
    return sum(isinstance(found, Task) for found in gc.get_objects())


def _answer_between_turns(broker: Any) -> None:
    """Have the loop look at stdin after each of its turns, and wake for it."""
    questions = sys.stdin.fileno()
    poll = select.poll()
    poll.register(questions, select.POLLIN)
    turn = broker._loop.turn

    def turn_and_answer() -> None:
        turn()
        if not poll.poll(0):
            return
        asked = os.read(questions, 4096)
        for line in asked.splitlines(keepends=True):
            print(json.dumps(_describe(broker, line == CENSUS)), flush=True)
        if not asked:
            poll.unregister(questions)
            broker._sockets.poller.unregister(questions)
            for _ in range(2):  # at once
                broker.stop()

    broker._sockets.poller.register(questions, select.POLLIN)
    broker._loop._serve[questions] = lambda now: None  # the turn is what has to end
    broker._loop.turn = turn_and_answer


def main() -> None:
    """Serve until the end of file on stdin."""
    from zmqbroker import Broker

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-t", dest="tries", type=int, default=3, help="attempts of a task")
    parser.add_argument("-T", dest="timeout", type=float, default=0.0, help="seconds of an attempt (0: no limit)")
    for name in ("requests", "ready", "results"):
        parser.add_argument(name)
    options = parser.parse_args()
    with Broker(**vars(options)) as broker:
        print(json.dumps(broker.addresses), flush=True)
        _answer_between_turns(broker)
        broker.run()


if __name__ == "__main__":
    main()
