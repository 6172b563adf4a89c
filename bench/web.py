"""What it costs to be looked at: the broker under full load, in turn with nobody looking and with all onlookers.

Onlookers are `zmqbroker web`, browsers at its page and one that scrapes its metrics. They are started once, and halted
(SIGSTOP) where nobody is to look, so that the runs of a pair follow each other closely. Onlookers and peers may have to
share processors with the broker, which their users would have on other machines: then the rate tells what all of them
together cost, and the broker's processor time for a task what answering costs the broker itself.
"""

import importlib.util
import os
import signal
from contextlib import suppress

from bench.measure import RESULT_WAIT, SLOTS, WINDOW, Figures, Table, alternate
from bench.onlookers import chromium
from bench.processes import descendants, processor_time
from bench.stage import Stage, System

BROWSERS = 3
START_WAIT = 120.0  # seconds; for a browser to show the page


def missing() -> str:
    """Return what is not here that this needs; empty: nothing."""
    if chromium() is None:
        return "there is no chromium: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return ""


def compare_onlookers(tasks: int, pairs: int) -> Table:
    """Measure the broker while it is looked at, and while nobody looks."""
    table = Table(f"1 client, window {WINDOW}; {BROWSERS} browsers, 1 scrape/s", ("looked at", "alone"))
    with Stage() as stage:
        system = stage.start_broker()
        onlookers = Onlookers(stage, system.control)
        stage.start_peers(1, "worker", *system.workers, f"--slots={SLOTS}")
        alternate(
            table,
            pairs,
            lambda: _run(stage, system, tasks, onlookers, is_looked_at=True),
            lambda: _run(stage, system, tasks, onlookers, is_looked_at=False),
        )
    return table


class Onlookers:
    """A page, and all who look at it."""

    def __init__(self, stage: Stage, control: str) -> None:
        self._web = stage.start("-m", "zmqbroker", "web", "--listen", "127.0.0.1:0", control)
        url = self._web.line().split()[-1]
        roles = ["browser"] * BROWSERS + ["scraper"]
        self._all = [stage.start("-m", "bench.onlookers", role, url) for role in roles]
        for each in self._all:
            each.facts(START_WAIT)

    def answers(self) -> int:
        """Return how many answers they have had so far; all of them look."""
        for each in self._all:
            each.go()
        return sum(int(each.facts()["answers"]) for each in self._all)

    def halt(self) -> None:
        """Have nobody look."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have all look again."""
        self._signal(signal.SIGCONT)

    def processor_time(self) -> float | None:
        """Return the seconds of processor time that page and onlookers have used together; None: that is unknown."""
        return processor_time(self._processes())

    def _signal(self, number: signal.Signals) -> None:
        for process_id in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process_id, number)

    def _processes(self) -> list[int]:
        starters = [process.id for process in (self._web, *self._all)]
        return [*starters, *(each for starter in starters for each in descendants(starter))]


def _run(stage: Stage, system: System, tasks: int, onlookers: Onlookers, is_looked_at: bool) -> Figures:
    (client,) = stage.start_peers(1, "client", system.clients, f"--tasks={tasks}", f"--window={WINDOW}")
    if is_looked_at:
        onlookers.go_on()
    else:
        onlookers.halt()
    answers = onlookers.answers() if is_looked_at else 0
    before, taken = system.process.cpu(), onlookers.processor_time()
    client.go()
    result = client.facts(RESULT_WAIT)
    after, taken_after = system.process.cpu(), onlookers.processor_time()
    seconds = result["ended"] - result["started"]
    return {
        "tasks/s": tasks / seconds,
        "CPU, us/task": None if before is None or after is None else (after - before) / tasks * 1e6,
        "cores that onlookers take": None if taken is None or taken_after is None else (taken_after - taken) / seconds,
        "answers/s to onlookers": (onlookers.answers() - answers) / seconds if is_looked_at else None,
    }
