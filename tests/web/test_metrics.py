"""What Prometheus gets: read by its own parser, by its conventions, and by what the broker has really done."""

import re
from typing import Any

import pytest
import zmq
from conftest import Running
from control_support import controlled, submit
from examples_support import OPERATIONS, section
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families
from web_support import Serve, Serving, serve_page, until

from zmqbroker.web.metrics import COUNTER, INFO, KINDS
from zmqbroker.web.tally import Places, Tally

__all__ = ["controlled", "serve_page"]  # fixtures


@pytest.fixture
def serving(controlled: Running, serve_page: Serve) -> Serving:
    return serve_page(controlled.broker.control_address)


Scraped = dict[tuple[Any, ...], float]


def scrape(serving: Serving) -> Scraped:
    """Return all samples, by name and the values of their labels."""
    families = text_string_to_metric_families(serving.get("/metrics").text)
    return {
        (sample.name, *(text for _, text in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def scraped_with(serving: Serving, wanted: Scraped) -> Scraped:
    """Return the samples when these are among them: what is told of queues and of the broker may differ in age."""

    def find() -> Scraped | None:
        samples = scrape(serving)
        return samples if wanted.items() <= samples.items() else None

    return until(find)


def test_what_tasks_do_is_counted(serving, controlled):
    worker = controlled.worker()
    client = submit(controlled, 3)
    attempt_id, body = worker.take()
    wanted = {
        ("zmqbroker_up",): 1,
        ("zmqbroker_tasks", "default", "waiting"): 2,
        ("zmqbroker_tasks", "default", "running"): 1,
        ("zmqbroker_tasks", "default", "delayed"): 0,
        ("zmqbroker_tasks_accepted_total", "default"): 3,
        ("zmqbroker_queue_workers", "default"): 1,
        ("zmqbroker_workers", "busy"): 1,
        ("zmqbroker_workers", "idle"): 0,
        ("zmqbroker_messages_total", "requests"): 3,
    }
    scraped_with(serving, wanted)
    until(lambda: scrape(serving)["zmqbroker_oldest_waiting_seconds", "default"] > 0)
    worker.reply(attempt_id, *body)
    client.recv_multipart()
    attempt_id, body = worker.take()
    worker.say(b"reject", attempt_id, b"no")
    client.recv_multipart()
    wanted = {
        ("zmqbroker_tasks", "default", "waiting"): 1,
        ("zmqbroker_tasks", "default", "running"): 0,
        ("zmqbroker_tasks_settled_total", "default", "done"): 1,
        ("zmqbroker_tasks_settled_total", "default", "failed"): 1,
        ("zmqbroker_attempts_total", "result", "default"): 1,
        ("zmqbroker_attempts_total", "reject", "default"): 1,
        ("zmqbroker_task_run_seconds_count",): 2,
        ("zmqbroker_task_run_seconds_bucket", "+Inf"): 2,
    }
    scraped_with(serving, wanted)


def test_buckets_hold_all_that_is_below_their_bounds(serving, controlled):
    worker = controlled.worker()
    submit(controlled, 5)
    for _ in range(5):
        worker.echo()
    samples = until(lambda: (found := scrape(serving)).get(("zmqbroker_task_run_seconds_count",)) == 5 and found)
    for name in ("zmqbroker_task_run_seconds", "zmqbroker_task_wait_seconds"):
        buckets = {float(key[1]): value for key, value in samples.items() if key[0] == f"{name}_bucket"}
        values = [buckets[bound] for bound in sorted(buckets)]
        assert len(values) == 16
        assert values == sorted(values)
        assert values[-1] == 5
        assert max(buckets) == float("inf")
        assert samples[f"{name}_sum",] >= 0


def test_all_is_named_as_prometheus_has_it(serving):
    families = [*text_string_to_metric_families(serving.get("/metrics").text)]
    types = {family.name: family.type for family in families}
    for kind in KINDS:
        assert re.fullmatch("zmqbroker_[a-z_]+", kind.name)
        assert kind.help.endswith(".")
        assert not set(kind.labels) - {"queue", "state", "status", "outcome", "socket"}  # no id among them
        assert kind.name.endswith("_total") == (kind.made is COUNTER)
        assert kind.name.endswith("_info") == (kind.made is INFO)
        if kind.made is COUNTER:
            assert types[kind.name.removesuffix("_total")] == "counter"
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.documentation for family in families)


def test_open_metrics_are_there_for_who_wants_them(serving):
    got = serving.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert got.headers["content-type"].startswith("application/openmetrics-text")
    assert any(family.name == "zmqbroker_tasks" for family in parse_open_metrics(got.text))


def test_a_store_has_metrics_of_its_own(start, serve_page, tmp_path):
    running = start(control="tcp://127.0.0.1:*", store=str(tmp_path / "store"))
    samples = scrape(serve_page(running.broker.control_address))
    assert samples["zmqbroker_store_bytes",] > 0
    assert samples["zmqbroker_store_free_bytes",] > samples["zmqbroker_store_floor_bytes",] > 0
    assert samples["zmqbroker_store_refusing",] == 0
    assert ("zmqbroker_store_commit_seconds_count",) in samples


def test_stored_tasks_count_again_when_they_come_back(start, serve_page, tmp_path):
    for life in range(2):
        running = start(control="tcp://127.0.0.1:*", store=str(tmp_path / "store"))
        if life == 0:
            submit(running, 1, key="a", durable=True)
        samples = scrape(serve_page(running.broker.control_address))
        assert samples["zmqbroker_tasks_accepted_total", "default"] == 1
        running.finish()
    (told,) = (kind.help for kind in KINDS if kind.name == "zmqbroker_tasks_accepted_total")
    assert "come back from the store" in told


def test_where_there_may_be_several_brokers_a_label_tells_them_apart(start, serve_page):
    both = [start(control="tcp://127.0.0.1:*") for _ in range(2)]
    addresses = [running.broker.control_address for running in both]
    submit(both[1], 2)
    samples = scrape(serve_page(*addresses))
    assert [samples["zmqbroker_tasks", address, "default", "waiting"] for address in addresses] == [0, 2]


def test_beyond_a_thousand_queues_the_rest_is_one(serving, controlled):
    names = [f"q/{number}" for number in range(1200)]
    client = controlled.client(zmq.DEALER)
    for name in names:
        client.send_multipart([b'ZB1 {"queue":"%s"}' % name.encode(), b"", b"x"])
    controlled.wait_for("accepted", 1200)

    def find() -> Scraped | None:
        samples = scrape(serving)
        waiting = [value for key, value in samples.items() if key[0] == "zmqbroker_tasks" and key[2] == "waiting"]
        return samples if sum(waiting) == 1200 and len(waiting) == 1001 else None

    samples = until(find)
    others = samples["zmqbroker_tasks", "other", "waiting"]
    assert others == 201  # the default queue has a place too
    assert samples["zmqbroker_tasks_accepted_total", "other"] == others
    assert samples["zmqbroker_oldest_waiting_seconds", "other"] > 0


def test_a_queue_that_is_called_as_the_rest_is_part_of_it(serving, controlled):
    submit(controlled, 2, queue="other")
    samples = until(lambda: (found := scrape(serving)).get(("zmqbroker_tasks", "other", "waiting")) == 2 and found)
    assert samples["zmqbroker_tasks_accepted_total", "other"] == 2


# Sums that only grow


def test_a_sum_grows_by_what_each_queue_has_grown():
    tally = Tally()
    tally.look({"a": [1, 2], "b": [10, 20]}, ["a"])
    assert (tally.total, tally.others) == ([11, 22], [10, 20])
    tally.look({"a": [3, 2], "b": [10, 21]}, ["a"])
    assert (tally.total, tally.others) == ([13, 23], [10, 21])


def test_a_sum_does_not_fall_when_a_queue_is_forgotten_and_begins_anew():
    tally = Tally()
    tally.look({"a": [5.0]}, [])
    tally.look({}, [])
    assert tally.others == [5]
    tally.look({"a": [2.0]}, [])
    assert tally.others == [7]


def test_a_queue_that_was_passed_over_once_is_not_counted_twice():
    tally = Tally()
    tally.look({"a": [5.0]}, [])
    tally.look({}, [])
    tally.look({"a": [6.0]}, [])
    assert tally.others == [6]


def test_what_has_a_place_keeps_it_and_gives_it_up_when_it_is_gone():
    places = Places(2, "other")
    places.look(dict.fromkeys(["other", "a", "b", "c"]))
    assert list(places.names) == ["a", "b"]
    places.look(dict.fromkeys(["c", "b", "a"]))
    assert list(places.names) == ["a", "b"]
    places.look(dict.fromkeys(["c", "b"]))
    assert list(places.names) == ["b", "c"]


def test_operations_lists_all_metrics():
    rows = section(OPERATIONS, "In a browser, and in Prometheus").rows
    shown = [row for row in rows if row[0].startswith("`zmqbroker_")]
    assert shown == [[f"`{kind.name}`", ", ".join(f"`{label}`" for label in kind.labels), kind.help] for kind in KINDS]
