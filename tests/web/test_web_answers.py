"""The page's server before real brokers: what it answers, how often it asks, and what it says when none answers."""

import threading
from time import monotonic

import pytest
import zmq
from conftest import Running
from control_commands_support import place
from control_support import controlled, submit
from web_support import IMPATIENT, Serve, Serving, serve_page, until

from zmqbroker.web import brokers, looking
from zmqbroker.web.asker import FRESH

__all__ = ["controlled", "place", "serve_page"]  # fixtures
LONG = "%F0%9F%98%80" * 1000  # letters of which each takes 12 bytes in a question


@pytest.fixture
def serving(controlled: Running, serve_page: Serve) -> Serving:
    return serve_page(controlled.broker.control_address)


@pytest.mark.parametrize("ask", ["status", "queues", "workers", "tasks", "failures"])
def test_what_the_broker_answers_is_told_as_it_is(serving, controlled, ask):
    submit(controlled, 2)
    got = serving.get(f"/api/{ask}")
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert (got.json["zmqbroker"], got.json["ok"]) == (1, True)
    assert got.headers["cache-control"] == "no-store"


def test_fields_go_with_the_question(serving, controlled):
    submit(controlled, 3, queue="mail")
    submit(controlled, 1, key="letter", queue="post")
    tasks = serving.get("/api/tasks?queue=mail&most=2&state=waiting").json
    assert [task["queue"] for task in tasks["tasks"]] == ["mail", "mail"]
    more = serving.get(f"/api/tasks?queue=mail&after={tasks['cursor']}").json["tasks"]
    assert len(more) == 1
    assert serving.get("/api/task?key=letter").json["task"]["queue"] == "post"
    assert serving.get("/api/queues?queue=post").json["queues"][0]["waiting"] == 1


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/nothing", 404, "not found"),
        ("/elsewhere", 404, "not found"),
        ("/api/status?most=1", 400, "there is no 'most' here"),
        ("/api/tasks?most=x", 400, "most must be a whole number"),
        ("/api/tasks?most=-1", 400, "most must be a whole number"),
        ("/api/tasks?most=99", 400, "most must be a whole number from 1 to 50"),
        ("/api/tasks?most=" + "9" * 5000, 400, "most must be a whole number"),
        ("/api/tasks?most=%D9%A3", 400, "most must be a whole number"),
        ("/api/tasks?most=1&most=2", 400, "most is given twice"),
        ("/api/tasks?state=done", 400, "state must be one of"),
        ("/api/tasks?worker=" + "x" * 1001, 400, "worker has 1000 characters at most"),
        (f"/api/tasks?queue={LONG}&worker={LONG}", 400, "this is more than a broker can be asked"),
        (f"/api/task?key={LONG}", 404, "there is no"),
        ("/api/queues?find=a&most=0", 400, "most must be from 1"),
        ("/api/queues?sort=colour", 400, "sort must be one of"),
        ("/api/task", 404, "say which task"),
        ("/api/task?number=77", 404, "there is no unsettled task with the number 77"),
        ("/api/task?key=%1b[31m%e2%80%ae", 404, r"\x1b[31m\u202e"),
        ("/api/queues?queue=nowhere", 404, "there is no queue nowhere"),
        ("/api/failed", 404, "stores no tasks"),
        ("/api/status?broker=another", 404, "no broker 'another' is watched"),
        ("/api/history?queue=a&colour=b", 400, "there is no 'colour'"),
        ("/api/history?" + "queue=a&" * 51, 400, "queue may be given 50 times"),
        ("/static/../pages.py", 404, "not found"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(serving, path, status, words):
    got = serving.get(path)
    assert (got.status, list(got.json)) == (status, ["error"])
    assert words in got.json["error"]
    assert got.json["error"].isprintable()


@pytest.mark.parametrize("ask", ["pause", "cancel", "drain", "retry", "forget", "limit", "resume"])
def test_no_path_leads_to_a_change(serving, ask):
    assert serving.get(f"/api/{ask}?queue=default").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/status", "/metrics"])
def test_it_only_reads(serving, method, path):
    got = serving.get(path, method)
    assert (got.status, got.json) == (405, {"error": "method not allowed"})


def test_however_many_look_the_broker_is_asked_as_often_as_by_one(serving):
    began = threading.Event()

    def look() -> None:
        began.wait()
        for _ in range(20):
            for path in ("/api/status", "/api/queues", "/metrics", "/readyz"):
                assert serving.get(path).status == 200

    until(lambda: serving.asked)
    threads = [threading.Thread(target=look) for _ in range(4)]
    at = monotonic()
    for thread in threads:
        thread.start()
    began.set()
    for thread in threads:
        thread.join()
    rounds = (monotonic() - at) / FRESH + 2
    assert serving.asked.count("status") <= rounds
    assert serving.asked.count("queues") <= 2 * rounds  # one is the first page of a walk


def test_it_lives_and_is_ready_while_a_broker_answers(serve_page, controlled):
    serving = serve_page(controlled.broker.control_address, patience=IMPATIENT)
    until(lambda: serving.get("/readyz").status == 200)
    assert serving.get("/healthz").status == 200
    controlled.finish()
    until(lambda: serving.get("/readyz").status == 503)
    assert serving.get("/healthz").status == 200


def test_a_broker_that_does_not_answer_is_told_of_and_is_back_by_itself(start, serve_page):
    running = start(control="tcp://127.0.0.1:*")
    address = running.broker.control_address
    serving = serve_page(address, patience=IMPATIENT)
    until(lambda: serving.get("/api/status").status == 200)
    running.finish()
    got = until(lambda: (got := serving.get("/api/status")).status == 503 and got)
    assert f"no broker answers at {address}" in got.json["error"]
    assert got.json["since"] >= 0
    (told,) = serving.get("/api/brokers").json["brokers"]
    assert (told["name"], told["waiting"]) == (address, None)
    assert told["error"] == got.json["error"]
    assert "zmqbroker_up 0.0" in serving.get("/metrics").text

    again = start(control=address)
    until(lambda: serving.get("/api/status").status == 200)
    until(lambda: serving.get("/api/brokers").json["brokers"][0]["error"] is None)
    again.finish()


def test_while_a_broker_hangs_nothing_piles_up(start, serve_page):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as silent:
        silent.linger = 0
        port = silent.bind_to_random_port("tcp://127.0.0.1")
        serving = serve_page(f"tcp://127.0.0.1:{port}", patience=IMPATIENT)
        threads = [threading.Thread(target=serving.get, args=(f"/api/tasks?after={n}",)) for n in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(serving.asked) <= 15  # of 30, however slowly they come
        got = serving.get("/api/status")
        assert got.status == 503
        assert serving.get("/healthz").status == 200


def test_of_several_brokers_each_is_told_of_by_its_name(start, serve_page):
    both = [start(control="tcp://127.0.0.1:*") for _ in range(2)]
    addresses = [running.broker.control_address for running in both]
    submit(both[1], 3)
    serving = serve_page(*addresses)
    assert sorted(one["name"] for one in serving.get("/api/brokers").json["brokers"]) == sorted(addresses)
    got = serving.get("/api/status")
    assert got.status == 404
    assert "say which by broker=NAME" in got.json["error"]
    assert [serving.get(f"/api/status?broker={address}").json["waiting"] for address in addresses] == [0, 3]


def test_brokers_of_this_user_are_found_and_a_new_one_takes_the_place_of_the_old(start, serve_page, place, monkeypatch):
    monkeypatch.setattr(brokers, "SOUGHT_EVERY", 0.1)
    serving = serve_page(patience=IMPATIENT)
    assert serving.get("/api/brokers").json["brokers"] == []
    assert serving.get("/readyz").status == 503
    assert "no broker of this user answers" in serving.get("/api/status").json["error"]
    running = start(control=f"ipc://{place}/1.control")
    requests = running.addresses.requests
    until(lambda: [one["name"] for one in serving.get("/api/brokers").json["brokers"]] == [requests])
    until(lambda: serving.get(f"/api/status?broker={requests}").status == 200)
    running.finish()
    until(lambda: serving.get("/api/brokers").json["brokers"][0]["error"])
    start(control=f"ipc://{place}/2.control", requests=requests)

    def is_back() -> bool:
        (one,) = serving.get("/api/brokers").json["brokers"]
        return one["error"] is None and one["control"].endswith("2.control")

    until(is_back)


@pytest.mark.parametrize("wanted", ["queue=default", "state=running", "queue=default&state=running&most=1"])
def test_tasks_behind_thousands_of_others_are_found(controlled, serving, wanted):
    """Each answer of a broker looks at some 2,000 tasks."""
    submit(controlled, 4200, queue="print")
    submit(controlled, 1)
    controlled.worker().take()
    got = serving.get(f"/api/tasks?{wanted}").json
    assert [task["number"] for task in got["tasks"]] == [4201]
    assert (got["total"], got["cursor"]) == (4201, None)
    got = serving.get("/api/tasks?most=50").json
    assert len(got["tasks"]) == got["cursor"] == 50


def test_for_a_page_of_tasks_a_bounded_number_of_them_is_looked_through(controlled, serving, monkeypatch):
    monkeypatch.setattr(looking, "MOST_ANSWERS", 1)
    submit(controlled, 2100, queue="print")
    submit(controlled, 3, queue="mail")
    got = serving.get("/api/tasks?queue=mail").json
    assert (got["tasks"], got["cursor"]) == ([], 2000)
    got = serving.get("/api/tasks?queue=mail&after=2000&most=2").json
    assert ([task["number"] for task in got["tasks"]], got["cursor"]) == ([2101, 2102], 2102)
    assert len(serving.get("/api/tasks?queue=mail&after=2102").json["tasks"]) == 1


def test_queues_are_searched_and_sorted_in_all_that_there_are(controlled, serving):
    for number in range(60):
        submit(controlled, 1, queue=f"mail/{number:02}")
    submit(controlled, 2, queue="print")
    path = "/api/queues?find=MAIL&sort=name&most=40"
    got = until(lambda: (got := serving.get(path).json)["total"] == 62 and got)  # the last walk is good for a second
    assert [queue["name"] for queue in got["queues"]] == [f"mail/{number:02}" for number in range(40)]
    assert (got["total"], got["found"], got["cursor"]) == (62, 60, 40)
    rest = serving.get("/api/queues?find=MAIL&sort=name&most=40&after=40").json
    assert len(rest["queues"]) == 20
    assert rest["cursor"] is None
    assert serving.get("/api/queues?sort=waiting&most=1").json["queues"][0]["name"] == "print"


def test_the_last_minutes_are_told_of_each_queue(controlled, serving):
    submit(controlled, 3, queue="mail")
    told = until(lambda: (told := serving.get("/api/history?queue=mail&queue=none").json)["ages"] and told)
    assert len(told["ages"]) == len(told["total"]["waiting"]) == len(told["queues"]["mail"]["waiting"])
    assert set(told["queues"]["none"]["waiting"]) == {None}


def test_what_is_no_unicode_is_told_all_the_same(controlled, serving):
    submit(controlled, 1, key="half \ud83d a pair")
    assert serving.get("/api/tasks").json["tasks"][0]["key"] == "half \ud83d a pair"
