"""Tasks and results as JSON, at both ends."""

from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from conftest import Running
from helpers import PATIENCE
from library_support import working

from zmqbroker import Client, Fail, TaskFailed
from zmqbroker.wire.json_body import read_json, write_json
from zmqbroker.worker.json_function import JsonFunction
from zmqbroker.worker.outcome import Reject


def area(width: float, height: float = 1, *more: float, unit: str = "m2") -> Any:
    if width < 0:
        raise Fail("no such width")
    return {"area": width * height, "unit": unit, "more": list(more)}


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with working(running.addresses.ready, JsonFunction(area)), Client(running.addresses.requests) as client:
        yield client


@pytest.fixture
def echoing(running: Running) -> Iterator[Client]:
    with working(running.addresses.ready, lambda body: body), Client(running.addresses.requests) as client:
        yield client


VALUES = [None, True, 0, 1.5, "", "ü\U0001f600\u2028", [], {}, {"a": [1, {"b": None}]}, 10**40, "\x00\n"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_went(value: Any):
    assert read_json([write_json(value)]) == value
    assert b"\n" not in write_json(value)


@pytest.mark.parametrize("body", [b"", b"{", b"1 2", b"NaN", b"-Infinity", b"\xff", b"[" * 200_000])
def test_what_is_no_json_says_so(body: bytes):
    with pytest.raises(ValueError, match="JSON"):
        read_json([body])


def test_json_has_one_frame():
    with pytest.raises(ValueError, match="it is no JSON, which has one frame: it has 2"):
        read_json([b"1", b"2"])


@pytest.mark.parametrize("value", [nan, inf, "\ud800", [{"a": nan}]])
def test_what_json_cannot_say_is_a_value_error(value: Any):
    with pytest.raises(ValueError, match=r"."):
        write_json(value)


def test_an_object_is_the_arguments_by_name_and_an_array_by_place():
    function = JsonFunction(area)
    assert function(b'{"width": 2, "height": 3, "unit": "cm2"}') == b'{"area":6,"unit":"cm2","more":[]}'
    assert function(b"[2, 3, 4, 5]") == b'{"area":6,"unit":"m2","more":[4,5]}'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"nonsense", "the body cannot be read: it is no JSON: Expecting value"),
        (b'"text"', 'neither an object nor an array of arguments: "text"'),
        (b'{"widht": 1}', "the function does not take these arguments: "),
        (b"[]", "the function does not take these arguments: missing a required argument: 'width'"),
    ],
)
def test_a_body_that_can_never_be_done_is_rejected(body: bytes, reason: str):
    with pytest.raises(Reject) as rejection:
        JsonFunction(area)(body)
    assert reason in str(rejection.value)


def test_a_result_that_json_cannot_say_is_rejected():
    with pytest.raises(Reject, match="the result cannot be said in JSON: Object of type set is not JSON serializable"):
        JsonFunction(lambda: {1})(b"[]")


def test_a_type_error_of_the_function_itself_is_its_own():
    with pytest.raises(TypeError, match="unsupported operand"):
        JsonFunction(lambda a: a + "text")(b"[1]")


def test_a_function_without_a_signature_is_called_all_the_same():
    assert JsonFunction(max)(b"[3, 5, 4]") == b"5"


def test_submit_and_call_send_and_return_values(client: Client):
    expected = {"area": 6, "unit": "m2", "more": []}
    assert client.submit(json={"width": 2, "height": 3}).result(PATIENCE) == expected
    assert client.call(json=[2, 3], wait=PATIENCE) == expected


def test_map_sends_and_yields_values_in_chunks_as_well(client: Client):
    given = [{"width": number} for number in range(10)]
    for chunk in (1, 3):
        assert [result["area"] for result in client.map(given, as_json=True, chunk=chunk)] == list(range(10))


def test_failures_are_those_of_any_task(client: Client):
    with pytest.raises(TaskFailed, match="no such width"):
        client.call(json={"width": -1}, tries=1, wait=PATIENCE)
    with pytest.raises(TaskFailed, match="does not take these arguments") as failure:
        client.call(json={"wrong": 1}, wait=PATIENCE)
    assert failure.value.attempts == 1


def test_null_is_a_value(echoing: Client):
    assert echoing.call(json=None, wait=PATIENCE) is None
    assert list(echoing.map([None, 1], as_json=True)) == [None, 1]


def test_a_result_that_is_no_json_is_a_value_error(running: Running):
    with working(running.addresses.ready, lambda body: b"<html>"), Client(running.addresses.requests) as client:
        with pytest.raises(ValueError, match="the task is done, but its result cannot be read: it is no JSON"):
            client.call(json=1, wait=PATIENCE)
        with pytest.raises(ValueError, match="cannot be read"):
            client.submit(json=1).result(PATIENCE)
        with pytest.raises(ValueError, match="cannot be read"):
            list(client.map([1], as_json=True))


def test_a_task_has_a_body_or_json(echoing: Client):
    for body in ({}, {"body": b"", "json": 1}):
        for send in (echoing.submit, echoing.call, echoing.send):
            with pytest.raises(TypeError, match="a task has a body"):
                send(**body)  # type: ignore[operator]


def test_what_json_has_no_word_for_is_refused_at_once(echoing: Client):
    with pytest.raises(TypeError, match="not JSON serializable"):
        echoing.submit(json={1, 2})


def test_an_option_that_there_is_not_is_a_type_error(echoing: Client):
    for wrong in ("tmeout", "cancel", "fetch"):  # the last two are fields of a header, but no options
        with pytest.raises(TypeError, match=f"there is no option {wrong}"):
            echoing.submit(b"", **{wrong: 3})


def test_a_result_is_fetched_as_json(start: Callable[..., Running], tmp_path: Path):
    running = start(store=tmp_path / "store.db")
    with working(running.addresses.ready, JsonFunction(area)), Client(running.addresses.requests) as client:
        key = client.send(json={"width": 3})
        assert client.fetch(key, PATIENCE, as_json=True)["area"] == 3
        assert client.outcome(key, as_json=True).result(PATIENCE)["area"] == 3
