"""What PROTOCOL.md lists is compared with the code, and its programs are run."""

import dataclasses
import importlib
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from examples_support import PROTOCOL, actions_of, anchors, section
from helpers import PATIENCE
from library_support import Proxy
from stored_support import StoredCore

import zmqbroker
from zmqbroker.broker.counters import Counters
from zmqbroker.wire import announced

pytestmark = pytest.mark.once


LANGUAGES = ("Python", "C")
HEADER_PROBE = "#include <zmq.h>\nint main(void) { return zmq_errno(); }\n"
MESSAGES = ["REQUEST", "REPLY and FAILURE", "READY", "TASK", "RESULT", "Verbs"]
HEADER_MESSAGES = ["REQUEST with a header", "REPLY with a header"]
TASK_ANNOUNCED = "TASK for who has announced itself"
COUNTED_ANNOUNCED = ["ANNOUNCE", "Words of a worker", TASK_ANNOUNCED, "Words of the broker"]
ANNOUNCED_MESSAGES = [*COUNTED_ANNOUNCED, "WELCOME and REFUSAL"]
ALL_MESSAGES = MESSAGES + HEADER_MESSAGES + ANNOUNCED_MESSAGES

# What it lists


def test_the_limits_of_the_protocol_are_those_of_the_code():
    names = [found.name for found in pkgutil.walk_packages(zmqbroker.__path__, "zmqbroker.")]
    rooms = tuple(f"zmqbroker.{room}" for room in ("broker", "transport", "wire"))
    modules = [importlib.import_module(name) for name in names if name.startswith(rooms)]
    constants = {name: value for module in modules for name, value in vars(module).items() if name.isupper()}
    options = {f"`{name}`": action.default for action in actions_of("serve") for name in action.option_strings}
    _, _, *rows = section(PROTOCOL, "Limits").rows
    for what, value, where in rows:
        if where.startswith("`"):
            number = re.match(r"[\d,.]+", value)
            stated = float(number[0].replace(",", "")) if number else 0
            assert stated == (options | {f"`{name}`": value for name, value in constants.items()})[where], what


def named_in(heading: str) -> set[str]:
    """Return the names that begin a row of a section of the protocol: fields, say, or verbs."""
    return {row[0].strip("`") for row in section(PROTOCOL, heading).rows if re.fullmatch(r"`\w+`", row[0])}


def test_the_verbs_of_the_protocol_are_those_of_the_code():
    assert {name.encode() for name in named_in("Verbs")} == {
        zmqbroker.wire.FAIL,
        zmqbroker.wire.REJECT,
        zmqbroker.wire.RELEASE,
        zmqbroker.wire.TOUCH,
    }


def test_the_fields_of_the_protocol_are_those_of_the_code():
    assert named_in("REQUEST with a header") == set(zmqbroker.wire.FIELDS)
    failed = zmqbroker.wire.reply_header("key", zmqbroker.wire.FAILED, 1, "reason", 1, "id", "READY", "worker")
    assert named_in("REPLY with a header") == set(json.loads(failed.removeprefix(zmqbroker.wire.HEADER)))


def test_the_words_of_the_protocol_are_those_of_the_code():
    words = {*announced.OUTCOMES, *announced.NAMED, *announced.COUNTED}
    assert {name.encode() for name in named_in("Words of a worker")} == words
    told = {announced.DROP, announced.CANCEL, announced.WITHDRAWN}
    assert {name.encode() for name in named_in("Words of the broker")} == told


def fields_of(header: Any) -> set[str]:
    return set(json.loads(bytes(header).removeprefix(zmqbroker.wire.HEADER)))


def test_the_fields_that_workers_and_the_broker_tell_are_those_of_the_code():
    announce = announced.announce_message(zmqbroker.wire.Announce(), "1", [])[0]
    names = {name for row in section(PROTOCOL, "ANNOUNCE").rows for name in re.findall(r"`(\w+)`", row[0])}
    assert fields_of(announce) <= names
    assert named_in(TASK_ANNOUNCED) - {"done"} == fields_of(announced.task_header(1, "key", "queue", 1, 3, 1.0))
    (welcome,) = (row[1] for row in section(PROTOCOL, "WELCOME and REFUSAL").rows if '"broker"' in row[1])
    assert fields_of(announced.welcome_message(b"worker", "...")[1]) == set(re.findall(r'"(\w+)":', welcome))


def test_what_the_protocol_says_is_told_by_the_control_socket_is_what_the_code_tells():
    core = StoredCore()
    core.leave("stored")
    core.fail_next()
    core.tasks("a")
    core.turn()
    status = core.inquire("status")
    (task,), (worker,) = (core.inquire(ask)[ask] for ask in ("tasks", "workers"))
    by_the_desk = {"version", "pid", "addresses", "uptime", "state", "memory", "descriptors"}
    by_the_desk |= {"busy", "longest_turn", "sockets", "identities", "open_to", "refusals"}
    assert named_in("What is told of a broker") == set(status) | by_the_desk
    assert named_in("What is told of a queue") == set(status["queues"][0])
    assert named_in("What is told of a worker") == set(worker)
    assert named_in("What is told of a task") == set(task)
    assert named_in("What is told of a failure") == set(status["failures"][0])
    assert named_in("What is told of a store") == set(status["store"])
    assert named_in("What is told of a stored task") == set(core.inquire("task", number=1)["stored"])
    assert named_in("Questions") | named_in("Changes") == {*core.control._answers, "ask"}  # the title of the column


STATUSES = ("DONE", "FAILED", "CANCELLED", "EXPIRED", "INVALID", "UNAVAILABLE", "PROGRESS", "ACCEPTED", "UNKNOWN")


def test_the_statuses_of_the_protocol_are_those_of_the_code():
    (meaning,) = (row[1] for row in section(PROTOCOL, "REPLY with a header").rows if row[0] == "`status`")
    statuses = {*(getattr(zmqbroker.wire, name) for name in STATUSES), *zmqbroker.wire.UNSETTLED}
    assert set(re.findall(r"`(\w+)`: ", meaning)) == statuses


@pytest.mark.parametrize("heading", ALL_MESSAGES)
def test_each_message_of_the_protocol_has_its_frames(heading):
    assert ["frame", "content"] in section(PROTOCOL, heading).rows


@pytest.mark.parametrize("heading", [*MESSAGES, "REQUEST with a header", *COUNTED_ANNOUNCED])
def test_what_the_protocol_says_is_counted_has_a_counter(heading):
    counters = {field.name for field in dataclasses.fields(Counters)}
    rows = section(PROTOCOL, heading).rows
    assert any(row[-1] == "counted as" for row in rows)
    counted = False
    for row in rows:
        counted = row[-1] == "counted as" or (counted and row[0] not in ("frame", "field"))
        if counted:
            assert set(re.findall(r"`(\w+)`", row[-1])) <= counters, row


def test_every_counter_of_the_broker_is_in_the_protocol():
    named = {name for part in ALL_MESSAGES for row in section(PROTOCOL, part).rows for name in row[-1:]}
    assert {field.name for field in dataclasses.fields(Counters)} <= set(re.findall(r"`(\w+)`", " ".join(named)))


def test_the_contents_of_the_protocol_name_each_part_and_message():
    listed = {anchor for _, anchor in re.findall(r"\]\((#)([^)]*)\)", section(PROTOCOL, "The protocol").prose)}
    roles = ("worker", "serial-worker", "client")
    programs = {f"a-{role}-in-{language.lower()}" for role in roles for language in LANGUAGES}
    assert listed == anchors(PROTOCOL) - programs - {"", "the-protocol"}


# Its programs


def compile_c(text: str, command: list[str], directory: Path) -> str:
    """Compile a C program as its document says; return what the compiler had to say."""
    (source,) = (word for word in command if word.endswith(".c"))
    (directory / source).write_text(text)
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE).stderr


@pytest.fixture(scope="module")
def make_program(tmp_path_factory) -> Callable[[str, str], list[str]]:
    """Return a function that turns a section of the protocol into the command that runs its program."""

    def make(role: str, language: str) -> list[str]:
        part = section(PROTOCOL, f"A {role} in {language}")
        directory = tmp_path_factory.mktemp("program")
        program = directory / role.split()[-1]  # as the document calls it
        if language == "Python":
            program.write_text(part.block("python"))
            return [sys.executable, str(program)]
        if shutil.which("gcc") is None:
            pytest.skip("there is no gcc")
        if compile_c(HEADER_PROBE, ["gcc", "-o", "probe", "probe.c", "-lzmq"], directory):
            pytest.skip("there is no zmq.h, or no libzmq to link with")
        command = re.search(r"`(gcc [^`]*)`", part.prose)
        assert command is not None
        assert compile_c(part.block("c"), shlex.split(command[1]), directory) == ""
        return [str(program)]

    return make


def run_client(command: list[str], *arguments: str) -> str:
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("client_language", LANGUAGES)
@pytest.mark.parametrize("worker_language", LANGUAGES)
def test_the_client_and_the_worker_of_the_protocol_work_together(
    worker_language: str, client_language: str, make_program: Callable[..., list[str]], running: Any
):
    worker_command = make_program("worker", worker_language)
    client_command = make_program("client", client_language)
    requests, ready, results = running.addresses
    with subprocess.Popen([*worker_command, ready, results]) as worker:
        try:
            assert run_client(client_command, requests, "one task", "another") == "ONE TASK\nANOTHER\n"
        finally:
            worker.kill()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_client_of_the_protocol_prints_a_failure(
    language: str, make_program: Callable[..., list[str]], start: Callable[..., Any]
):
    command = make_program("client", language)
    broker = start(max_size=4)
    assert run_client(command, broker.addresses.requests, "too large") == "failure\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_worker_of_the_protocol_handles_bodies_of_several_frames(
    language: str, make_program: Callable[..., list[str]], running: Any
):
    command = make_program("worker", language)
    client = running.client()
    client.send_multipart([b"one", b"", b"two"])
    with subprocess.Popen([*command, running.addresses.ready, running.addresses.results]) as worker:
        try:
            assert client.recv_multipart() == [b"ONE", b"", b"TWO"]
        finally:
            worker.kill()


# The worker that announces itself


@contextmanager
def serial_worker(command: list[str], ready: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([*command, ready], stderr=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def test_the_serial_worker_in_python_takes_40_lines():
    lines = section(PROTOCOL, "A serial worker in Python").block("python").splitlines()
    assert sum(line.strip() != "" for line in lines) <= 40
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_serial_worker_of_the_protocol_survives_a_restart_of_the_broker(
    language: str, make_program: Callable[..., list[str]], start: Callable[..., Any]
):
    command = make_program("serial worker", language)
    broker = start()
    with serial_worker(command, broker.addresses.ready):
        for _ in range(3):
            client = broker.client(zmq.DEALER)
            for number in range(30):  # more than it asks for
                client.send_multipart([b"", b"task", b"%d" % number])
            replies = [client.recv_multipart() for _ in range(30)]
            assert sorted(replies) == sorted([b"", b"TASK", b"%d" % number] for number in range(30))
            broker.finish()
            broker = start(ready=broker.addresses.ready)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_serial_worker_of_the_protocol_loses_nothing_when_its_connection_is_cut(
    language: str, make_program: Callable[..., list[str]], start: Callable[..., Any]
):
    command = make_program("serial worker", language)
    broker = start(tries=0)
    client = broker.client(zmq.DEALER)
    with Proxy(broker.addresses.ready) as proxy, serial_worker(command, proxy.address):
        for cuts in range(5):
            proxy.wait_for(cuts + 1)
            for number in range(100):
                client.send_multipart([b"%d" % number, b"", b"task"])
            replies = [client.recv_multipart() for _ in range(50)]
            proxy.cut()
            replies += [client.recv_multipart() for _ in range(50)]
            assert sorted(replies) == sorted([b"%d" % number, b"", b"TASK"] for number in range(100))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_serial_worker_of_the_protocol_bears_what_it_does_not_know(
    language: str, make_program: Callable[..., list[str]], running: Any
):
    command = make_program("serial worker", language)
    unknown = [
        [b"ZB1 news 5", b""],
        [b"news"],
        [b""],
        [b"", b"an id alone"],
        [b'ZB1 {"role": "herald"}', b"", b"", b""],
        [b"ZB1 withdrawn 1", b""],
        [b"ZB1 drop nobody knows it", b""],
        [b"ZB1 cancel nobody knows it", b""],
        [b"x" * 100_000] * 9,
    ]
    broker = running.context.socket(zmq.ROUTER)
    with broker, serial_worker(command, f"tcp://127.0.0.1:{broker.bind_to_random_port('tcp://127.0.0.1')}") as worker:
        broker.rcvtimeo, broker.linger = int(1000 * PATIENCE), 0
        name, announce, empty = broker.recv_multipart()
        assert (json.loads(announce[4:])["serial"], empty) == (True, b"")
        broker.send_multipart([name, b'ZB1 {"role": "broker", "protocol": 1, "colour": "red"}', b""])
        assert broker.recv_multipart() == [name, b"", b"ZB1 ready 8"]
        for number, message in enumerate(unknown):
            broker.send_multipart([name, *message])
            broker.send_multipart([name, b"", b"%d \0 id" % number, b"task"])
        for number in range(len(unknown)):
            assert broker.recv_multipart() == [name, b"", b"ZB1 done 1 %d \0 id" % number, b"TASK"]
        broker.send_multipart([name, b'ZB1 {"status": "invalid", "attempts": 0, "reason": "not here"}', b"", b""])
        assert worker.wait(PATIENCE) == 1
        assert worker.stderr is not None
        assert "not here" in worker.stderr.read()


def test_the_serial_worker_of_the_protocol_gives_back_what_it_is_told_to_drop(
    make_program: Callable[..., list[str]], running: Any
):
    command = make_program("serial worker", "Python")
    broker = running.context.socket(zmq.ROUTER)
    with broker, serial_worker(command, f"tcp://127.0.0.1:{broker.bind_to_random_port('tcp://127.0.0.1')}"):
        broker.rcvtimeo, broker.linger = int(1000 * PATIENCE), 0
        name, *_ = broker.recv_multipart()
        broker.send_multipart([name, b'ZB1 {"role": "broker"}', b""])
        broker.recv_multipart()
        for word in (b"drop", b"cancel"):
            outcome = b""
            while outcome != b"ZB1 release 1 an id":  # else it had begun before it heard that
                broker.send_multipart([name, b"", b"an id", b"task"])
                broker.send_multipart([name, b"ZB1 %s an id" % word, b""])
                outcome = broker.recv_multipart()[2]
                assert outcome in (b"ZB1 release 1 an id", b"ZB1 done 1 an id")
