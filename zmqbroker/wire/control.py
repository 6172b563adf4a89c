"""What is asked of the control socket, and what it answers: one JSON object each.

A question has `ask`, what is asked for, and what belongs to it. An answer has `ok`: true, and what was asked for; or
false, and `error`, which says why not. A question of ours has a header, by which a broker knows at its other sockets
that this is no request, nor a worker.
"""

import json
from collections.abc import Sized
from typing import Any

from zmqbroker.wire.frames import EMPTY, Frames, MalformedError, head, is_large_envelope
from zmqbroker.wire.header import CLIENTS_BELONG, HEADER, ROLE, WORKER, WORKERS_BELONG, read_fields
from zmqbroker.wire.requests import INVALID, named, reply_header, reply_message

CONTROL = 1  # the version of questions and answers
VERSION = "zmqbroker"  # the field that has it
LARGEST_QUESTION = 16384  # bytes
CONTROL_ROLE = "control"  # in the header of a question
PLACE = "CONTROL"  # what this socket is called where somebody has come who belongs elsewhere
ASKER = HEADER + b'{"role": "control"}'

write = json.JSONEncoder(separators=(",", ":")).encode


# What the broker receives and sends


class QuestionError(MalformedError):
    """A question that cannot be answered, and the message by which that is said."""

    def __init__(self, text: str, envelope: Frames, answer: Frames | None = None) -> None:
        super().__init__(text)
        self.answer = answer or error_message(envelope, text)


def parse_question(message: Frames) -> tuple[Frames, dict[str, Any]]:
    """Split what a ROUTER receives into the envelope and the question.

    Raises QuestionError for what is none, MalformedError where there is nobody to tell.
    """
    if EMPTY not in message or is_large_envelope(message[: message.index(EMPTY)]):
        raise MalformedError("a question without an empty frame, or with an envelope that is too large")
    empty = message.index(EMPTY)
    envelope, frames = message[:empty], message[empty + 1 :]
    if empty > 1 and head(envelope[-1], len(HEADER)) == HEADER:
        _refuse_others(envelope)
    if len(frames) != 1:
        raise QuestionError("a question is one frame", envelope)
    return envelope, _fields(frames[0], envelope)


def _refuse_others(envelope: Frames) -> None:
    """Raise QuestionError for a header of a client or a worker, which has come to the wrong address."""
    try:
        fields = read_fields(envelope[-1])
    except ValueError:
        fields = {}
    role = fields.get(ROLE)
    if role == CONTROL_ROLE:
        return
    named_fields = named(fields)
    text = f"this is the address for control: {WORKERS_BELONG if role == WORKER else CLIENTS_BELONG}"
    about = reply_header(named_fields.key, INVALID, 0, text, None, named_fields.id, PLACE)
    raise QuestionError(text, envelope, reply_message([*envelope[:-1], about], []))


def _fields(question: Sized, envelope: Frames) -> dict[str, Any]:
    if len(question) > LARGEST_QUESTION:
        raise QuestionError(f"a question has at most {LARGEST_QUESTION} bytes", envelope)
    try:
        fields = json.loads(bytes(question))  # type: ignore[call-overload]  # any frame has a buffer
    except (ValueError, RecursionError):
        raise QuestionError("a question is JSON, and this is not", envelope) from None
    if not isinstance(fields, dict):
        raise QuestionError("a question is a JSON object, and this is none", envelope)
    if any(isinstance(value, (dict, list)) for value in fields.values()):
        raise QuestionError("no field of a question is an object or an array", envelope)
    if type(fields.get(VERSION)) is not int or fields[VERSION] != CONTROL:
        raise QuestionError(f"{VERSION} must be {CONTROL}, the version of this control socket", envelope)
    return fields


def answer_message(envelope: Frames, fields: dict[str, Any]) -> Frames:
    """Build an answer."""
    return [*envelope, EMPTY, write({VERSION: CONTROL, "ok": True} | fields).encode()]


def error_message(envelope: Frames, text: str) -> Frames:
    """Build the answer to what cannot be answered, or done."""
    return [*envelope, EMPTY, write({VERSION: CONTROL, "ok": False, "error": text}).encode()]


# What is sent to it, and received


class ControlError(Exception):
    """What was asked for was refused."""


def question_message(id: bytes, ask: str, **fields: Any) -> list[bytes]:
    """Build a question, for a DEALER; `id` is in the answer."""
    return [id, ASKER, EMPTY, write({VERSION: CONTROL, "ask": ask} | fields).encode()]


def parse_answer(message: list[bytes]) -> tuple[bytes, dict[str, Any]]:
    """Return the id and the fields of an answer.

    Raises ControlError for what was refused, MalformedError for what is no answer, and says what answers instead.
    """
    try:
        id, header, empty, answer = message
        status = read_fields(header).get("status")
    except ValueError:
        raise MalformedError("what answers is no control socket") from None
    if status is not None:
        at = str(read_fields(header).get("at") or "REQUESTS")
        raise MalformedError(f"this is the address for {at} of a broker, and not its control socket")
    try:
        fields = json.loads(answer)
        is_answer = empty == EMPTY and isinstance(fields, dict) and fields.get(VERSION) == CONTROL
    except (ValueError, RecursionError):
        is_answer = False
    if not is_answer:
        raise MalformedError(f"what answers is no control socket of version {CONTROL}")
    if fields.get("ok") is not True:
        raise ControlError(str(fields.get("error")))
    return id, fields
