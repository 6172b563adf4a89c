"""A real Prometheus, Debian's package, scrapes pages of real brokers: the alerts fire, the dashboard's queries answer.

One broker has failures and timeouts, and a queue that no worker asks from; the store of another one has no room, and
its worker hangs; a third one is killed. These conditions stay until the end, so that the order of the tests does not
matter. A fourth broker is killed again and again, in the test that needs it.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import zmq
from conftest import Peers, PlainWorker
from control_support import json as to_json
from helpers import PATIENCE, TOP, Program, bound_addresses, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.once]

DEPLOYED = TOP / "deploy" / "prometheus"
RULES, EXAMPLE, DASHBOARD = (DEPLOYED / name for name in ("alerts.yml", "prometheus.yml", "dashboard.json"))
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
TOKEN = "correct-horse-battery-staple"
LOOPBACK = "tcp://127.0.0.1:*"
NO_ROOM = 10**15  # bytes, of which no disk here has as many
PATIENT = "3s"  # between two scrapes of a page whose broker may be dead: it waits two seconds for it
PAUSE = 0.02  # seconds between two tasks
SHORT = 0.1  # seconds until an attempt times out
LONG = 1.5  # seconds for which a broker has been up, when it is certain that at the next scrape it has been for less
DIRECTLY = build_opener(ProxyHandler({}))  # whatever proxy others use

if PROMETHEUS is None or PROMTOOL is None:
    pytest.skip("there is no prometheus: apt-get install prometheus", allow_module_level=True)


class Scene:
    """Brokers, their pages, and a Prometheus that scrapes them each second."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self._token = directory / "zmqbroker.token"
        self._token.write_text(TOKEN)
        self._token.chmod(0o600)
        self.busy, self.full, gone = self._broker("busy", 0), self._broker("full", NO_ROOM), self._broker("gone", 0)
        self._crashing, self._last_up = self._broker("crashing", 0, f"ipc://{directory / 'control'}"), 0.0
        self.names = [control(broker) for broker in (self.busy, self.full)]
        self.pages = [self._page(*self.names), self._page(control(gone)), self._page(control(self._crashing))]
        nobody = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        self.closed = f"127.0.0.1:{nobody.getsockname()[1]}"
        nobody.close()
        self._url = f"http://{self._prometheus()}"
        wait_until(lambda: self.values("zmqbroker_up") == [1, 1, 1, 1])
        gone.process.kill()
        self._wait_in_vain()
        self._hang()
        self._do_tasks()

    def crash(self) -> None:
        """Kill a broker and start it again, if Prometheus has seen the last start, and will see the next one."""
        up = sum(self.values(f'zmqbroker_uptime_seconds{{instance="{self.pages[2]}"}}'))
        if up > LONG and up != self._last_up:
            self._crashing.end(signal.SIGKILL)
            self._crashing, self._last_up = self._broker("crashing", 0, control(self._crashing)), up

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that are the answer to a query."""
        return self.get("query", query=expression)["result"]

    def values(self, expression: str) -> list[float]:
        return [float(sample["value"][1]) for sample in self.query(expression)]

    def get(self, what: str, **fields: str) -> Any:
        with DIRECTLY.open(f"{self._url}/api/v1/{what}?{urlencode(fields)}", timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def scrape(self) -> str:
        """Return what a page tells."""
        request = Request(f"http://{self.pages[0]}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        with DIRECTLY.open(request, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def _start(self, script: str, *arguments: object, **options: Any) -> Program:
        program = Program(script, *arguments, **options)
        self._stack.callback(program.clean_up)
        return program

    def _broker(self, name: str, floor: int, control: str = LOOPBACK) -> Program:
        stored = ["--store", self._directory / name, "--store-floor", floor]
        options = [*stored, "--control", control, "-t", 1, "--drain", 0]
        return self._start("zmqbroker/__main__.py", "serve", *options, LOOPBACK, LOOPBACK, LOOPBACK)

    def _page(self, *controls: str) -> str:
        options = ["--listen", "127.0.0.1:0", "--token", self._token]
        page = self._start("zmqbroker/__main__.py", "web", *options, *controls)
        return page.wait_for("the page is at http://(.*)/")[1]

    def _prometheus(self) -> str:
        """Start one with the files that are there, but for what is said of time and place; return where it is."""
        (self._directory / "alerts.yml").write_text(in_seconds(RULES.read_text()))
        example = with_token(EXAMPLE.read_text()).replace("15s", "1s")
        first = json.dumps([self.pages[0], self.pages[2], self.closed])
        patience = {"__scrape_interval__": PATIENT, "__scrape_timeout__": PATIENT}
        second = json.dumps({"targets": [self.pages[1]], "labels": patience})
        replaced = example.replace('["127.0.0.1:8161"]', f"{first}\n      - {second}")
        assert replaced != example
        config = self._directory / "prometheus.yml"
        config.write_text(replaced)
        options = [f"--config.file={config}", f"--storage.tsdb.path={self._directory / 'data'}"]
        options.append("--web.listen-address=127.0.0.1:0")
        prometheus = self._start(str(PROMETHEUS), *options, python=Path("/usr/bin/env"))  # which is no Python either
        prometheus.wait_for("Server is ready to receive web requests")
        return prometheus.wait_for(r'msg="Listening on" address=(127\.0\.0\.1:[1-9]\d*)')[1]

    def _wait_in_vain(self) -> None:
        """Have a task wait in a queue that no worker asks from."""
        client = self._stack.enter_context(Peers()).open(zmq.DEALER, bound_addresses(self.busy)[0])
        client.send_multipart([b"ZB1 " + to_json({"queue": "gpu"}), b"", b"a task"])

    def _hang(self) -> None:
        """Have a worker that does nothing with its task, while another one waits."""
        requests, ready, results = bound_addresses(self.full)
        peers = self._stack.enter_context(Peers())
        client = peers.open(zmq.DEALER, requests)
        for _ in range(2):
            client.send_multipart([b"ZB1 {}", b"", b"a task"])
        PlainWorker(peers.open(zmq.REQ, ready), peers.open(zmq.PUSH, results)).take()

    def _do_tasks(self) -> None:
        """Have durable tasks done until the end, of which every fourth one fails, and another fourth times out."""
        is_over = threading.Event()
        thread = threading.Thread(target=do_tasks, args=(self.busy, is_over), daemon=True)
        thread.start()
        self._stack.callback(thread.join, PATIENCE)
        self._stack.callback(is_over.set)


def do_tasks(broker: Program, is_over: threading.Event) -> None:
    """Be a client and a worker, until it is over."""
    requests, ready, results = bound_addresses(broker)
    with Peers() as peers:
        client = peers.open(zmq.DEALER, requests)
        worker = PlainWorker(peers.open(zmq.REQ, ready), peers.open(zmq.PUSH, results))
        for number in count():
            times_out = {"timeout": SHORT} if number % 4 == 3 else {}
            fields = {"key": f"task {number}", "durable": True} | times_out
            client.send_multipart([b"ZB1 " + to_json(fields), b"", b"a task"])
            attempt_id, body = worker.take()
            if number % 4 == 1:
                worker.say(b"reject", attempt_id, b"no")
            elif not times_out:
                worker.reply(attempt_id, *body)
            client.recv_multipart()
            if is_over.wait(PAUSE):
                return


def control(broker: Program) -> str:
    """Return the address of its control socket."""
    return broker.wait_for(r"^control +(\S+)$")[1]


def with_token(example: str) -> str:
    """Return a configuration in which the lines for a token count."""
    counting = re.sub(r"# (authorization:|  credentials_file:)", r"\1", example)
    assert counting.count("\n    authorization:\n      credentials_file:") == 1
    return counting


def in_seconds(rules: str) -> str:
    """Return rules in which a minute has become a second."""
    return re.sub(r"(?<=\d)m\b", "s", rules).replace("* 60", "* 1")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack, tmp_path_factory.mktemp("prometheus"))


def promtool(*arguments: object, given: str = "") -> str:
    """Return what it says, when it has nothing against it."""
    ran = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], input=given, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_rules_and_the_example_are_well_formed(tmp_path: Path):
    promtool("check", "rules", "--lint-fatal", RULES)
    promtool("check", "config", "--lint-fatal", EXAMPLE)
    shutil.copy(RULES, tmp_path)
    shutil.copy(DEPLOYED / "in-compose.yml", tmp_path)
    (tmp_path / "zmqbroker.token").touch()
    (tmp_path / "prometheus.yml").write_text(with_token(EXAMPLE.read_text()))
    for name in ("in-compose.yml", "prometheus.yml"):
        promtool("check", "config", "--lint-fatal", tmp_path / name)


def test_alerts_come_when_they_should_and_not_before():
    promtool("test", "rules", Path(__file__).parent / "alerts_test.yml")


def test_each_alert_fires(scene: Scene):
    busy, full = ((name, scene.pages[0]) for name in scene.names)
    gone, crashing, closed = (
        (None, where) for where in (*scene.pages[1:], scene.closed)
    )  # without a label for the broker
    expected = {
        ("ZmqbrokerPageDown", *closed): f"Nothing is known of the brokers of {scene.closed}",
        ("ZmqbrokerDown", *gone): f"No broker answers at {scene.pages[1]}",
        (
            "ZmqbrokerKeepsRestarting",
            *crashing,
        ): rf"The broker at {scene.pages[2]} was started \d times in half an hour",
        ("ZmqbrokerQueueWithoutWorkers", *busy): "No worker asks from the queue gpu where tasks wait",
        ("ZmqbrokerTasksWaitLong", *full): r"A task has waited for \S+s in the queue default",
        (
            "ZmqbrokerNothingDone",
            *full,
        ): "There are workers for the queue default, and tasks, and none has been done for long",
        ("ZmqbrokerTasksTimeOut", *busy): r"\S+% of the attempts in the queue default time out",
        ("ZmqbrokerTasksFail", *busy): r"\S+% of the tasks in the queue default fail or expire",
        ("ZmqbrokerStoreNearlyFull", *full): r"The disk of the store has \S+B left",
        ("ZmqbrokerStoreRefuses", *full): "New tasks are not stored, as the disk is full",
    }
    assert {name for name, *_ in expected} == set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    told: dict[tuple[str, ...], str] = {}

    def all_fire() -> bool:
        scene.crash()
        firing = [alert for alert in scene.get("alerts")["alerts"] if alert["state"] == "firing"]
        for labels, annotations in ((alert["labels"], alert["annotations"]) for alert in firing):
            told[labels["alertname"], labels.get("broker"), labels["instance"]] = annotations["summary"]
        return expected.keys() <= told.keys()

    wait_until(all_fire)
    for alert, summary in expected.items():
        assert re.fullmatch(summary, told[alert])


def dashboard_queries() -> Iterator[str]:
    """Yield each expression of the dashboard's panels and annotations."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]


def with_variables(query: str, **chosen: str) -> str:
    """Return a query of the dashboard as Grafana sends it; what is not chosen is all."""
    variables = {"__rate_interval": "5s"} | chosen
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ".*"), query)


def lacking(scene: Scene, **chosen: str) -> list[str]:
    """Return the dashboard's queries to which there is no answer, or none with a number."""
    queries = [with_variables(query, **chosen) for query in dashboard_queries()]
    return [query for query in queries if all(value != value for value in scene.values(query))]


def test_each_query_of_the_dashboard_answers_with_data(scene: Scene):
    queries = [*dashboard_queries()]
    assert len(queries) > 30
    wait_until(lambda: not lacking(scene))
    one = re.escape(scene.names[0]).replace("\\", r"\\")  # twice, as Grafana does: in a string of PromQL
    wait_until(lambda: not lacking(scene, broker=one))
    metrics = set(re.findall(r"zmqbroker_\w+", " ".join(queries)))
    told = set(re.findall(r"^# TYPE (\S+)", scene.scrape(), re.MULTILINE))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in metrics} == told


def test_each_variable_of_the_dashboard_has_values(scene: Scene):
    variables = [one for one in json.loads(DASHBOARD.read_text())["templating"]["list"] if one["type"] == "query"]
    found = {}
    for variable in variables:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
        found[variable["name"]] = set(scene.get(f"label/{label}/values", **{"match[]": with_variables(series)}))
    assert found == {"instance": set(scene.pages), "broker": set(scene.names), "queue": {"default", "gpu"}}


def test_promtool_finds_nothing_to_object_to_in_what_a_page_tells(scene: Scene):
    assert promtool("check", "metrics", given=scene.scrape()) == ""
