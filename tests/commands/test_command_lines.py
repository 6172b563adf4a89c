"""What the command lines make of their arguments, in whatever order these stand."""

from typing import Any

import pytest

from zmqbroker.commands.command_lines import every_parser, parse

CONTROL = "ipc:///run/control"


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (["submit", "tcp://a:1", "-q", "b", "--", "-c"], {"files": ["b", "-c"]}),
        (["fetch", "tcp://a:1", "a", "-q", "b"], {"keys": ["a", "b"]}),
        (
            ["task", "retry", "a", "--owner", "x", "b", "--control", CONTROL],
            {"tasks": ["a", "b"], "control": CONTROL},
        ),
        (["queue", "limit", "flow", "--running", "1", CONTROL], {"queue": "flow", "control": CONTROL}),
        (["task", "show", "5", "--key", CONTROL, "--json"], {"task": "5", "control": CONTROL, "json": True}),
        (["task", "list", "--failed", CONTROL, "--newest"], {"control": CONTROL, "newest": True}),
    ],
)
def test_arguments_may_stand_after_options(arguments: list[str], read: dict[str, Any]):
    _, options, _ = parse("zmqbroker", arguments)
    assert {name: getattr(options, name) for name in read} == read


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        (["queue", "limit", "flow", CONTROL, "--running", "1", "more"], "more"),
        (["queue", "limit", "flow", "--running", "1", "--wohle", CONTROL], "--wohle"),
        (["drain", "--json", CONTROL, "more"], "more"),
        (["serve", "tcp://a:1", "tcp://a:2", "tcp://a:3", "-q", CONTROL], CONTROL),
        (["submit", "--tim", "5", "tcp://a:1"], "--tim"),
        (["--vers", "status"], "--vers"),
    ],
)
def test_what_there_is_no_place_for_is_refused(arguments: list[str], rest: str, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        parse("zmqbroker", arguments)
    assert f"unrecognized arguments: {rest} (see zmqbroker" in capfd.readouterr().err


@pytest.mark.once
def test_no_parser_takes_abbreviations():
    assert not [parser.prog for parser in every_parser() if parser.allow_abbrev]
