"""Frames to messages: every rule of PROTOCOL.md, and what fits none."""

import json
from typing import Any

import pytest

from zmqbroker import wire
from zmqbroker.wire.announced import task_header


def test_a_request_is_split_at_its_first_empty_frame():
    assert wire.parse_request([b"id", b"hop", b"", b"body", b"", b"more"]) == (
        [b"id", b"hop"],
        [b"body", b"", b"more"],
        None,
    )


def test_an_empty_body_is_a_body():
    assert wire.parse_request([b"id", b"", b""]) == ([b"id"], [b""], None)


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


def test_a_result_is_told_from_a_verb():
    assert not wire.is_verb([b"attempt", b""])
    assert wire.is_verb([b"attempt"])
    assert wire.is_verb([b""])
    assert wire.is_verb([b"", b"fail", b"attempt"])


@pytest.mark.parametrize(
    ("message", "verb"),
    [
        ([b"attempt"], wire.Verb(wire.FAIL, b"attempt", reason="the worker reported a failure")),
        ([b"", b"fail", b"attempt"], wire.Verb(wire.FAIL, b"attempt")),
        ([b"", b"fail", b"attempt", "zu groß".encode()], wire.Verb(wire.FAIL, b"attempt", reason="zu groß")),
        ([b"", b"fail", b"attempt", b"\xff"], wire.Verb(wire.FAIL, b"attempt", reason="\N{REPLACEMENT CHARACTER}")),
        ([b"", b"reject", b"attempt", b"no"], wire.Verb(wire.REJECT, b"attempt", reason="no")),
        ([b"", b"release", b"attempt"], wire.Verb(wire.RELEASE, b"attempt")),
        ([b"", b"touch", b"attempt"], wire.Verb(wire.TOUCH, b"attempt")),
        ([b"", b"touch", b"attempt", b""], wire.Verb(wire.TOUCH, b"attempt")),
        ([b"", b"touch", b"attempt", b"2.5"], wire.Verb(wire.TOUCH, b"attempt", seconds=2.5)),
        ([b"", b"touch", b"attempt", b"2", b"more"], wire.Verb(wire.TOUCH, b"attempt", seconds=2.0)),
    ],
)
def test_verbs(message: list[bytes], verb: wire.Verb):
    assert wire.parse_verb(message) == verb


@pytest.mark.parametrize("argument", [b"soon", b"-1", b"0", b"nan", b"inf", b"1e300", b"\xff", b"1" * 5000])
def test_a_touch_that_names_no_number_of_seconds_is_malformed(argument: bytes):
    with pytest.raises(wire.MalformedError, match="seconds"):
        wire.parse_verb([b"", b"touch", b"attempt", argument])


@pytest.mark.parametrize("message", [[b""], [b"", b""], [b"", b"fail"], [b"", b"explode", b"attempt"], [b"", b"", b""]])
def test_other_verbs_are_malformed(message: list[bytes]):
    with pytest.raises(wire.MalformedError):
        wire.parse_verb(message)


def test_a_reason_is_kept_to_a_length():
    verb = wire.parse_verb([b"", b"fail", b"attempt", b"x" * 100_000])
    assert verb.reason == "x" * wire.LONGEST_REASON


def test_frames_of_the_transports_own_type_are_read_as_well():
    large = memoryview(b"x" * 70_000)
    assert len(wire.parse_verb([b"", b"fail", b"attempt", large]).reason) == wire.LONGEST_REASON
    with pytest.raises(wire.MalformedError, match="unknown verb"):
        wire.parse_verb([b"", large, b"attempt"])


def parse_header(text: bytes) -> wire.Header | None:
    envelope, body, header = wire.parse_request([b"id", b"hop", b"ZB1 " + text, b"", b"body"])
    assert (envelope, body) == ([b"id", b"hop"], [b"body"])
    return header


def test_a_header_stands_last_in_the_envelope_and_is_taken_out_of_it():
    text = b'{"key": "k", "timeout": 2.5, "tries": 0, "delay": 3, "priority": -7, "cancel": false}'
    assert parse_header(text) == wire.Header(key="k", timeout=2.5, tries=0, delay=3, priority=-7)
    assert parse_header(b"{}") == wire.Header()
    assert parse_header(b'{"key": "k", "id": "", "progress": true}') == wire.Header(key="k", id="", progress=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"queue": "a"},
        {"queue": "Az09._/-"},
        {"queue": "q" * 128},
        {"group": "g"},
        {"group": "\u20ac" * 64},
        {"expires": 0.001},
        {"expires": 1e9},
        {"expires": 3.5, "delay": 3},
        {"retry_delay": 0, "retry_factor": 1, "retry_most": 0},
        {"retry_delay": 1e9, "retry_factor": 1000, "retry_most": 1e9},
        {"retry_factor": 1.5},
    ],
)
def test_a_header_may_say_what_kind_of_work_a_task_is(fields: dict[str, Any]):
    assert parse_header(json.dumps(fields).encode()) == wire.Header(**fields)
    message = wire.request_message([b"task"], "k", wire.more_fields(fields))
    assert wire.parse_request([b"id", *message])[2] == wire.Header(key="k", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"durable": True},
        {"detach": True, "keep": 0.5},
        {"durable": True, "detach": True, "keep": 1e9, "timeout": 5, "queue": "a"},
        {"durable": False, "detach": False},
        {"fetch": 0},
        {"fetch": 1e9, "body": False, "id": "1"},
        {"fetch": 2.5, "forget": True},
        {"fetch": 2.5, "body": True, "forget": False, "cancel": False},
        {"forget": True},
    ],
)
def test_a_header_may_leave_a_task_and_ask_about_one(fields: dict[str, Any]):
    header = wire.Header(key="k", **fields)
    assert parse_header(json.dumps(fields | {"key": "k"}).encode()) == header
    assert header.is_stored == ("keep" in fields or fields.get("durable", False))


@pytest.mark.parametrize(
    "key", ["0af-1", "k", " ~!#[]", 'a"b', r"a\b", "a\nb", "\x7f", "\u20ac", "k" * wire.LONGEST_KEY]
)
def test_a_header_with_a_key_alone_is_read_the_same_in_any_form_of_json(key: str):
    text = wire.head(wire.request_message([b""], key)[0], 5000).removeprefix(wire.HEADER)
    assert parse_header(text) == parse_header(text + b" ") == wire.Header(key=key)


@pytest.mark.parametrize(
    "envelope", [[b"ZB1 {}"], [b"id", b"ZB1 {}", b"hop"], [b"id", b"ZB1{}"], [b"id", b"zb1 {}"], [b"id", b"ZB2 {}"]]
)
def test_no_other_frame_of_an_envelope_is_looked_at(envelope: list[bytes]):
    assert wire.parse_request([*envelope, b"", b"body"]) == (envelope, [b"body"], None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b'{"tries": 1' + b"0" * 4080, "not JSON|larger"),
        (b"{}" + b" " * 5000, "larger than 4096 bytes"),
        (b"{}" + b" " * 100_000, "larger than 4096 bytes"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"colour": 1}', "unknown field 'colour'; there are key, timeout"),
        (b'{"timeout": -1}', "timeout must be seconds from 0"),
        (b'{"timeout": "2"}', "timeout must be seconds from 0"),
        (b'{"timeout": NaN}', "timeout must be seconds from 0"),
        (b'{"timeout": Infinity}', "timeout must be seconds from 0"),
        (b'{"timeout": true}', "timeout must be seconds from 0"),
        (b'{"delay": 1e300}', "delay must be seconds from 0"),
        (b'{"tries": 1.5}', "tries must be a whole number"),
        (b'{"tries": -1}', "tries must be a whole number"),
        (b'{"priority": 1e3}', "priority must be a whole number"),
        (b'{"priority": null}', "priority must be a whole number"),
        (b'{"key": ""}', "key must be 1 to 256 characters"),
        (b'{"key": 7}', "key must be 1 to 256 characters"),
        (b'{"key": "' + b"k" * 257 + b'"}', "key must be 1 to 256 characters"),
        (b'{"cancel": true}', "cancel needs the key of a task"),
        (b'{"cancel": 1, "key": "k"}', "cancel must be true or false"),
        (b'{"id": "' + b"i" * 33 + b'"}', "id must be text of up to 32 characters"),
        (b'{"id": 1}', "id must be text of up to 32 characters"),
        (b'{"progress": 1}', "progress must be true or false"),
        (b'{"queue": ""}', "queue must be a name of 1 to 128 of the characters"),
        (b'{"queue": "' + b"q" * 129 + b'"}', "queue must be a name of 1 to 128"),
        (b'{"queue": "a b"}', "queue must be a name of 1 to 128"),
        (b'{"queue": "a\\n"}', "queue must be a name of 1 to 128"),
        (b'{"queue": "\xc3\xbc"}', "queue must be a name of 1 to 128"),
        (b'{"queue": 1}', "queue must be a name of 1 to 128"),
        (b'{"queue": ["a"]}', "queue must be a name of 1 to 128"),
        (b'{"queue": null}', "queue must be a name of 1 to 128"),
        (b'{"group": ""}', "group must be text of 1 to 64 characters"),
        (b'{"group": "' + b"g" * 65 + b'"}', "group must be text of 1 to 64 characters"),
        (b'{"group": 1}', "group must be text of 1 to 64 characters"),
        (b'{"expires": 0}', "expires must be seconds above 0"),
        (b'{"expires": 2e9}', "expires must be seconds above 0"),
        (b'{"expires": true}', "expires must be seconds above 0"),
        (b'{"expires": 2, "delay": 2}', "expires must be more than delay: both are seconds from the acceptance"),
        (b'{"delay": 3.5, "expires": 3}', "expires must be more than delay"),
        (b'{"retry_delay": -1}', "retry_delay must be seconds from 0"),
        (b'{"retry_delay": "1"}', "retry_delay must be seconds from 0"),
        (b'{"retry_factor": 0.99}', "retry_factor must be a number from 1 to 1000"),
        (b'{"retry_factor": 1001}', "retry_factor must be a number from 1 to 1000"),
        (b'{"retry_factor": NaN}', "retry_factor must be a number from 1 to 1000"),
        (b'{"retry_factor": true}', "retry_factor must be a number from 1 to 1000"),
        (b'{"retry_most": 1e10}', "retry_most must be seconds from 0"),
        (b'{"durable": 1, "key": "k"}', "durable must be true or false"),
        (b'{"detach": null, "key": "k"}', "detach must be true or false"),
        (b'{"body": 0, "key": "k", "fetch": 0}', "body must be true or false"),
        (b'{"forget": "yes", "key": "k"}', "forget must be true or false"),
        (b'{"fetch": true, "key": "k"}', "fetch must be seconds from 0"),
        (b'{"fetch": -1, "key": "k"}', "fetch must be seconds from 0"),
        (b'{"keep": 0, "key": "k", "detach": true}', "keep must be seconds above 0"),
        (b'{"keep": 5, "key": "k"}', "keep goes with detach or durable"),
        (b'{"keep": 5, "key": "k", "durable": false}', "keep goes with detach or durable"),
        (b'{"durable": true}', "durable needs the key of a task"),
        (b'{"detach": true}', "detach needs the key of a task"),
        (b'{"fetch": 0}', "fetch needs the key of a task"),
        (b'{"forget": true}', "forget needs the key of a task"),
        (b'{"fetch": 0, "key": "k", "detach": true}', "fetch is about a task that there is already, and .* no detach"),
        (b'{"cancel": true, "key": "k", "durable": true}', "cancel is about a task .* no durable"),
        (b'{"cancel": true, "key": "k", "fetch": 0}', "cancel goes with no fetch"),
        (b'{"cancel": true, "key": "k", "forget": true}', "cancel goes with no forget"),
        (b'{"body": false, "key": "k", "forget": true}', "body goes with fetch"),
    ],
)
def test_a_bad_header_says_which_field_is_wrong(text: bytes, reason: str):
    with pytest.raises(wire.MalformedError, match=f"a bad header: .*({reason})") as raised:
        parse_header(text)
    assert raised.value.envelope == [b"id", b"hop"]
    assert raised.value.header is not None


@pytest.mark.parametrize(
    ("queues", "read"),
    [
        (["gpu"], ("gpu",)),
        (("gpu", "default"), ("gpu", "default")),
        (["b", "a", "b"], ("b", "a")),
        ([str(number) for number in range(64)], tuple(map(str, range(64)))),
    ],
)
def test_a_list_of_queues_names_each_once_in_order(queues: Any, read: tuple[str, ...]):
    assert wire.queue_list(queues) == read


@pytest.mark.parametrize("queues", ["gpu", b"gpu", None, 1, [], (), {"gpu"}, ["q"] * 65, [""], ["a b"], [1], [["gpu"]]])
def test_what_is_no_list_of_queues_is_refused(queues: Any):
    with pytest.raises(ValueError, match=r"^(queues must be a list of 1 to 64 names|a queue has a name of 1 to 128)"):
        wire.queue_list(queues)


def test_a_bad_header_is_answered_with_its_key_and_its_id():
    with pytest.raises(wire.MalformedError) as raised:
        parse_header(b'{"key": "k", "tries": "many", "id": "i"}')
    assert raised.value.header == wire.Header(key="k", id="i")
    with pytest.raises(wire.MalformedError) as raised:
        parse_header(b'{"key": 1, "id": "i"}')
    assert raised.value.header == wire.Header(id="i")


def test_the_header_of_a_reply_is_what_a_client_reads():
    for key in (None, "k", '\u20ac"\\'):
        header = wire.reply_header(key, "done", 2, "")
        assert wire.parse_reply([header, b"", b"a", b"b"]) == wire.Reply(key, "done", 2, "", [b"a", b"b"])
    header = wire.reply_header("k", "failed", 3, 'no "luck"')
    assert wire.parse_reply([header, b"", b""]) == wire.Reply("k", "failed", 3, 'no "luck"', [b""])


@pytest.mark.parametrize("key", [None, "k", r"a\b", "\u20ac"])
@pytest.mark.parametrize("number", [None, 7, 10**18])
@pytest.mark.parametrize("id", [None, "", 'i"'])
@pytest.mark.parametrize("status", [wire.DONE, wire.FAILED, wire.PROGRESS, wire.ACCEPTED, wire.UNKNOWN, "waiting"])
def test_a_reply_tells_the_number_of_its_task_and_the_id_of_its_request(
    key: str | None, number: int | None, id: str | None, status: str
):
    header = wire.reply_header(key, status, 2, "", number, id)
    assert wire.parse_reply([header, b"", b"a"]) == wire.Reply(key, status, 2, "", [b"a"], number, id)
    assert (b"reason" in header) == (status in (wire.FAILED, wire.UNKNOWN))


@pytest.mark.parametrize("worker", [None, "", 'laptop "one" (host:7)'])
def test_a_reply_tells_which_worker_had_the_task(worker: str | None):
    for status in (wire.DONE, wire.FAILED):
        reply = wire.parse_reply([wire.reply_header("k", status, 1, "", 7, worker=worker), b"", b"a"])
        assert (reply.status, reply.worker) == (status, worker)


def test_progress_is_the_json_object_of_a_reply():
    assert wire.parse_progress([b'{"done": 1, "total": null}']) == {"done": 1, "total": None}
    for body in (b"", b"[1]", b"\xff", b"{", b"[" * 4000):
        with pytest.raises(wire.MalformedError, match="a progress that cannot be read"):
            wire.parse_progress([body])


def test_a_reply_with_a_long_reason_is_read_as_well():
    reason = "\u00e9" * wire.LONGEST_REASON
    header = wire.reply_header("k" * wire.LONGEST_KEY, "failed", 1, reason)
    assert len(header) > wire.LARGEST_HEADER
    assert wire.parse_reply([header, b"", b""]).reason == reason


def test_a_field_of_a_reply_that_a_client_does_not_know_is_ignored():
    header = b'ZB1 {"status": "done", "attempts": 1, "colour": "red"}'
    assert wire.parse_reply([header, b"", b"a"]) == wire.Reply(None, "done", 1, "", [b"a"])


DONE_HEADER = wire.reply_header("k", wire.DONE, 1, "", 1)


@pytest.mark.parametrize(
    "message",
    [
        [b""],
        [b"", b""],
        [b"ZB1 {}", b"", b"x"],
        [b"ZB1 x", b"", b"x"],
        [b"ZB1 {}"],
        [DONE_HEADER],
        [DONE_HEADER, b""],
        [DONE_HEADER, b"x", b"x"],
        [b'ZB1 {"status": "done", "attempts": 1, "number": "1"}', b"", b"x"],
        [b'ZB1 {"status": "done", "attempts": 1, "id": 1}', b"", b"x"],
    ],
)
def test_a_reply_that_cannot_be_read_is_malformed(message: list[bytes]):
    with pytest.raises(wire.MalformedError, match="a reply that cannot be read"):
        wire.parse_reply(message)


def test_a_request_and_its_header_go_there_and_back():
    message = wire.request_message([b"a", b"b"], "k", wire.more_fields({"tries": 1}))
    assert wire.parse_request([b"id", *message]) == ([b"id"], [b"a", b"b"], wire.Header(key="k", tries=1))
    message = wire.request_message([b"a"], "k", wire.more_fields({"fetch": 5}), "7")
    assert wire.parse_request([b"id", *message]) == ([b"id"], [b"a"], wire.Header(key="k", id="7", fetch=5))


@pytest.mark.parametrize("name", [wire.FAIL, wire.REJECT, wire.RELEASE, wire.TOUCH])
def test_what_a_worker_says_of_an_attempt_is_read(name: bytes):
    message = [b"", name, b"attempt", *([] if name == wire.RELEASE else [b"2.5"])]
    assert wire.is_verb(message)
    assert wire.parse_verb(message)[:2] == (name, b"attempt")


def test_messages_to_workers_and_clients():
    assert wire.task_message([b"id", b"hop"], b"attempt", [b"a", b"b"]) == [b"id", b"hop", b"", b"attempt", b"a", b"b"]
    assert wire.reply_message([b"id"], [b"a", b"b"]) == [b"id", b"", b"a", b"b"]
    assert wire.reply_message([b"id"], []) == [b"id", b"", b""]


@pytest.mark.parametrize("key", [None, "key", 'a "quoted" \\ \x1b\u202e\U0001f9f9 one'])
@pytest.mark.parametrize("timeout", [None, 3, 0.1, 1e-7, 1e9, 2.5])
def test_the_header_of_a_task_is_json(key: str | None, timeout: float | None):
    fields = {"number": 7, "key": key, "queue": "a/b.c_D-1", "attempt": 2, "tries": 0, "timeout": timeout}
    assert task_header(7, key, "a/b.c_D-1", 2, 0, timeout) == b"ZB1 " + json.dumps(fields).encode()


@pytest.mark.parametrize("key", ["k", "0123456789abcdef-17", "two words, {braces} and 'quotes'", "k" * 256])
def test_a_header_with_only_a_key_is_the_same_however_it_is_written(key: str):
    usual = wire.parse_request([b"id", b'ZB1 {"key": "%s"}' % key.encode(), b"", b"body"])
    other = wire.parse_request([b"id", b'ZB1 {"key":"%s"}' % key.encode(), b"", b"body"])
    assert usual == other == ([b"id"], [b"body"], wire.Header(key))
    assert type(usual[2]) is wire.OnlyKey
    assert type(other[2]) is wire.Header


@pytest.mark.parametrize("key", ["two words, {braces} and 'quotes'", "k" * 256])
def test_the_header_of_a_usual_reply_is_what_any_reply_would_have(key: str):
    assert wire.done_header(key, 2, 17) == wire.reply_header(key, wire.DONE, 2, "", 17)
