"""`zmqbroker submit --detach` and `zmqbroker fetch` as a user runs them, with a broker that has a store."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Peers, Running
from helpers import PATIENCE
from library_support import NOBODY, Gate, working
from submit_support import Submit, fetch, handle, run, submit
from told_broker import ToldBroker

from zmqbroker import Client
from zmqbroker.wire import ACCEPTED, DONE

pytestmark = pytest.mark.once


__all__ = ["fetch", "submit"]  # fixtures

MADE_UP = rb"[0-9a-f]{32}-\d+"
UNKNOWN = b"there is no such task, nor an outcome of one"


@pytest.fixture
def storing(start: Callable[..., Running], tmp_path: Path) -> Running:
    """Return a broker with a store."""
    return start(store=tmp_path / "tasks")


@pytest.fixture
def address(storing: Running) -> str:
    return storing.addresses.requests


@pytest.fixture
def told() -> Iterator[ToldBroker]:
    """Return a broker that says what it is told to."""
    with Peers() as peers:
        broker = ToldBroker(peers)
        yield broker
        broker.close()


def leave(submit: Submit, text: bytes, *arguments: object) -> list[str]:
    """Leave each line as a task, and return the keys."""
    out, err, status = run(submit("--detach", *arguments), text)
    assert (err, status) == (b"", 0)
    return out.decode().splitlines()


# To leave


def test_what_is_left_is_printed_by_its_key_and_fetched_by_that(
    storing: Running, address: str, submit: Submit, fetch: Submit, tmp_path: Path
):
    keys = leave(submit, b"one\ntwo\nthree\n", address)
    assert all(re.fullmatch(MADE_UP.decode(), key) for key in keys)
    (tmp_path / "keys").write_text("\n".join(keys[1:]))
    with working(storing.addresses.ready, handle):
        named = fetch("--wait", PATIENCE, address, "--keys-from", tmp_path / "keys", keys[0])
        assert run(named) == (b"ONE\nTWO\nTHREE\n", b"", 0)
        asked = fetch(address, "--keys-from", "-")
        assert run(asked, "\r\n\n".join(reversed(keys)).encode()) == (b"THREE\nTWO\nONE\n", b"", 0)


def test_two_runs_with_the_same_prefix_make_different_keys(address: str, submit: Submit):
    keys = [leave(submit, b"one\ntwo\n", address, "--key-prefix", "may-") for _ in range(2)]
    assert len({*keys[0], *keys[1]}) == 4
    assert all(
        re.fullmatch(r"may-[0-9a-f]{32}-" + f"{number}", key) for each in keys for number, key in enumerate(each, 1)
    )


def test_whole_files_are_left_as_well_and_options_are_those_of_the_tasks(
    told: ToldBroker, submit: Submit, tmp_path: Path
):
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    options = ["--keep", 60, "--queue", "gpu", "--priority", 1]
    process = submit("--whole", "--detach", *options, "--key-prefix", "p", "-q", told.address, tmp_path / "a")
    fields = told.answer(ACCEPTED)
    key = fields.pop("key")
    assert fields == {"id": "1", "priority": 1, "queue": "gpu", "detach": True, "keep": 60.0}
    assert told.body == [b"one\ntwo\n"]
    assert run(process) == (f"{key}\n".encode(), b"", 0)


def test_durable_tasks_are_waited_for(told: ToldBroker, submit: Submit):
    process = submit("--durable", told.address)
    assert process.stdin is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    fields = told.answer(DONE, b"ONE")
    assert fields == {"key": fields["key"], "durable": True}
    assert run(process) == (b"ONE\n", b"", 0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--keep", 5], b"keep goes with detach or durable"),
        (["--keep", 0, "--detach"], b"keep must be seconds above 0"),
        (["--detach", "--key-prefix", "a\nb"], b"is not up to 200 printable characters"),
        (["--detach", "--key-prefix", "k" * 201], b"is not up to 200 printable characters"),
    ],
)
def test_what_cannot_be_asked_for_is_a_bad_option(submit: Submit, arguments: list[object], reason: bytes):
    out, err, status = run(submit(*arguments, NOBODY))
    assert (out, status) == (b"", 2)
    assert reason in err
    assert err.count(b"\n") == 1


def test_a_signal_cancels_what_was_not_accepted_and_leaves_what_was(told: ToldBroker, submit: Submit):
    process = submit("--detach", told.address)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\ntwo\n")
    process.stdin.flush()
    one, two = told.receive(), told.receive()
    told.reply(ACCEPTED, to=one)
    assert process.stdout.readline().decode() == one["key"] + "\n"
    process.send_signal(signal.SIGINT)
    assert told.answer("cancelled") == {"key": two["key"], "cancel": True}
    assert run(process) == (b"", b"interrupted: 1 tasks accepted, 0 failed, 1 cancelled\n", 130)


# To fetch


def test_what_has_no_result_is_a_line_on_stderr_with_its_key(
    storing: Running, address: str, submit: Submit, fetch: Submit
):
    good, bad = leave(submit, b"good\nbad\n", "-t", 1, address)
    out, err, status = run(fetch(address, good))
    assert (out, err, status) == (b"", f"{good}: it has no outcome yet: waiting\n".encode(), 1)
    with working(storing.addresses.ready, handle):
        out, err, status = run(fetch("--wait", PATIENCE, address, bad, "never-known", good))
    assert (out, status) == (b"GOOD\n", 1)
    assert err == f"{bad}, task 2: ValueError: bad input\nnever-known: ".encode() + UNKNOWN + b"\n"


def test_many_are_left_and_fetched_in_order(
    storing: Running, address: str, submit: Submit, fetch: Submit, tmp_path: Path
):
    count = 3000  # more than a window
    keys = leave(submit, b"".join(b"%d\n" % number for number in range(count)), address)
    (tmp_path / "keys").write_text("\n".join(keys))
    with working(storing.addresses.ready, handle):
        out, err, status = run(fetch("--wait", PATIENCE, "--forget", "--keys-from", tmp_path / "keys", address))
    assert (err, status) == (b"", 0)
    assert out == b"".join(b"%d\n" % number for number in range(count))
    with Client(address) as client, pytest.raises(KeyError):
        client.fetch(keys[-1])


def test_results_are_printed_as_they_come_with_their_keys(storing: Running, address: str, fetch: Submit):
    with Client(address) as client, working(storing.addresses.ready, handle):
        client.send(b"late", key="a late one", delay=3600)
        client.send(b"soon", key="a soon one")
        process = fetch("--unordered", "--wait", 3600, address, "a late one", "a soon one")
        assert process.stdout is not None
        assert process.stdout.readline() == b"a soon one\tSOON\n"
        client.cancel("a late one")
        assert run(process) == (b"", b"a late one, task 1: cancelled by its client\n", 1)


def test_only_text_gets_a_newline_and_no_result_one_of_its_own(storing: Running, address: str, fetch: Submit):
    results = {b"text": b"text", b"line": b"line\n", b"binary": b"\x89PNG\x00", b"empty": b""}
    with Client(address) as client, working(storing.addresses.ready, results.__getitem__):
        for body in results:
            client.send(body, key=body.decode())
        out, err, status = run(fetch("--wait", PATIENCE, address, "text", "binary", "line", "empty"))
    assert (out, err, status) == (b"text\n\x89PNG\x00line\n\n", b"", 0)


def test_only_what_was_printed_is_forgotten(storing: Running, address: str, fetch: Submit):
    gate = Gate(b"held")
    with Client(address) as client, working(storing.addresses.ready, gate):
        for key in ("first", "held", "second"):
            client.send(key.encode(), key=key)
        gate.wait_for(b"held")
        process = fetch("--forget", "--wait", PATIENCE, address, "first", "held")
        assert process.stdout is not None
        assert process.stdout.readline() == b"FIRST\n"
        storing.wait_for("joined", 3)  # both were fetched, and the first was forgotten
        with pytest.raises(KeyError):
            client.fetch("first")
        process.send_signal(signal.SIGTERM)
        assert run(process)[1:] == (b"interrupted: 1 results fetched, 0 failed, 1 not fetched\n", 143)
        gate.open(b"held")
        assert client.fetch("held", PATIENCE) == b"HELD"
        assert storing.count("cancelled") == 0


def test_no_more_than_a_window_is_asked_for_ahead_of_what_was_printed(told: ToldBroker, fetch: Submit):
    process = fetch("--window", 2, told.address, "one", "two", "three")
    asked = [told.receive(), told.receive()]
    assert not told.has_more(50)
    for fields in asked:
        told.reply(DONE, fields["key"].encode(), to=fields)
    told.answer(DONE, b"three")
    assert run(process) == (b"one\ntwo\nthree\n", b"", 0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([NOBODY], b"which tasks?"),
        ([NOBODY, "key", "--window", 0], b"--window must be 1 or more"),
        ([NOBODY, "--wait", "inf", "key"], b"'inf' is no number"),
        ([NOBODY, "--keys-from", "no/such/file"], b"cannot read no/such/file"),
        ([NOBODY, "k" * 257], b"key must be 1 to 256 characters"),
        ([NOBODY, "--connect-timeout", 0.01, "key"], b"nobody has answered at"),
        (["nowhere", "key"], b"nowhere"),
    ],
)
def test_what_cannot_be_fetched_at_all_is_one_line_and_status_2(fetch: Submit, arguments: list[object], reason: bytes):
    out, err, status = run(fetch(*arguments))
    assert (out, status) == (b"", 2)
    assert reason in err
    assert err.count(b"\n") == 1


def test_a_file_of_keys_that_is_no_text_is_said(told: ToldBroker, fetch: Submit, tmp_path: Path):
    (tmp_path / "keys").write_bytes(b"\n\xff\n")
    out, err, status = run(fetch(told.address, "--keys-from", tmp_path / "keys"))
    assert (out, status) == (b"", 2)
    assert err == f"zmqbroker fetch: {tmp_path}/keys, line 2 is no key: it is not UTF-8\n".encode()


def test_keys_that_look_like_options_stand_behind_two_dashes(told: ToldBroker, fetch: Submit):
    process = fetch(told.address, "a", "--wait", 0, "--", "-b", "--c")
    for key in ("a", "-b", "--c"):
        assert told.answer(DONE, b"result")["key"] == key
    assert run(process) == (b"result\n" * 3, b"", 0)
