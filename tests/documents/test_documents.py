"""What the documents show is run, what they list is compared with the code, and their links are followed."""

import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from examples_support import (
    DOCUMENTS,
    ENTRIES,
    GUIDE,
    OPERATIONS,
    PROTOCOL,
    README,
    REFERENCE,
    SECURITY,
    actions_of,
    anchors,
    commands,
    links,
    on_other_addresses,
    section,
    sections,
)
from helpers import PATIENCE, TOP, Program, bound_addresses

import zmqbroker
from zmqbroker import Broker, Client, TaskFailed

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.once


LARGEST_PICTURE = 150_000  # bytes
SHORT_TIMEOUT = "0.2"  # seconds, instead of the README's: so that the tasks dropped do not take half a minute
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE}

Run = Callable[..., Program]


# The commands of the README


THREE_PROGRAMS = [command for command in commands(README, "Try it") if command[0].startswith("./")]


def test_the_commands_of_the_readme_hand_out_each_task_until_it_is_answered(start_program):
    (broker_script, *broker_options), (worker_script, *worker_options), (client_script, *client_options) = (
        THREE_PROGRAMS
    )
    ports = re.findall(r":(\d+)", " ".join(broker_options))
    any_port = on_other_addresses(broker_options, dict.fromkeys(ports, "tcp://127.0.0.1:*"))
    any_port[any_port.index("-T") + 1] = SHORT_TIMEOUT
    broker = start_program(broker_script, *any_port)
    addresses = dict(zip(ports, bound_addresses(broker), strict=True))
    workers = [start_program(worker_script, *on_other_addresses(worker_options, addresses)) for _ in range(2)]
    client = start_program(client_script, *on_other_addresses(client_options, addresses))

    assert client.wait() == 0
    replies = dict(re.findall(r"^Client 0: (\d+) -> (.*)$", client.output, re.MULTILINE))
    assert list(map(int, replies)) == list(range(100))
    assert {reply for number, reply in replies.items() if reply != f"-{number}"} <= {"failure"}
    assert [worker.end() for worker in workers] == [0, 0]
    attempts = re.findall(r"^Task (\d+): (answer|dropp)ing it$", "\n".join(w.output for w in workers), re.MULTILINE)
    answered = {number for number, deed in attempts if deed == "answer"}
    replied = {number for number, reply in replies.items() if reply != "failure"}
    assert answered >= replied  # those that were dropped have come back
    assert broker.end() == 0
    done, failed, retried = map(
        int, broker.wait_for(r"^(\d+) tasks done, (\d+) failed, 0 expired, (\d+) attempts retried").groups()
    )
    assert (done, failed) == (len(replied), len(replies) - len(replied))
    assert retried >= len(attempts) - len(replies)


def test_the_readme_shows_what_the_programs_print(start_program):
    shown, totals = section(README, "Try it").blocks["text"]
    broker_script, *options = THREE_PROGRAMS[0]
    limits = re.search(r"limits .*(?=, \.\.\.)", shown)
    broker = start_program(broker_script, *options[:-3], *["tcp://127.0.0.1:*"] * 3)
    assert limits is not None
    broker.wait_for(re.escape(limits[0]))
    broker.end()
    assert re.sub(r"\d+", "0", totals).strip() in broker.output
    assert section(OPERATIONS, "What it says").block("text") == totals


@pytest.mark.parametrize("script", [command[0] for command in THREE_PROGRAMS])
def test_the_programs_of_the_readme_can_be_executed(script):
    assert os.access(TOP / script, os.X_OK)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_to_be_made_is_in_the_makefile(document):
    targets = re.findall(r"(?:^|`)make ([a-z-]+)", (TOP / document).read_text(), re.MULTILINE)
    known = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(known)


# Work in five minutes, and the guide

OWN = "Your own work in five minutes"
CALLS = "Functions on other machines"
LEAVE = "Leave a task, fetch it later"
JSON = "Arguments as JSON"


BROKER = commands(README, OWN)[0][1:]
PORTS = re.findall(r":(\d+)", " ".join(BROKER))


@pytest.fixture
def broker(start_program, zmqbroker_script) -> Program:
    """Start the broker as the README does."""
    return start_program(zmqbroker_script, *on_other_addresses(BROKER, dict.fromkeys(PORTS, "tcp://127.0.0.1:*")))


@pytest.fixture
def broker_addresses(broker: Program) -> dict[str, str]:
    """Return the broker's addresses by the README's ports."""
    return dict(zip(PORTS, bound_addresses(broker), strict=True))


@pytest.fixture
def counting(start_program, broker_addresses, zmqbroker_script) -> dict[str, str]:
    """Have the README's function at work, and return the broker's addresses."""
    Path("words.py").write_text(section(README, "A function").block("python"))
    (_, *work), _ = commands(README, "A function")
    worker = start_program(zmqbroker_script, *on_other_addresses(work, broker_addresses))
    worker.wait_for(r" 2 processes for words:count$")
    return broker_addresses


def snippets(languages: set[str]) -> list[tuple[str, str]]:
    """Return the document and the heading of each section that has code blocks in just these languages."""
    return [
        (document, part.heading)
        for document in DOCUMENTS
        for part in sections(document)
        if document != PROTOCOL and set(part.blocks) == languages
    ]


def test_all_python_that_is_shown_is_run():
    by_themselves = {  # tests of their own are below
        (README, "A function"),
        (GUIDE, "A worker in Python"),
        (GUIDE, CALLS),
        (GUIDE, LEAVE),
        (GUIDE, JSON),
        (OPERATIONS, "One task in three logs"),
        (SECURITY, "In Python"),
    }
    shown = {
        (document, part.heading)
        for document in DOCUMENTS
        for part in sections(document)
        if document != PROTOCOL and "python" in part.blocks
    }
    assert shown == by_themselves | set(snippets({"python", "text"}))


@pytest.mark.parametrize(("document", "heading"), snippets({"python", "text"}))
def test_a_program_that_is_shown_prints_what_is_shown(counting, document, heading):
    part = section(document, heading)
    (snippet,) = on_other_addresses([part.block("python")], counting)
    ran = subprocess.run([sys.executable, "-c", snippet], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (part.block("text"), "", 0)


def test_the_functions_of_the_guide_are_called(
    start_program: Run, broker_addresses: dict[str, str], zmqbroker_script: str
):
    part = section(GUIDE, CALLS)
    (_, *work), snippet = commands(GUIDE, CALLS)[0], part.block("python")
    start_program(zmqbroker_script, *on_other_addresses(work, broker_addresses))
    ran = subprocess.run([sys.executable, "-c", *on_other_addresses([snippet], broker_addresses)], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (part.block("text"), "", 0)


@pytest.mark.parametrize("heading", ["From the shell", "Many short lines"])
def test_the_shell_of_the_guide_prints_what_is_shown(counting, heading):
    part = section(GUIDE, heading)
    (lines,) = on_other_addresses([part.block("sh")], counting)
    ran = subprocess.run(["sh", "-c", lines], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (part.block("text"), "", 0)


def test_the_laptop_of_the_guide_may_be_closed_and_the_broker_killed(start_program: Run, zmqbroker_script: str):
    part = section(GUIDE, LEAVE)
    (_, *serve), *_ = commands(GUIDE, LEAVE)
    broker = start_program(zmqbroker_script, *on_other_addresses(serve, dict.fromkeys(PORTS, "tcp://127.0.0.1:*")))
    addresses = dict(zip(PORTS, bound_addresses(broker), strict=True))
    leave, fetch = on_other_addresses(part.blocks["python"], addresses)
    left = subprocess.run([sys.executable, "-c", leave], **CAPTURED)
    broker.end(signal.SIGKILL)

    broker = start_program(zmqbroker_script, *on_other_addresses(serve, addresses))
    bound_addresses(broker)
    Path("words.py").write_text(section(README, "A function").block("python"))
    (_, *work), _ = commands(README, "A function")
    start_program(zmqbroker_script, *on_other_addresses(work, addresses))
    fetched = subprocess.run([sys.executable, "-c", fetch], **CAPTURED)
    (lines,) = on_other_addresses(part.blocks["sh"][1:], addresses)
    shell = subprocess.run(["sh", "-c", lines], **CAPTURED)
    ran = [left, fetched, shell]
    assert [(program.stdout, program.stderr) for program in ran] == [(text, "") for text in part.blocks["text"]]


def test_five_commands_make_an_encrypted_broker_with_a_worker_and_a_client(start_program: Run, zmqbroker_script: str):
    part = section(SECURITY, "Five commands")
    first, work, submit = part.blocks["sh"]
    *make, serve = first.splitlines()
    for line in make:
        subprocess.run(["sh", "-c", line], check=True, **CAPTURED)
    (_, *serve_options), (_, *work_options) = map(shlex.split, (serve, work))
    broker = start_program(
        zmqbroker_script, *on_other_addresses(serve_options, dict.fromkeys(PORTS, "tcp://127.0.0.1:*"))
    )
    addresses = dict(zip(PORTS, bound_addresses(broker), strict=True))
    start_program(zmqbroker_script, *on_other_addresses(work_options, addresses))
    ran = subprocess.run(["sh", "-c", *on_other_addresses([submit], addresses)], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (part.block("text"), "", 0)
    snippet = on_other_addresses([section(SECURITY, "In Python").block("python")], addresses)
    subprocess.run([sys.executable, "-c", *snippet], check=True, **CAPTURED)
    (without, *_) = re.subn(r"--\S*identity \S+ ", "", submit)
    ran = subprocess.run(
        ["sh", "-c", *on_other_addresses([f"{without.rstrip()} --connect-timeout 2"], addresses)], **CAPTURED
    )
    assert (ran.stdout, ran.returncode) == ("", 2)
    assert "wants identities: give --identity and --broker-identity" in ran.stderr


def test_the_function_of_the_guide_that_knows_no_bodies_is_called(
    start_program: Run, broker_addresses: dict[str, str], zmqbroker_script: str
):
    part = section(GUIDE, JSON)
    function, snippet = part.blocks["python"]
    Path("boxes.py").write_text(function)
    work, submit = on_other_addresses(part.block("sh").splitlines(), broker_addresses)
    start_program(zmqbroker_script, *shlex.split(work)[1:])
    shell = subprocess.run(["sh", "-c", submit], **CAPTURED)
    ran = subprocess.run([sys.executable, "-c", *on_other_addresses([snippet], broker_addresses)], **CAPTURED)
    assert [(program.stdout, program.stderr) for program in (shell, ran)] == [
        (text, "") for text in part.blocks["text"]
    ]


def test_the_function_of_the_readme_counts_the_words_of_each_line(counting, zmqbroker_script):
    _, (_, *submit) = commands(README, "A function")
    ran = subprocess.run([sys.executable, zmqbroker_script, *on_other_addresses(submit, counting)], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (section(README, "A function").block("text"), "", 0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("factor") is None, reason="there is no factor command")
def test_the_command_of_the_guide_factors_a_thousand_numbers(start_program, broker_addresses, zmqbroker_script):
    (_, *work), (_, last, _, _, *submit) = commands(GUIDE, "A command as a worker")
    start_program(zmqbroker_script, *on_other_addresses(work, broker_addresses)).wait_for(" 1 process for factor$")
    lines = "".join(f"{number}\n" for number in range(1, int(last) + 1))
    command = [sys.executable, zmqbroker_script, *on_other_addresses(submit, broker_addresses)]
    ran = subprocess.run(command, input=lines, **CAPTURED)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-3:] == ["998: 2 499", "999: 3 3 3 37", "1000: 2 2 2 5 5 5"]


def test_the_worker_of_the_guide_works(broker_addresses):
    (snippet,) = on_other_addresses([section(GUIDE, "A worker in Python").block("python")], broker_addresses)
    worker = subprocess.Popen([sys.executable, "-c", snippet])
    try:
        with Client(broker_addresses["4161"]) as client:
            assert client.call(b"two words", wait=PATIENCE) == b"2"
            with pytest.raises(TaskFailed, match="there is nothing to count"):
                client.call(b"", wait=PATIENCE)
    finally:
        worker.kill()
        worker.wait()


def told(lines: list[str]) -> tuple[list[str], set[str], set[str]]:
    """Return lines of a log without what differs each time, and the keys and the workers in them; no tracebacks."""
    text = "\n".join(line for line in lines if re.match(r"\d{4}-", line))
    keys, workers = set(re.findall(r"\b[0-9a-f]{32}-0\b", text)), set(re.findall(r"(\S+ \(\S+:\d+\))", text))
    for pattern, word in ((r"^[\d-]+ [\d:,]+", "TIME"), (r"\b[0-9a-f]{32}-0", "KEY"), (r"\(\S+:\d+\)", "(HOST:PID)")):
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return re.sub(r"and [\d.e-]+ s", "and SECONDS s", text).splitlines(), keys, workers


def test_the_three_logs_of_operations_name_a_task_and_its_worker_alike(
    start_program: Run, broker: Program, broker_addresses: dict[str, str], zmqbroker_script: str
):
    part = section(OPERATIONS, "One task in three logs")
    function, program = on_other_addresses(part.blocks["python"], broker_addresses)
    Path("pictures.py").write_text(function)
    (command,) = re.findall(r"`zmqbroker (work [^`]+)`", part.prose.replace("\n", " "))
    work = start_program(zmqbroker_script, *on_other_addresses(command.split(), broker_addresses))
    work.wait_for("reached zmqbroker")
    client = subprocess.run([sys.executable, "-c", program], **CAPTURED)
    work.wait_for("the handler failed")
    broker.wait_for("failed in")
    logs = [told(lines) for lines in (broker.lines, work.lines, client.stderr.splitlines())]
    shown = [told(on_other_addresses(block.splitlines(), broker_addresses))[0] for block in part.blocks["log"]]
    assert [lines for lines, _, _ in logs] == shown
    assert len(set().union(*(keys for _, keys, _ in logs))) == 1
    assert len(set().union(*(workers for _, _, workers in logs))) == 1


# What the documents list


@pytest.mark.parametrize("command", ENTRIES)
def test_the_option_table_has_what_the_parser_takes_and_its_defaults(command):
    expected = {}
    for action in actions_of(command):
        names = ", ".join(f"`{name}`" for name in action.option_strings or [action.metavar])
        if action.option_strings and action.metavar:
            metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
            names = f"{names[:-1]} {metavar}`"
        defaults = action.default if isinstance(action.default, tuple) else (action.default,)
        has_default = action.nargs != 0 and all(isinstance(default, int | float) for default in defaults)
        shown = (f"{default:g}" if isinstance(default, float) else f"{default}" for default in defaults)
        expected[names] = " ".join(shown) if has_default else ""
    _, _, *rows = section(REFERENCE, f"zmqbroker {command}").rows
    assert {names: default for names, default, _ in rows} == expected


def test_the_reference_has_each_class_with_its_methods_and_their_arguments():
    shown = [
        signature
        for part in sections(REFERENCE)
        for block in part.blocks.get("", [])
        for signature in re.sub(r"\n +", " ", block).splitlines()
    ]
    assert sorted(shown) == sorted(public_signatures())
    text = (TOP / REFERENCE).read_text()
    assert all(f"{name}(" in text for name in zmqbroker.__all__)


def public_signatures() -> Iterator[str]:
    """Yield how each public class is made and its methods are called, types left out."""
    for name in zmqbroker.__all__:
        public = getattr(zmqbroker, name)
        if "__init__" in vars(public) or "__new__" in vars(public):  # else it is made as any exception is
            yield name + without_types(inspect.signature(public))
            for method, function in vars(public).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}{without_types(inspect.signature(function))}"


def without_types(signature: inspect.Signature) -> str:
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_the_reference_has_all_counters():
    rows = section(REFERENCE, "Counters").rows[2:]
    with Broker(*["tcp://127.0.0.1:*"] * 3) as broker:
        assert [name for names, _ in rows for name in re.findall(r"`(\w+)`", names)] == list(broker.counters())


def test_the_pictures_of_the_readme_are_there_and_small():
    pictures = re.findall(r'\b(?:src|srcset)="([^"]+)"', (TOP / README).read_text())
    assert len(pictures) == 2
    assert all(0 < (TOP / picture).stat().st_size < LARGEST_PICTURE for picture in pictures)


def test_operations_names_each_alert_that_there_is_and_no_other():
    named = [name for row in section(OPERATIONS, "What to alert on").rows for name in re.findall(r"`(Zmq\w+)`", row[1])]
    alerts = (TOP / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert sorted(named) == sorted(re.findall(r"- alert: (\w+)", alerts))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for file, anchor in links(document):
        assert (TOP / file).is_file(), file
        assert not anchor or anchor in anchors(file), f"{file}#{anchor}"


def test_each_document_is_found_from_the_readme():
    found: set[str] = set()
    to_read = {README}
    while to_read:
        found |= to_read
        to_read = {file for document in to_read for file, _ in links(document) if file.endswith(".md")} - found
    assert found == set(DOCUMENTS)
