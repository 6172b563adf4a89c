"""When a submission is halted, what files of results are called, and what a report says: without any file."""

import json
import random

import pytest

from zmqbroker.client.futures import TaskFailed
from zmqbroker.commands.halting import Halt, halt
from zmqbroker.commands.naming import names_from
from zmqbroker.commands.progress import Pace
from zmqbroker.commands.refused import LARGE, Refusals, RefusedError
from zmqbroker.commands.reported import FAILED, SUCCEEDED, UNKNOWN, Reported, checksum, line_of
from zmqbroker.commands.takers import Item, Outcome
from zmqbroker.commands.telling import failure, left_behind

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("soon,fail=1", Halt("soon", 1, False)),
        ("now,fail=20", Halt("now", 20, False)),
        ("soon,fail=5%", Halt("soon", 5, True)),
        ("now,fail=100%", Halt("now", 100, True)),
    ],
)
def test_when_to_halt_is_said_in_the_words_of_gnu_parallel(text: str, read: Halt):
    assert halt(text) == read


@pytest.mark.parametrize("text", ["", "soon", "fail=1", "soon,fail=0", "now,fail=101%", "later,fail=1", "now,done=1"])
def test_what_does_not_say_when_to_halt_is_refused(text: str):
    with pytest.raises(ValueError, match="is not soon,fail=N or now,fail=N"):
        halt(text)


def test_so_many_failures_are_too_many():
    assert [Halt("now", 2, False).is_due(failed, 10) for failed in range(4)] == [False, False, True, True]


def test_a_share_counts_from_the_third_failure_on():
    tenth = Halt("soon", 10, True)
    assert [tenth.is_due(failed, 5) for failed in (1, 2, 3)] == [False, False, True]
    assert [tenth.is_due(3, settled) for settled in (29, 30, 31)] == [True, True, False]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{}.out", "some/dir.d/a.b.svg.out"),
        ("{.}.png", "some/dir.d/a.b.png"),
        ("out/{/}", "out/a.b.svg"),
        ("{//}/thumb-{/.}.png", "some/dir.d/thumb-a.b.png"),
        ("fixed", "fixed"),
        ("{x}{/.}", "{x}a.b"),
    ],
)
def test_a_result_is_named_after_its_input(template: str, name: str):
    assert names_from(template, ["some/dir.d/a.b.svg"]) == [name]


def test_names_without_a_directory_or_an_extension():
    assert names_from("{//}/{/.}.out", ["a", ".hidden"]) == ["./a.out", "./.hidden.out"]
    assert names_from("{.}.out", ["dir.d/a"]) == ["dir.d/a.out"]


def test_a_placeholder_in_the_name_of_an_input_is_none():
    assert names_from("{}.out", ["{/}{}"]) == ["{/}{}.out"]


def test_two_results_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"^the results of x/a\.svg and a\.svg would both be a\.png$"):
        names_from("{/.}.png", ["x/a.svg", "a.svg"])
    with pytest.raises(ValueError, match=r"would both be \./a$"):
        names_from("{}", ["a", "./a"])
    with pytest.raises(ValueError, match="names the same file for all"):
        names_from("out", ["a", "b"])


def item(number: int, body: bytes = b"body", name: str | None = None) -> Item:
    return Item(number, f"line {number}", body, name, checksum(body))


def line(number: int, status: str, body: bytes = b"body", name: str | None = None) -> bytes:
    result = b"" if status in ("done", "accepted") else TaskFailed("no luck", status, 2)
    return line_of(Outcome(item(number, body, name), result, status, 2, 0.25, "one (host:1)", "key"))


def test_a_line_of_a_report_says_what_became_of_a_task():
    assert json.loads(line(17, "done", b"123456789")) == {
        "line": 17,
        "status": "done",
        "attempts": 2,
        "seconds": 0.25,
        "worker": "one (host:1)",
        "reason": None,
        "checksum": "cbf43926",
    }
    assert json.loads(line(1, "failed"))["reason"] == "no luck"
    assert json.loads(line(1, "accepted"))["key"] == "key"
    told = json.loads(line(1, "done", name="\udcff.svg"))
    assert (told["file"], "line" in told) == ("\udcff.svg", False)


def test_what_was_reported_last_counts():
    reported = Reported()
    for number, status in ((5, "done"), (2, "failed"), (3, "expired"), (2, "done"), (1, "accepted")):
        reported.add(line(number, status))
    known = [reported.find(item(number)) for number in range(1, 8)]
    assert known == [SUCCEEDED, SUCCEEDED, FAILED, UNKNOWN, SUCCEEDED, UNKNOWN, UNKNOWN]
    assert (reported.succeeded, reported.failed) == (3, 1)


def test_a_line_that_has_changed_since_is_refused_and_a_file_done_again():
    reported = Reported()
    reported.add(line(1, "done", b"before"))
    reported.add(line(1, "done", b"before", "a.svg"))
    with pytest.raises(ValueError, match="line 1 is not what it was"):
        reported.find(item(1, b"after"))
    assert reported.find(item(9, b"before", "a.svg")) == SUCCEEDED
    assert reported.find(item(9, b"after", "a.svg")) == UNKNOWN


def test_what_is_no_line_of_a_report_is_refused():
    good = json.loads(line(1, "done"))
    bad = [b"", b"{", b"[]", b"1", b"{}", b"[" * 100_000]
    changes = ({"line": 0}, {"line": True}, {"line": "1"}, {"line": 1 << 40}, {"checksum": "x"}, {"file": 1})
    bad += [json.dumps(good | change).encode() for change in (*changes, {"checksum": "1" * 9}, {"status": []})]
    for text in bad:
        with pytest.raises(ValueError, match=r"^it is no line of a report$"):
            Reported().add(text)


def test_what_is_known_of_lines_is_what_was_said_of_them_in_any_order():
    chance = random.Random(17)
    expected: dict[int, int] = {}
    reported = Reported()
    for _ in range(2000):
        number, status = chance.randint(1, 500), chance.choice(["done", "failed", "cancelled"])
        reported.add(line(number, status))
        expected[number] = SUCCEEDED if status == "done" else FAILED
    assert {n: known for n in range(1, 600) if (known := reported.find(item(n)))} == expected
    assert reported.succeeded + reported.failed == len(expected)


def test_what_is_invalid_about_the_first_task_is_so_about_all():
    invalid = TaskFailed("no store", "invalid", 0)
    refused = Refusals().look(invalid, 10)
    assert isinstance(refused, RefusedError)
    assert str(refused) == "no store"
    after_one_that_was_not_sent = Refusals()
    no_json = ValueError("no JSON")
    assert after_one_that_was_not_sent.look(no_json, 10) is no_json
    assert isinstance(after_one_that_was_not_sent.look(invalid, 10), RefusedError)


@pytest.mark.parametrize("answer", [None, TaskFailed("no luck", "failed", 3)])
def test_what_is_invalid_after_others_were_taken_is_so_about_one(answer: TaskFailed | None):
    refusals, invalid = Refusals(), TaskFailed("too large", "invalid", 0)
    assert refusals.look(invalid, LARGE) is invalid
    assert refusals.look(answer, 10) is answer
    assert refusals.look(invalid, 10) is invalid


def test_what_is_said_of_a_task_is_one_line_whatever_its_name():
    odd = Item(1, "a\nb\x1b[2J.svg", b"")
    assert failure(Outcome(odd, KeyError("a"), "unknown")) == (
        r"a\nb\x1b[2J.svg: there is no such task, nor an outcome of one"
    )
    assert failure(Outcome(odd, TaskFailed("no\nluck", "failed", 1, 7), "failed")) == (
        r"a\nb\x1b[2J.svg, task 7: no\nluck"
    )
    assert failure(Outcome(item(2), ValueError("no JSON"), "failed")) == "line 2: no JSON"


def test_neighbours_that_were_left_are_one_line():
    assert left_behind([item(5)], "cancelled") == "line 5: cancelled"
    assert left_behind([item(number) for number in (5, 6, 7)], "not fetched") == "line 5 to line 7 (3): not fetched"


def test_the_pace_is_that_of_the_last_half_minute():
    pace = Pace(now=0.0)
    assert [pace.rate(10 * second, now=second) for second in (1, 2, 30)] == [10, 10, 10]
    assert [pace.rate(300 + second - 30, now=second) for second in (60, 90)] == [1, 1]
    assert pace.rate(361, now=1090) == pytest.approx(1 / 1000)  # it had stopped


def test_the_pace_of_the_first_moment_is_a_number():
    assert Pace(now=5.0).rate(0, now=5.0) == 0
