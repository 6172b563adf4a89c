"""The metrics: what brokers have told, in the words of Prometheus, made up anew for each scrape."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from zmqbroker.web.asker import Answer
from zmqbroker.web.watched import ENDINGS, OTHERS, SETTLED, WAITED, Watched, counts_of

GAUGE, COUNTER, HISTOGRAM, INFO = GaugeMetricFamily, CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily
STATES = ("waiting", "delayed", "running")
BROKER = "broker"  # the label that says whose it is, where there may be several


class Kind(NamedTuple):
    """What a metric is."""

    name: str  # in full
    made: Any  # a class
    labels: tuple[str, ...]
    help: str


KINDS = (
    Kind("zmqbroker_up", GAUGE, (), "1 if the broker answers, 0 if not; then it has no other metrics."),
    Kind("zmqbroker_build_info", INFO, (), "1; the label version is the broker's."),
    Kind("zmqbroker_uptime_seconds", GAUGE, (), "Seconds since the broker was started."),
    Kind("zmqbroker_tasks", GAUGE, ("queue", "state"), "Tasks that are waiting, delayed or running."),
    Kind("zmqbroker_oldest_waiting_seconds", GAUGE, ("queue",), "Age of the task that has waited longest; 0: none."),
    Kind("zmqbroker_tasks_accepted_total", COUNTER, ("queue",), "Tasks that have come, or come back from the store."),
    Kind("zmqbroker_tasks_settled_total", COUNTER, ("queue", "status"), "Tasks that have an outcome."),
    Kind("zmqbroker_attempts_total", COUNTER, ("queue", "outcome"), "Attempts that have ended, by how."),
    Kind("zmqbroker_task_wait_seconds", HISTOGRAM, (), "How long tasks waited until a worker had them in hand."),
    Kind("zmqbroker_task_run_seconds", HISTOGRAM, (), "How long workers had tasks in hand."),
    Kind("zmqbroker_queue_workers", GAUGE, ("queue",), "Workers that ask from the queue."),
    Kind("zmqbroker_queue_paused", GAUGE, ("queue",), "1 if the queue is paused, 0 if not."),
    Kind("zmqbroker_unserved_queues", GAUGE, (), "Queues where tasks wait and no worker asks, 1000 at most."),
    Kind("zmqbroker_workers", GAUGE, ("state",), "Workers that are connected: idle or busy."),
    Kind("zmqbroker_connections", GAUGE, ("socket",), "Connections to a socket of the broker."),
    Kind("zmqbroker_messages_total", COUNTER, ("socket",), "Messages that have come to a socket of the broker."),
    Kind("zmqbroker_malformed_total", COUNTER, ("socket",), "Those of them that fit no rule of the protocol."),
    Kind("zmqbroker_late_total", COUNTER, (), "Results for tasks settled, and verbs for attempts that do not run."),
    Kind("zmqbroker_refused_identities_total", COUNTER, (), "How often somebody was refused for an identity."),
    Kind("zmqbroker_loop_busy_seconds_total", COUNTER, (), "Seconds that the loop did not wait for messages."),
    Kind("zmqbroker_loop_longest_turn_seconds", GAUGE, (), "Longest turn of the loop, of the last minute or two."),
    Kind("zmqbroker_memory_bytes", GAUGE, (), "Memory in use by the broker."),
    Kind("zmqbroker_descriptors", GAUGE, (), "Open file descriptors of the broker."),
    Kind("zmqbroker_store_bytes", GAUGE, (), "Bytes that the store takes up."),
    Kind("zmqbroker_store_free_bytes", GAUGE, (), "Bytes that are free on its disk."),
    Kind("zmqbroker_store_floor_bytes", GAUGE, (), "Bytes that are to be free for new tasks to be stored."),
    Kind("zmqbroker_store_refusing", GAUGE, (), "1 if new tasks are not stored, 0 if they are."),
    Kind("zmqbroker_store_failed_tasks", GAUGE, (), "Failed and expired tasks in the store."),
    Kind("zmqbroker_store_commit_seconds", HISTOGRAM, (), "How long it took to store what turns had decided."),
)


class Reading(NamedTuple):
    """What is told of one broker in one scrape."""

    watched: Watched
    status: Answer | None  # None: it does not answer
    queues: list[Answer] | None  # None: it does not tell of them, or has not yet


class Metrics(Collector):
    """All metrics of brokers, as they were read for one scrape."""

    def __init__(self, readings: Iterable[Reading], are_told_apart: bool) -> None:
        """Prepare; where brokers are told apart, each series has a label more, BROKER."""
        self._extra = (BROKER,) if are_told_apart else ()
        self._readings = list(readings)

    def describe(self) -> list[Metric]:
        """Say nothing before it is asked for all."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics that there are."""
        families = {kind.name: _family(kind, self._extra) for kind in KINDS}
        for reading in self._readings:
            own = [reading.watched.name] if self._extra else []
            for name, labels, *values in _samples(reading):
                if None not in values:
                    families[name].add_metric([*own, *labels], *values)
        return (family for family in families.values() if family.samples)


def registry(metrics: Metrics) -> CollectorRegistry:
    """Return a registry that has these metrics, and nothing of this process."""
    made = CollectorRegistry()
    made.register(metrics)
    return made


def _family(kind: Kind, extra: tuple[str, ...]) -> Any:
    ending = {COUNTER: "_total", INFO: "_info"}.get(kind.made, "")
    return kind.made(kind.name.removesuffix(ending), kind.help, labels=[*extra, *kind.labels])


Sample = tuple[Any, ...]  # the name of a metric, labels, and what the family takes besides; None: there is none


def _samples(reading: Reading) -> Iterator[Sample]:
    """Yield all samples of a broker."""
    status = reading.status
    yield "zmqbroker_up", [], float(status is not None)
    if status is None:
        return
    yield from _of_broker(status)
    yield from _of_sockets(status)
    if reading.queues is not None:
        yield from _of_queues(reading.watched, reading.queues)
    if status["store"] is not None:
        yield from _of_store(status["store"])


def _of_broker(status: Answer) -> Iterator[Sample]:
    yield "zmqbroker_build_info", [], {"version": status["version"]}
    yield "zmqbroker_uptime_seconds", [], status["uptime"]
    yield "zmqbroker_unserved_queues", [], status["unserved"]
    yield "zmqbroker_workers", ["idle"], status["idle"]
    yield "zmqbroker_workers", ["busy"], max(status["workers"] - status["idle"], 0)
    yield "zmqbroker_late_total", [], status["totals"]["late"]
    yield "zmqbroker_refused_identities_total", [], (status["refusals"] or {"total": 0})["total"]
    yield "zmqbroker_loop_busy_seconds_total", [], status["busy"]
    yield "zmqbroker_loop_longest_turn_seconds", [], status["longest_turn"]
    yield "zmqbroker_memory_bytes", [], status["memory"]
    yield "zmqbroker_descriptors", [], status["descriptors"]


def _of_sockets(status: Answer) -> Iterator[Sample]:
    for name, socket in status["sockets"].items():
        yield "zmqbroker_connections", [name], socket["connections"]
        yield "zmqbroker_messages_total", [name], socket["messages"]
        yield "zmqbroker_malformed_total", [name], socket["malformed"]


def _of_queues(watched: Watched, queues: list[Answer]) -> Iterator[Sample]:
    """Yield the samples of queues, those without a place of their own as one."""
    places, tally = watched.places.names, watched.tally
    for queue in queues:
        if queue["name"] in places:
            yield from _of_queue(queue["name"], [queue], counts_of(queue))
    if tally.others:
        yield from _of_queue(OTHERS, [queue for queue in queues if queue["name"] not in places], tally.others)
    bounds = watched.queues.last.get("bounds", [])
    middle = WAITED + len(bounds) + 2
    if tally.total:
        yield "zmqbroker_task_wait_seconds", [], *_histogram(tally.total[WAITED:middle], bounds)
        yield "zmqbroker_task_run_seconds", [], *_histogram(tally.total[middle:], bounds)


def _of_queue(name: str, queues: list[Answer], counts: list[float]) -> Iterator[Sample]:
    """Yield the samples of one queue, or of several under one name."""
    for state in STATES:
        yield "zmqbroker_tasks", [name, state], sum(queue[state] for queue in queues)
    yield "zmqbroker_oldest_waiting_seconds", [name], max((queue["oldest"] or 0.0 for queue in queues), default=0.0)
    yield "zmqbroker_queue_workers", [name], sum(queue["workers"] for queue in queues)
    yield "zmqbroker_queue_paused", [name], float(any(queue["paused"] for queue in queues))
    accepted, *others = counts[:WAITED]
    yield "zmqbroker_tasks_accepted_total", [name], accepted
    for status, count in zip(SETTLED, others, strict=False):
        yield "zmqbroker_tasks_settled_total", [name, status], count
    for outcome, count in zip(ENDINGS, others[len(SETTLED) :], strict=True):
        yield "zmqbroker_attempts_total", [name, outcome], count


def _of_store(store: Answer) -> Iterator[Sample]:
    yield "zmqbroker_store_bytes", [], store["bytes"]
    yield "zmqbroker_store_free_bytes", [], store["free"]
    yield "zmqbroker_store_floor_bytes", [], store["floor"]
    yield "zmqbroker_store_refusing", [], float(store["refusing"])
    yield "zmqbroker_store_failed_tasks", [], store["failed"]
    commits = store["commits"]
    yield "zmqbroker_store_commit_seconds", [], *_histogram([*commits["counts"], commits["seconds"]], store["bounds"])


def _histogram(times: list[float], bounds: list[float]) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets of a histogram, each with all that is in those before it, and the sum of seconds."""
    *counts, seconds = times
    names = [*map(floatToGoString, bounds), "+Inf"]
    return [(name, sum(counts[: place + 1])) for place, name in enumerate(names)], seconds
