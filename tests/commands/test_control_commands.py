"""`zmqbroker status`, `task`, `queue`, `worker` and `drain` as a user runs them."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import zmq
from conftest import Running
from control_commands_support import COMMAND, ENVIRONMENT, Ran, place
from helpers import PATIENCE, wait_until
from library_support import Gate, working

from zmqbroker import Client, TaskFailed
from zmqbroker.commands.screen import picture, shares
from zmqbroker.commands.status import View
from zmqbroker.commands.tables import Column, Page, Row, cut, short, size, span, squeeze, width
from zmqbroker.transport.control import PATIENCE as CONTROL_PATIENCE
from zmqbroker.transport.control import ControlSocket, NoAnswerError
from zmqbroker.transport.places import ONLY_PLACE

pytestmark = pytest.mark.once


__all__ = ["place"]  # a fixture

NASTY = "w\u202e\x1b[2J\u05d0"  # a label that turns the line around and clears the screen


@pytest.fixture
def broker(place: str, start: Callable[..., Running]) -> Running:
    return start(control="auto")


def submit(broker: Running, number: int, **fields: object) -> zmq.Socket[bytes]:
    """Send so many tasks and see that they are accepted."""
    client = broker.client(zmq.DEALER)
    before = broker.count("accepted")
    for _ in range(number):
        client.send_multipart([b"ZB1 " + json.dumps(fields).encode(), b"", b"task"])
    broker.wait_for("accepted", before + number)
    return client


# Which broker


def test_without_a_broker_status_and_changes_end_with_status_2(place: str):
    for arguments in (["status"], ["drain"], ["task", "list"], ["status", "--json"]):
        ran = Ran(*arguments)
        assert (ran.out, ran.status) == ("", 2)
        assert re.fullmatch(r"zmqbroker [a-z ]+: no broker of this user answers on this machine; .*\n", ran.err)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("ipc:///nowhere/control", "no broker answers at ipc:///nowhere/control: its directory does not exist"),
        ("tcp://127.0.0.1:99999", "'tcp://127.0.0.1:99999' is no address to connect to: its port must be .*"),
        ("nonsense", "'nonsense' is no address to connect to: .*"),
    ],
)
def test_an_address_where_no_broker_answers_is_one_line_and_status_2(address: str, error: str):
    ran = Ran("status", address)
    assert (ran.out, ran.status) == ("", 2)
    assert re.fullmatch(rf"zmqbroker status: {error}\n", ran.err)


def test_who_asks_at_the_address_for_clients_is_told_so(broker: Running):
    ran = Ran("status", broker.addresses.requests)
    assert (ran.out, ran.status) == ("", 2)
    assert ran.err == "zmqbroker status: this is the address for REQUESTS of a broker, and not its control socket\n"
    assert broker.count("accepted") == 0


def test_several_brokers_are_listed_by_status_and_not_changed_by_anything(broker: Running, start):
    other = start(control="auto")
    ran = Ran("status")
    assert ran.status == 0
    assert all(f"{one.broker.control_address} " in ran.out for one in (broker, other))
    assert len(ran.out.splitlines()) == 3
    lines = Ran("status", "--json").out.splitlines()
    assert {json.loads(line)["control"] for line in lines} == {
        broker.broker.control_address,
        other.broker.control_address,
    }
    drained = Ran("drain")
    assert (drained.out, drained.status) == ("", 2)
    assert drained.err.startswith("zmqbroker drain: several brokers answer, say which one is meant: ipc://")
    address = other.broker.control_address
    assert Ran("queue", "pause", "gpu", address).status == 0
    assert Ran("queue", "limit", "gpu", "--running", 1, address).status == 0
    assert Ran("queue", "limit", "gpu", "--running", 1, address, address).err == (
        f"zmqbroker queue limit: unrecognized arguments: {address} {address} (see zmqbroker queue limit --help)\n"
    )


@pytest.mark.slow  # it waits for as long as a user would
def test_brokers_that_do_not_answer_are_waited_for_all_at_once(place: str, running: Running):
    mute = [running.context.socket(zmq.ROUTER) for _ in range(5)]
    try:
        for number, each in enumerate(mute):
            each.bind(f"ipc://{place}/mute-{number}")
        began = time.monotonic()
        ran = Ran("status")
        assert time.monotonic() - began < 5 * CONTROL_PATIENCE
    finally:
        for each in mute:
            each.close(0)
    assert (ran.out, ran.status) == ("", 2)
    assert re.fullmatch(r"zmqbroker status: no broker answers at ipc://\S+: .*\n", ran.err)


@pytest.mark.slow  # it waits for as long as a user would
def test_one_of_several_brokers_that_does_not_answer_is_listed_and_the_status_is_1(broker: Running, place: str):
    with broker.context.socket(zmq.ROUTER) as mute:
        address = f"ipc://{place}/mute"
        mute.bind(address)
        listed, as_json = Ran("status"), Ran("status", "--json")
    assert (listed.status, as_json.status) == (1, 1)
    assert re.search(rf"^{address} .* no answer ", listed.out, re.MULTILINE)
    assert f"no broker answers at {address}: " in " ".join(listed.out.split("\n"))
    errors = {line["control"]: line.get("error", "") for line in map(json.loads, as_json.out.splitlines())}
    assert errors.keys() == {address, broker.broker.control_address}
    assert errors[address].startswith(f"no broker answers at {address}: ")


# status


def test_the_status_of_a_broker_fits_one_screen_and_is_0_when_all_is_well(broker: Running):
    gate = Gate(b"stop")
    with working(broker.addresses.ready, gate, label="one"), Client(broker.addresses.requests) as client:
        future = client.submit(b"stop")
        gate.wait_for(b"stop")
        ran = Ran("status")
        gate.open(b"stop")
        future.result(PATIENCE)
    assert (ran.err, ran.status) == ("", 0)
    assert re.search(r"^zmqbroker \S+, process \d+, serving, up ", ran.out)
    assert "\n0 waiting, 0 delayed, 1 running; 1 worker, 0 idle\n" in ran.out
    assert re.search(r"^busy \d+%, longest turn \S+ ms; \S+ MB, \d+ descriptors, \d connected$", ran.out, re.MULTILINE)
    assert re.search(r"^messages: 1 requests, \d ready, 0 results, \d control$", ran.out, re.MULTILINE)
    assert re.search(r"^default +0 +0 +1 +1 +- +0 +0$", ran.out, re.MULTILINE)
    assert re.search(r"^one \(\S+:\d+\) +default +1 +1 +\S+ s +0 +0$", ran.out, re.MULTILINE)
    assert re.search(r"^ +1 +\S+ +default +1 of 3 +\S+ s +one \(", ran.out, re.MULTILINE)
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "\x1b" not in ran.out


def test_the_status_says_where_anybody_may_come_in_and_who_was_refused(start: Callable[..., Running]):
    running = start(control="tcp://127.0.0.1:*", requests="tcp://*:*")
    with ControlSocket(str(running.broker.control_address), CONTROL_PATIENCE) as asker:
        status = asker.ask("status")
    page = Page()
    lines = picture(page, status, {"workers": [], "total": 0}, None, 24)
    assert f"no identities are needed at {running.addresses.requests}: whoever" in "\n".join(lines)
    eve = {"address": "10.0.0.5", "key": "k" * 40, "where": "ready", "reason": "unknown", "count": 1234, "age": 90.0}
    status |= {"open_to": [], "refusals": {"total": 1235, "last": [eve, eve | {"key": "", "count": 1}]}}
    lines = picture(page, status, {"workers": [], "total": 0}, None, 24)
    assert "identities" not in "\n".join(lines)
    assert [line.split() for line in lines[-3:]] == [
        ["REFUSED", "AT", "AGO", "ADDRESS", "KEY", "REASON"],
        ["1,234", "ready", "90", "s", "10.0.0.5", "k" * 40, "unknown"],
        ["1", "ready", "90", "s", "10.0.0.5", "-", "unknown"],
    ]


def test_the_status_is_1_while_tasks_wait_in_a_queue_that_no_worker_asks_from(broker: Running):
    submit(broker, 2, queue="gpu")
    ran = Ran("status")
    assert ran.status == 1
    assert "\ntasks wait in 1 queue that no worker asks from\n" in ran.out
    assert re.search(r"^gpu +2 +0 +0 +0 +\S+ s +0 +0 +no workers$", ran.out, re.MULTILINE)
    assert Ran("status", "--json").status == 1
    with working(broker.addresses.ready, bytes.upper, queues=["gpu"]):
        broker.wait_for("done", 2)
        assert Ran("status").status == 0


def test_the_status_as_json_is_what_the_broker_answers(broker: Running):
    status = Ran("status", "--json").json
    assert status["control"] == broker.broker.control_address
    assert (status["zmqbroker"], status["ok"], status["state"], status["waiting"]) == (1, True, "serving", 0)


def test_labels_and_reasons_cannot_move_the_cursor_nor_turn_the_line_around(broker: Running):
    def fail(_: bytes) -> None:
        raise ValueError(NASTY)

    with working(broker.addresses.ready, fail, label=NASTY), Client(broker.addresses.requests) as client:
        with pytest.raises(TaskFailed):
            client.call(b"task", PATIENCE, tries=1)
        shown = [Ran(*words).out for words in (["status"], ["worker", "list"], ["task", "show", "1"])]
    for out in shown:
        assert "w\\u202e\\x1b[2J\u05d0" in out
        assert all(line.isprintable() for line in out.splitlines())


def test_where_the_output_has_no_such_letters_they_are_escaped(broker: Running):
    with working(broker.addresses.ready, bytes.upper, label="w\u05d0"):
        broker.wait_for("idle", 1)
        assert "w\\u05d0 (" in Ran("worker", "list", PYTHONIOENCODING="ascii").out


def test_a_status_of_very_many_queues_is_one_screen(broker: Running):
    for number in range(100):
        submit(broker, 1, queue=f"queue/of/a/long/name/{number:04}-{'x' * 80}", delay=1000)
    ran = Ran("status")
    lines = ran.out.splitlines()
    assert ran.status == 0
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    assert re.search(r" \d+ of 101$", ran.out, re.MULTILINE)
    assert len(Ran("queue", "list").out.splitlines()) == 102
    assert len(Ran("queue", "list", "--json").json["queues"]) == 101


# On a terminal


class Screen:
    """A command on a terminal of 80 columns and 24 lines."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.output = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._theirs = theirs
        self.modes = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | ENVIRONMENT | {"TERM": "xterm"} | environment,
        )

    def wait_for(self, text: str, times: int = 1) -> None:
        os.set_blocking(self._ours, False)
        wait_until(lambda: self._read().count(text) >= times)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def wait(self) -> int:
        os.set_blocking(self._ours, False)
        wait_until(lambda: self._read() is not None and self.process.poll() is not None)
        self._read()
        return self.process.wait(PATIENCE)

    def is_as_it_was(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.modes

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self) -> str:
        with suppress(BlockingIOError):
            while data := os.read(self._ours, 65536):
                self.output += data.decode()
        return self.output


@pytest.fixture
def screen() -> Iterator[Callable[..., Screen]]:
    with ExitStack() as stack:

        def open_screen(*arguments: object, **environment: str) -> Screen:
            opened = Screen(*arguments, **environment)
            stack.callback(opened.close)
            return opened

        yield open_screen


def pictures(output: str) -> list[list[str]]:
    """Return the lines of each picture of a watch, without colours."""
    _, *drawn = re.sub(r"\x1b\[(?:\d*m|K|J|\?\d+[hl])", "", output).split("\x1b[H")
    return [picture.rstrip("\r\n").split("\r\n") for picture in drawn]


def test_a_watch_draws_each_second_until_q_is_pressed_and_leaves_the_terminal_as_it_was(broker: Running, screen):
    submit(broker, 1, queue="gpu")
    watch = screen("status", "--watch")
    watch.wait_for("\x1b[Hzmqbroker ", 2)
    watch.press(b"x")  # which is nothing
    watch.wait_for("\x1b[Hzmqbroker ", 3)
    watch.press(b"q")
    assert watch.wait() == 1  # tasks wait where no worker asks
    assert watch.is_as_it_was()
    assert watch.output.startswith("\x1b[?1049h\x1b[?25l\x1b[H")
    assert watch.output.endswith("\x1b[?25h\x1b[?1049l")
    drawn = [picture for picture in pictures(watch.output) if len(picture) > 1]  # where the broker was in time
    assert all(len(picture) < 24 and max(map(len, picture)) <= 80 for picture in drawn)
    assert " done (0/s), " in drawn[1][3]
    assert "\x1b[1mQUEUE" in watch.output
    assert "\x1b[31mgpu" in watch.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_that_is_ended_by_a_signal_leaves_the_terminal_as_it_was(broker: Running, screen, number):
    watch = screen("status", "--watch", broker.broker.control_address)
    watch.wait_for("\x1b[Hzmqbroker ")
    watch.process.send_signal(number)
    assert watch.wait() == 128 + number
    assert watch.is_as_it_was()
    assert watch.output.endswith("\x1b[?1049l")


def test_a_watch_goes_on_when_its_broker_is_restarted(place: str, start, screen):
    watch = screen("status", "--watch")
    watch.wait_for("no broker of this user answers on this machine")
    first = start(control="auto")
    watch.wait_for("\x1b[Hzmqbroker ")
    first.finish()
    watch.wait_for("no broker of this user answers on this machine", 2)
    watch.press(b"Q")
    assert watch.wait() == 2


def test_a_watch_of_a_broker_that_does_not_answer_says_so_and_ends_with_q(place: str, running: Running, screen):
    mute = running.context.socket(zmq.ROUTER)
    mute.bind(f"ipc://{place}/mute")
    try:
        watch = screen("status", "--watch")
        watch.wait_for("no broker answers at ipc://")
        watch.press(b"q")
        assert watch.wait() == 2
    finally:
        mute.close(0)


def test_a_terminal_has_colours_unless_it_is_told_not_to(broker: Running, screen):
    shown = screen("status")
    assert shown.wait() == 0
    assert "\x1b[1mQUEUE" in shown.output
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = screen("status", **environment)
        assert plain.wait() == 0
        assert "\x1b" not in plain.output
        assert "QUEUE" in plain.output


def test_a_watch_that_is_no_terminal_prints_one_status_below_the_other(place: str, start: Callable[..., Running]):
    process = subprocess.Popen(
        [*COMMAND, "status", "--watch", "--json"], env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert list(json.loads(process.stdout.readline())) == ["error"]
        start(control="auto")
        said = (json.loads(line).get("state") for line in process.stdout)
        states = [next(filter(None, said)) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        process.stdout.close()
    finally:
        process.kill()
        process.wait()
    assert states == ["serving"] * 2


# task, queue, worker, drain


def test_tasks_are_listed_by_state_and_queue(broker: Running):
    submit(broker, 1, key="a")
    submit(broker, 1, queue="gpu", key="b")
    submit(broker, 1, delay=1000, key="c")
    ran = Ran("task", "list")
    assert (ran.err, ran.status) == ("", 0)
    titles, *lines = ran.out.splitlines()
    assert titles.split() == ["TASK", "STATE", "QUEUE", "AGE", "SINCE", "ATTEMPTS", "WORKER", "KEY"]
    assert [line.split()[:3] for line in lines] == [
        ["1", "waiting", "default"],
        ["2", "waiting", "gpu"],
        ["3", "delayed", "default"],
    ]
    assert [task["key"] for task in Ran("task", "list", "--json", "--state", "delayed").json["tasks"]] == ["c"]
    assert [task["key"] for task in Ran("task", "list", "--json", "--queue", "gpu").json["tasks"]] == ["b"]
    assert Ran("task", "list", "--json", "--slowest").json["tasks"] == []
    most = Ran("task", "list", "--most", 2).out.splitlines()
    assert (len(most), most[-1]) == (4, "there may be more: 3 tasks wait or run in all")


def test_more_tasks_than_a_page_has_are_listed_page_by_page(broker: Running):
    client = broker.client(zmq.DEALER)
    for number in range(250):
        client.send_multipart([b"", b"%d" % number])
    broker.wait_for("accepted", 250)
    listed = Ran("task", "list", "--most", 0, "--json").json
    assert ([task["number"] for task in listed["tasks"]], listed["total"]) == (list(range(1, 251)), 250)
    assert len(Ran("task", "list", "--json").json["tasks"]) == 100


def test_a_list_as_json_is_the_answer_with_all_that_belongs_to_it(broker: Running):
    submit(broker, 3)
    queues, first = Ran("queue", "list", "--json").json, Ran("task", "list", "--json", "--most", 2).json
    assert (queues["ok"], queues["total"], queues["cursor"], len(queues["bounds"])) == (True, 1, None, 15)
    assert ([task["number"] for task in first["tasks"]], first["total"], first["cursor"]) == ([1, 2], 3, 2)


def test_a_task_is_shown_and_cancelled_by_its_number_and_by_its_key(broker: Running):
    client = submit(broker, 1, key="mine")
    submit(broker, 1, key="1")
    shown = Ran("task", "show", "mine")
    assert re.search(r"^state +waiting$", shown.out, re.MULTILINE)
    assert Ran("task", "show", 1, "--json").json["task"]["key"] == "mine"
    assert Ran("task", "show", "--key", 1, "--json").json["task"]["number"] == 2
    cancelled = Ran("task", "cancel", 1)
    assert (cancelled.out, cancelled.status) == ("task 1 is cancelled; it was waiting\n", 0)
    assert b"cancelled by control" in client.recv_multipart()[0]
    again = Ran("task", "cancel", 1)
    assert (again.out, again.status) == ("", 1)
    assert again.err == "zmqbroker task cancel: there is no unsettled task with the number 1\n"


def test_a_queue_is_paused_resumed_and_limited(broker: Running):
    submit(broker, 1, queue="gpu")
    assert Ran("queue", "pause", "gpu").out == "the queue gpu is paused (1 task waits there, 0 running)\n"
    limited = Ran("queue", "limit", "gpu", "--running", 2, "--waiting", 0)
    assert limited.out.startswith("the queue gpu may have 2 running and any number of waiting (")
    assert re.search(r"^gpu .* no workers, paused, limit 2$", Ran("queue", "list").out, re.MULTILINE)
    assert Ran("queue", "resume", "gpu", "--json").json["queue"]["limit"] == 2
    for wrong in (["limit", "gpu"], ["pause", "a b"], ["limit", "gpu", "--running", -1]):
        ran = Ran("queue", *wrong)
        assert (ran.out, ran.err.count("\n"), ran.status) == ("", 1, 2)


def test_workers_are_listed_and_a_plain_one_by_its_address(broker: Running):
    broker.worker().ready()
    with working(broker.addresses.ready, bytes.upper, label="one", queues=["a", "b"]):
        broker.wait_for("idle", 2)
        out = Ran("worker", "list").out
        listed = Ran("worker", "list", "--json").json["workers"]
    assert re.search(r"^127\.0\.0\.1:\d+ +default +0 +- +- +- +- +idle, plain$", out, re.MULTILINE)
    assert re.search(r"^one \(\S+:\d+\) +a,b +0 +- +- +0 +0 +idle$", out, re.MULTILINE)
    assert [worker["queues"] for worker in listed] == [["default"], ["a", "b"]]


def test_a_broker_drains_when_it_is_told_to(broker: Running):
    client = submit(broker, 1)
    worker = broker.worker()
    attempt_id, _ = worker.take()
    ran = Ran("drain")
    assert (ran.out, ran.status) == (f"the broker at {broker.broker.control_address} drains: 1 task to finish\n", 0)
    assert Ran("status", "--json").json["state"] == "draining"
    worker.reply(attempt_id, b"done")
    assert client.recv_multipart()[-1] == b"done"
    broker.thread.join(PATIENCE)
    assert not broker.thread.is_alive()


# serve


def test_a_broker_prints_its_control_address_last_and_answers_there(place: str, start_program):
    broker = start_program("broker.py", *["tcp://127.0.0.1:*"] * 3)
    address = broker.wait_for(r"^control +(\S+)$")[1]
    assert [line.split()[0] for line in broker.lines] == ["requests", "ready", "results", "limits", "control"]
    assert address == f"ipc://{place}/{broker.process.pid}.control"
    status = Ran("status", "--json").json
    assert (status["control"], status["pid"]) == (address, broker.process.pid)
    assert Ran("drain").status == 0
    assert broker.wait() == 0
    assert os.listdir(place) == []


def test_a_broker_may_have_no_control_socket_or_one_elsewhere(place: str, start_program, tmp_path):
    without = start_program("broker.py", "--control", "none", *["tcp://127.0.0.1:*"] * 3)
    elsewhere = start_program("broker.py", "--control", "tcp://127.0.0.1:*", *["tcp://127.0.0.1:*"] * 3)
    address = elsewhere.wait_for(r"^control +(\S+)$")[1]
    without.wait_for("^limits ")
    assert os.listdir(place) == []
    assert Ran("status", "--json", address).json["pid"] == elsewhere.process.pid
    assert Ran("status", "--json", address.replace("127.0.0.1", "localhost")).json["pid"] == elsewhere.process.pid
    assert without.end() == 0
    assert "control" not in without.output


def test_a_broker_without_a_place_for_its_control_socket_says_so_and_serves(start_program, monkeypatch):
    monkeypatch.setenv(ONLY_PLACE, "/proc/zmqbroker")
    broker = start_program("broker.py", *["tcp://127.0.0.1:*"] * 3)
    broker.wait_for("^limits ")
    broker.wait_for(r" there is no control socket: .*; give --control an address, or none$")
    assert broker.end() == 0
    assert not re.search("^control ", broker.output, re.MULTILINE)


# Tables


@pytest.fixture
def page() -> Page:
    return Page()


def test_a_table_is_as_wide_as_its_texts_where_there_is_room(page: Page):
    columns = (Column("A"), Column("B", is_number=True))
    assert page.table(columns, [Row(["x", "1"]), Row(["long", "1,000"])], 80) == [
        "A         B",
        "x         1",
        "long  1,000",
    ]


def test_a_table_without_room_has_narrow_gaps_and_then_cuts_its_widest_texts(page: Page):
    columns = (Column("A", cut_by=cut), Column("B", cut_by=cut), Column("C", is_number=True))
    rows = [Row(["a" * 20, "b" * 30, "12345"])]
    assert page.table(columns, rows, 57)[1] == f"{'a' * 20} {'b' * 30} 12345"
    assert page.table(columns, rows, 37)[1] == f"{'a' * 14}~ {'b' * 14}~ 12345"
    assert page.table(columns, rows, 11)[1] == "a~ b~ 12345"


def test_wide_letters_and_marks_take_the_columns_that_a_terminal_gives_them():
    assert [width(text) for text in ("abc", "\u4e2d\u6587", "e\u0301")] == [3, 4, 1]
    assert cut("\u4e2d\u6587\u4e2d", 5) == "\u4e2d\u6587~"
    assert cut("\u4e2d\u6587\u4e2d", 4) == "\u4e2d~"


def test_names_that_are_too_long_lose_their_middle():
    assert squeeze("queue-of-number-1234", 20) == "queue-of-number-1234"
    assert [squeeze("queue-of-number-1234", room) for room in (13, 12, 7, 1)] == [
        "queue-~r-1234",
        "queue-~-1234",
        "queue-~",
        "~",
    ]
    assert squeeze("\u4e2d\u6587" * 5, 10) == "\u4e2d\u6587~\u4e2d\u6587"
    assert width(squeeze("\u4e2d" * 50, 11)) <= 11


def test_numbers_spans_and_sizes_are_short():
    assert [span(seconds) for seconds in (None, 0.04, 9.94, 9.96, 119, 121, 7199, 7200, 172_800)] == [
        "-",
        "0.0 s",
        "9.9 s",
        "10 s",
        "119 s",
        "2.0 min",
        "120 min",
        "2.0 h",
        "2.0 d",
    ]
    assert [short(number) for number in (None, 99_999, 123_456, 1_234_567)] == ["-", "99,999", "123k", "1.2M"]
    assert [size(count) for count in (None, 999, 45_600_000)] == ["-", "999 bytes", "46 MB"]


def test_lines_are_shared_and_what_one_leaves_goes_to_the_others():
    assert shares(10, [2, 100, 3]) == [2, 5, 3]
    assert shares(10, [1, 1]) == [1, 1]
    assert shares(0, [1, 1]) == [0, 0]
    assert shares(-5, [1]) == [0]


def test_a_watch_says_all_of_why_there_is_nothing_to_be_seen():
    why = f"the broker does not know this identity ({'k' * 40}): {'do this and that, ' * 10}then look again"

    def connect(address: str) -> ControlSocket:
        raise NoAnswerError(why)

    lines = View("ipc:///there", False, connect).look_again()
    assert " ".join(lines) == why
    assert max(map(len, lines)) <= 80
