"""Frames to messages: every rule of PROTOCOL.md, and what fits none."""

import pytest

from zmqbroker import wire


def test_a_request_is_split_at_its_first_empty_frame():
    assert wire.parse_request([b"id", b"hop", b"", b"body", b"", b"more"]) == (
        [b"id", b"hop"],
        [b"body", b"", b"more"],
    )


def test_an_empty_body_is_a_body():
    assert wire.parse_request([b"id", b"", b""]) == ([b"id"], [b""])


@pytest.mark.parametrize(
    ("message", "envelope"),
    [
        ([b"id"], [b"id"]),
        ([b"id", b"x"], [b"id"]),
        ([b"id", b""], [b"id"]),
        ([b"id", b"hop", b""], [b"id", b"hop"]),
    ],
)
def test_a_malformed_request_still_says_whom_to_answer(message: list[bytes], envelope: list[bytes]):
    with pytest.raises(wire.MalformedError, match="a request without") as raised:
        wire.parse_request(message)
    assert raised.value.envelope == envelope


@pytest.mark.parametrize("body", [[b"ready"], [b"requesting task"], [b"", b"several", b"frames"], []])
def test_what_a_ready_message_says_does_not_matter(body: list[bytes]):
    assert wire.parse_ready([b"id", b"hop", b"", *body]) == [b"id", b"hop"]


def test_a_ready_message_without_an_empty_frame_is_malformed():
    with pytest.raises(wire.MalformedError, match="ready"):
        wire.parse_ready([b"id", b"ready"])


def test_a_result_is_told_from_a_control_message():
    assert not wire.is_control([b"attempt", b""])
    assert wire.is_control([b"attempt"])
    assert wire.is_control([b""])
    assert wire.is_control([b"", b"fail", b"attempt"])


@pytest.mark.parametrize(
    ("message", "control"),
    [
        ([b"attempt"], wire.Control(wire.FAIL, b"attempt", reason="the worker reported a failure")),
        ([b"", b"fail", b"attempt"], wire.Control(wire.FAIL, b"attempt")),
        ([b"", b"fail", b"attempt", "zu groß".encode()], wire.Control(wire.FAIL, b"attempt", reason="zu groß")),
        ([b"", b"fail", b"attempt", b"\xff"], wire.Control(wire.FAIL, b"attempt", reason="\N{REPLACEMENT CHARACTER}")),
        ([b"", b"reject", b"attempt", b"no"], wire.Control(wire.REJECT, b"attempt", reason="no")),
        ([b"", b"release", b"attempt"], wire.Control(wire.RELEASE, b"attempt")),
        ([b"", b"touch", b"attempt"], wire.Control(wire.TOUCH, b"attempt")),
        ([b"", b"touch", b"attempt", b""], wire.Control(wire.TOUCH, b"attempt")),
        ([b"", b"touch", b"attempt", b"2.5"], wire.Control(wire.TOUCH, b"attempt", seconds=2.5)),
        ([b"", b"touch", b"attempt", b"2", b"more"], wire.Control(wire.TOUCH, b"attempt", seconds=2.0)),
    ],
)
def test_control_messages(message: list[bytes], control: wire.Control):
    assert wire.parse_control(message) == control


@pytest.mark.parametrize("argument", [b"soon", b"-1", b"0", b"nan", b"inf", b"1e300", b"\xff", b"1" * 5000])
def test_a_touch_that_names_no_number_of_seconds_is_malformed(argument: bytes):
    with pytest.raises(wire.MalformedError, match="seconds"):
        wire.parse_control([b"", b"touch", b"attempt", argument])


@pytest.mark.parametrize("message", [[b""], [b"", b""], [b"", b"fail"], [b"", b"explode", b"attempt"], [b"", b"", b""]])
def test_other_control_messages_are_malformed(message: list[bytes]):
    with pytest.raises(wire.MalformedError):
        wire.parse_control(message)


def test_a_reason_is_kept_to_a_length():
    control = wire.parse_control([b"", b"fail", b"attempt", b"x" * 100_000])
    assert control.reason == "x" * wire.LONGEST_REASON


def test_frames_of_the_transports_own_type_are_read_as_well():
    large = memoryview(b"x" * 70_000)
    assert len(wire.parse_control([b"", b"fail", b"attempt", large]).reason) == wire.LONGEST_REASON
    with pytest.raises(wire.MalformedError, match="unknown verb"):
        wire.parse_control([b"", large, b"attempt"])


def test_messages_to_workers_and_clients():
    assert wire.task_message([b"id", b"hop"], b"attempt", [b"a", b"b"]) == [b"id", b"hop", b"", b"attempt", b"a", b"b"]
    assert wire.reply_message([b"id"], [b"a", b"b"]) == [b"id", b"", b"a", b"b"]
    assert wire.reply_message([b"id"], []) == [b"id", b"", b""]
