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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from examples_support import PROTOCOL, actions_of, anchors, section
from helpers import PATIENCE

import zmqbroker
from zmqbroker.broker.dispatch import Counters

LANGUAGES = ("Python", "C")
HEADER_PROBE = "#include <zmq.h>\nint main(void) { return zmq_errno(); }\n"
MESSAGES = ["REQUEST", "REPLY and FAILURE", "READY", "TASK", "RESULT", "Verbs"]
HEADER_MESSAGES = ["REQUEST with a header", "REPLY with a header"]

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
    failed = zmqbroker.wire.reply_header("key", zmqbroker.wire.FAILED, 1, "reason", 1, "id", "READY")
    assert named_in("REPLY with a header") == set(json.loads(failed.removeprefix(zmqbroker.wire.HEADER)))


STATUSES = ("DONE", "FAILED", "CANCELLED", "INVALID", "UNAVAILABLE", "PROGRESS")


def test_the_statuses_of_the_protocol_are_those_of_the_code():
    (meaning,) = (row[1] for row in section(PROTOCOL, "REPLY with a header").rows if row[0] == "`status`")
    statuses = {getattr(zmqbroker.wire, name) for name in STATUSES}
    assert set(re.findall(r"`(\w+)`: ", meaning)) == statuses


@pytest.mark.parametrize("heading", MESSAGES + HEADER_MESSAGES)
def test_each_message_of_the_protocol_has_its_frames(heading):
    assert ["frame", "content"] in section(PROTOCOL, heading).rows


@pytest.mark.parametrize("heading", [*MESSAGES, "REQUEST with a header"])
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
    named = {name for part in MESSAGES + HEADER_MESSAGES for row in section(PROTOCOL, part).rows for name in row[-1:]}
    assert {field.name for field in dataclasses.fields(Counters)} <= set(re.findall(r"`(\w+)`", " ".join(named)))


def test_the_contents_of_the_protocol_name_each_part_and_message():
    listed = {anchor for _, anchor in re.findall(r"\]\((#)([^)]*)\)", section(PROTOCOL, "The protocol").prose)}
    programs = {f"a-{role}-in-{language.lower()}" for role in ("worker", "client") for language in LANGUAGES}
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
    directory = tmp_path_factory.mktemp("programs")

    def make(role: str, language: str) -> list[str]:
        part = section(PROTOCOL, f"A {role} in {language}")
        if language == "Python":
            (directory / f"{role}.py").write_text(part.block("python"))
            return [sys.executable, str(directory / f"{role}.py")]
        if shutil.which("gcc") is None:
            pytest.skip("there is no gcc")
        if compile_c(HEADER_PROBE, ["gcc", "-o", "probe", "probe.c", "-lzmq"], directory):
            pytest.skip("there is no zmq.h, or no libzmq to link with")
        command = re.search(r"`(gcc [^`]*)`", part.prose)
        assert command is not None
        assert compile_c(part.block("c"), shlex.split(command[1]), directory) == ""
        return [str(directory / role)]

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
