"""What README.md shows is run, and what it lists is compared with the code; the links of both documents."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from examples_support import PROTOCOL, README, anchors, broker_actions, links, section
from helpers import PATIENCE, TOP, Program, bound_addresses

from zmqbroker import Client, TaskFailed

SHORT_TIMEOUT = "0.2"  # seconds, instead of the README's: so that the tasks dropped do not take half a minute
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE}

Run = Callable[..., Program]


@pytest.fixture
def programs() -> Iterator[Run]:
    """Return a function that starts a program which ends with the test."""
    with ExitStack() as stack:

        def run(script: str, *arguments: str) -> Program:
            program = Program(script, *arguments)
            stack.callback(program.clean_up)
            return program

        yield run


# The commands of the README


def commands(heading: str) -> list[list[str]]:
    return [shlex.split(line) for block in section(README, heading).blocks["sh"] for line in block.splitlines()]


def on_other_addresses(arguments: list[str], addresses: dict[str, str]) -> list[str]:
    """Replace the address of each of the README's ports."""
    return [re.sub(r"tcp://[^:\"]*:(\d+)", lambda found: addresses[found[1]], argument) for argument in arguments]


def test_the_commands_of_the_readme_hand_out_each_task_until_it_is_answered(programs):
    (broker_script, *broker_options), (worker_script, *worker_options), (client_script, *client_options) = commands(
        "Try it"
    )
    ports = re.findall(r":(\d+)", " ".join(broker_options))
    any_port = on_other_addresses(broker_options, dict.fromkeys(ports, "tcp://127.0.0.1:*"))
    any_port[any_port.index("-T") + 1] = SHORT_TIMEOUT
    broker = programs(broker_script, *any_port)
    addresses = dict(zip(ports, bound_addresses(broker), strict=True))
    workers = [programs(worker_script, *on_other_addresses(worker_options, addresses)) for _ in range(2)]
    client = programs(client_script, *on_other_addresses(client_options, addresses))

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
        int, broker.wait_for(r"^(\d+) tasks done, (\d+) failed, (\d+) attempts retried").groups()
    )
    assert (done, failed) == (len(replied), len(replies) - len(replied))
    assert retried >= len(attempts) - len(replies)


def test_the_readme_shows_what_the_programs_print(programs):
    shown, totals = section(README, "Try it").blocks["text"]
    broker_script, *options = commands("Try it")[0]
    limits = re.search(r"limits .*(?=, \.\.\.)", shown)
    broker = programs(broker_script, *options[:-3], *["tcp://127.0.0.1:*"] * 3)
    assert limits is not None
    broker.wait_for(re.escape(limits[0]))
    broker.end()
    assert re.sub(r"\d+", "0", totals).strip() in broker.output


@pytest.mark.parametrize("script", [line[0] for line in commands("Try it")])
def test_the_programs_of_the_readme_can_be_executed(script):
    assert os.access(TOP / script, os.X_OK)


@pytest.mark.parametrize("target", [line[1] for line in commands("Set up")])
def test_the_set_up_commands_are_in_the_makefile(target):
    assert re.search(rf"^{target}:", (TOP / "Makefile").read_text(), re.MULTILINE)


def test_the_embedded_broker_of_the_readme_prints_what_it_shows(tmp_path):
    part = section(README, "In your own program")
    (tmp_path / "embedding.py").write_text(part.block("python"))
    ran = subprocess.run(
        [sys.executable, tmp_path / "embedding.py"],
        env=os.environ | {"PYTHONPATH": str(TOP)},
        **CAPTURED,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (part.block("text"), "", 0)


# The README's work in five minutes

OWN = "Your own work in five minutes"


@pytest.fixture
def zmqbroker_script(tmp_path, monkeypatch) -> str:
    """Return what an installation would make of the `zmqbroker` command."""
    script = tmp_path / "zmqbroker-script"
    script.write_text("import sys\nfrom zmqbroker.commands.main import main\nsys.exit(main())\n")
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    monkeypatch.chdir(tmp_path)
    return str(script)


@pytest.fixture
def broker_addresses(programs, zmqbroker_script) -> dict[str, str]:
    """Start the broker as the README does, and return its addresses by the README's ports."""
    _, *arguments = commands(OWN)[0]
    ports = re.findall(r":(\d+)", " ".join(arguments))
    any_port = on_other_addresses(arguments, dict.fromkeys(ports, "tcp://127.0.0.1:*"))
    return dict(zip(ports, bound_addresses(programs(zmqbroker_script, *any_port)), strict=True))


def run_snippet(title: str, addresses: dict[str, str]) -> None:
    """Run the Python of a section, and compare what it prints with what is shown."""
    part = section(README, title)
    (snippet,) = on_other_addresses([part.block("python")], addresses)
    ran = subprocess.run([sys.executable, "-c", snippet], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (part.block("text"), "", 0)


@pytest.fixture
def counting(programs, broker_addresses, zmqbroker_script) -> dict[str, str]:
    """Have the README's function at work, and return the broker's addresses."""
    Path("words.py").write_text(section(README, "A function").block("python"))
    (_, *work), _ = commands("A function")
    programs(zmqbroker_script, *on_other_addresses(work, broker_addresses))
    return broker_addresses


def test_the_function_of_the_readme_counts_the_words_of_each_line(counting, zmqbroker_script):
    _, (_, *submit) = commands("A function")
    ran = subprocess.run([sys.executable, zmqbroker_script, *on_other_addresses(submit, counting)], **CAPTURED)
    assert (ran.stdout, ran.stderr, ran.returncode) == (section(README, "A function").block("text"), "", 0)


@pytest.mark.parametrize("title", ["A client in Python", "Futures and asyncio", "Very small tasks"])
def test_the_clients_of_the_readme_print_what_it_shows(counting, title):
    run_snippet(title, counting)


@pytest.mark.skipif(shutil.which("factor") is None, reason="there is no factor command")
def test_the_command_of_the_readme_factors_a_thousand_numbers(programs, broker_addresses, zmqbroker_script):
    (_, *work), (_, last, _, _, *submit) = commands("A command")
    programs(zmqbroker_script, *on_other_addresses(work, broker_addresses))
    lines = "".join(f"{number}\n" for number in range(1, int(last) + 1))
    command = [sys.executable, zmqbroker_script, *on_other_addresses(submit, broker_addresses)]
    ran = subprocess.run(command, input=lines, **CAPTURED)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-3:] == ["998: 2 499", "999: 3 3 3 37", "1000: 2 2 2 5 5 5"]


def test_the_worker_of_the_readme_works(broker_addresses):
    (snippet,) = on_other_addresses([section(README, "A worker in Python").block("python")], broker_addresses)
    worker = subprocess.Popen([sys.executable, "-c", snippet])
    try:
        with Client(broker_addresses["4161"]) as client:
            assert client.call(b"two words", wait=PATIENCE) == b"2"
            with pytest.raises(TaskFailed, match="there is nothing to count"):
                client.call(b"", wait=PATIENCE)
    finally:
        worker.kill()
        worker.wait()


# What the documents list


def test_the_option_table_has_what_the_parser_takes_and_its_defaults():
    expected = {}
    for action in broker_actions():
        names = ", ".join(f"`{name}`" for name in action.option_strings or [action.metavar])
        if action.option_strings and action.metavar:
            metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
            names = f"{names[:-1]} {metavar}`"
        defaults = action.default if isinstance(action.default, tuple) else (action.default,)
        has_default = action.nargs != 0 and all(isinstance(default, int | float) for default in defaults)
        expected[names] = " ".join(f"{default:g}" for default in defaults) if has_default else ""
    _, _, *rows = section(README, "Options").rows
    assert {names: default for names, default, _ in rows} == expected


@pytest.mark.parametrize(("document", "file", "anchor"), [(d, *link) for d in (README, PROTOCOL) for link in links(d)])
def test_links_lead_somewhere(document, file, anchor):
    assert (TOP / file).is_file()
    assert not anchor or anchor in anchors(file)
