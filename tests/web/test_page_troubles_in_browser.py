"""The page in a real browser, where something is wrong: it is said, found, and never denied."""

from collections.abc import Callable
from json import dumps
from typing import Any

import pytest
import zmq
from browser_support import browser, look
from conftest import Running
from control_support import json, submit
from web_support import IMPATIENT, serve_page

from zmqbroker.transport.control import ControlSocket

__all__ = ["browser", "look", "serve_page"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.once]
CONTROL = "tcp://127.0.0.1:*"
MANY = 2100  # tasks, more than the broker looks at for one answer
BLANK = "\u3164"
MARKS = "\u0e31" * 100
HOSTS = ("", "x)y(z", "h" * 299 + "\U0001f600" + "z" * 20)


def work(running: Running, host: str, pid: int, **announce: Any) -> zmq.Socket[bytes]:
    """Return a worker that has announced itself and asked for a task."""
    worker = running.open(zmq.DEALER, running.addresses.ready)
    whole = {"role": "worker", "protocol": 1, "label": "w", "host": host, "pid": pid, "serial": True, "headers": True}
    worker.send_multipart([b"ZB1 " + json(whole | announce), b""])
    worker.recv_multipart()
    worker.send_multipart([b"", b"ZB1 ready 1"])
    return worker


def test_tasks_that_no_part_of_a_list_has_are_shown_or_looked_for_further(start, serve_page, look):
    running = start(control=CONTROL)
    submit(running, MANY, queue="others")
    worker = work(running, "host", 1, queues=["b"])
    submit(running, 2, queue="b")
    worker.recv_multipart()
    sight = look(serve_page(running.broker.control_address))
    sight.go("#/queue/b", "Queue b")
    sight.see("[data-key=running] tbody tr")
    sight.see("[data-key=waiting] :is(tbody tr, a:text('look further'))")
    sight.shoot("far")
    sight.page.click("a:text-is('Its workers')")
    sight.see("main:not(.stale) h1:text('Workers')")
    sight.page.click("tbody th a")
    sight.see("main:not(.stale) h1:text('Worker w')")
    sight.see("[data-key=held] tbody tr")


def test_it_says_that_nothing_is_done_and_what_the_broker_has_given_up(start, serve_page, look):
    running = start(control=CONTROL, tries=0, timeout=0.1)
    hangs = work(running, "host", 1)
    submit(running, 1)
    hangs.recv_multipart()
    running.wait_for("retried", 1)
    sight = look(serve_page(running.broker.control_address))
    sight.see("text=Nothing is wrong so far: no queue waits in vain.")
    assert not sight.page.title().startswith("!")

    def still(history: Any) -> Any:
        numbers = {"waiting": 1, "running": 0, "accepted": 1, "done": 0, "failed": 0}
        total = {name: [number] * 3 for name, number in numbers.items()}
        return history | {"ages": [290, 240, 1], "total": total | {"retried": [0, 5, 20]}}

    sight.change("history", still)
    sight.change("status", lambda status: status | {"unserved": 1000})
    sight.see("text=Nothing has been done for 4.8 min")
    sight.see("text=20 had to be made again in the last 4.8 min")
    sight.see("text=Tasks wait in at least 1,000 queues")
    assert sight.page.title().startswith("! 1 waiting")
    sight.shoot("still")
    sight.page.unroute_all(behavior="ignoreErrors")
    sight.go("#/queue/default", "Queue default")
    sight.see("text=1 task waits here, and none of its workers is free")
    sight.page.click("a:text-is('Its workers')")
    sight.see("tr.warn .badge:text('given up')")
    sight.page.click("tbody th a")
    sight.see("text=It is still at a task that the broker has given up: 1, which is waiting.")
    sight.see("text=Nothing runs there.")
    sight.shoot("given-up")
    works = work(running, "host", 2)
    attempt = works.recv_multipart()
    works.send_multipart([b"", b"ZB1 done 0 " + attempt[2], b"a result"])
    running.wait_for("done", 1)
    sight.see("text=which is done")
    sight.page.click(".alarm a")
    sight.see("text=So it is settled, or there never was one")
    submit(running, 1)
    running.broker.stop()
    sight.go("", "Overview")
    sight.see("text=The broker drains: it refuses new tasks, and ends when 1 task is settled.")
    assert sight.page.query_selector("text=All is well") is None


def test_a_task_that_has_failed_twice_is_there_twice_and_failures_are_searched(start, serve_page, look, tmp_path):
    running = start(control=CONTROL, tries=1, store=tmp_path / "store")
    worker = running.worker()

    def fail(reason: bytes) -> None:
        attempt_id, _ = worker.take()
        worker.say(b"reject", attempt_id, reason)

    client = submit(running, 1, key="twice", detach=True)
    fail(b"first")
    running.wait_for("failed", 1)
    submit(running, 1, queue="other/one", key="other", tries=1, expires=0.01)
    running.wait_for("expired", 1)
    with ControlSocket(running.broker.control_address, patience=20) as control:
        running.wait_until(lambda: control.ask("status")["store"]["failed"] == 1)
        sight = look(serve_page(running.broker.control_address), "#/failures")
        sight.see("tbody tr:nth-child(2)")
        control.ask("retry", key="twice")
    fail(b"second")
    sight.see("tbody tr:nth-child(3)")
    for _ in range(2):  # drawn anew, nothing gets lost
        was = sight.page.inner_text("#freshness")
        sight.page.wait_for_function("(was) => document.getElementById('freshness').textContent !== was", arg=was)
    reasons = sight.page.eval_on_selector_all("td.is-name", "cells => cells.map(each => each.innerText)")
    assert [reason.split()[-1] for reason in reasons] == ["second", "s", "first"]
    sight.page.fill("input[name=reason]", "SEC")
    sight.see("text=1 failure found of 3")
    sight.shoot("searched")
    sight.go("#/queue/default", "Queue default")
    sight.page.click("a:text-is('Its failures')")
    sight.see("text=2 failures found of 3")
    sight.page.select_option("select[name=kept]", "store")
    sight.see("th:text('Kept for')")
    assert client
    sight.see("tbody >> text=second")


def test_odd_names_lead_where_they_should(start, serve_page, look):
    running = start(control=CONTROL)
    workers = [work(running, host, 500 + place, label=f"w{place} {BLANK}") for place, host in enumerate(HOSTS)]
    submit(running, 1, key="3")
    submit(running, 1, key=f"a{MARKS}")
    submit(running, 1, key="77")
    for worker in workers:
        worker.recv_multipart()
    sight = look(serve_page(running.broker.control_address), viewport={"width": 1280, "height": 800})
    for route, column in (("#/workers", "th"), ("#/tasks", "td:last-child")):
        sight.go(route, route[2:].capitalize() if route == "#/workers" else "Unsettled tasks")
        sight.see("tbody tr:nth-child(3)")
        selector = f"tbody {column} a"
        links = sight.page.eval_on_selector_all(selector, "links => links.map(each => each.getAttribute('href'))")
        assert len(set(links)) == len(HOSTS)
        for link in links:
            sight.go(link, "Worker w")
            sight.see("[data-key=held] tbody tr:only-child")
    sight.go("#/tasks", "Unsettled tasks")
    shown = sight.page.inner_text("main")
    assert "\\u0e31" in shown
    assert "\\u3164" in shown
    assert MARKS[:5] not in shown
    for number, text in (("1", "Task 1"), ("3", "Task 3"), ("77", "Task 3")):
        sight.go("#/tasks", "Unsettled tasks")
        sight.page.fill("[data-open] input", number)
        sight.page.keyboard.press("Enter")
        sight.see(f"main:not(.stale) h1:text('{text}')")
        assert bool(sight.page.query_selector("text=Another task has this number as its key: 1")) is (number == "3")
    for name in ("constructor", "toString", "__proto__"):
        sight.go(f"#/{name}", "Not here")
    sight.go("", "Overview")
    submit(running, 1, queue="constructor")
    submit(running, 1, queue="toString")
    sight.see("text=Tasks wait in 2 queues")
    sight.see("[data-key=queues] >> text=constructor")
    assert sight.page.inner_text("#trouble") == ""


@pytest.fixture
def fails(start: Callable[..., Running], serve_page: Any, look: Any) -> Any:
    """Return a page, and a function that has the answers to `status` be something else."""
    running = start(control=CONTROL)
    sight = look(serve_page(running.broker.control_address, patience=IMPATIENT))
    sight.see("text=All is well")

    def fail(**answer: Any) -> None:
        sight.page.unroute_all(behavior="ignoreErrors")
        sight.page.route("**/api/status?*", lambda route: route.fulfill(**answer))

    return sight, fail


def test_it_says_who_is_at_fault(fails):
    sight, fail = fails
    for answer, who in (
        ({"status": 200, "json": {"waiting": 1}}, "This page has a fault"),
        ({"status": 500, "json": {"error": "a fault of the page"}}, "This page has a fault"),
        ({"status": 502, "body": "<h1>Bad Gateway</h1>"}, "This page's server does not answer"),
        ({"status": 503, "json": {"error": "gone", "since": 60}}, "The broker does not answer"),
    ):
        fail(**answer)
        sight.see(f"#trouble strong:text({dumps(who)})")
        assert sight.page.title() == "! No answer · zmqbroker"
    sight.wrong.clear()  # the page's own faults are on the console, too
    sight.page.route("**/api/**", lambda route: route.abort())
    sight.page.click("text=Queues")
    sight.see("h1:text-is('Queues')")
    sight.see("text=Nothing is known of this yet.")
    sight.shoot("unknown")
    sight.page.unroute_all(behavior="ignoreErrors")
    sight.see("main:not(.stale) [data-key=queues]")
    sight.see("#trouble p", state="detached")
