"""What travels: frames to messages and back, for all roles. PROTOCOL.md, as code.

Nothing here knows a socket or a clock. `parse_...` functions take a message as it was received and raise
`MalformedError` when it fits no rule; `..._message` functions build one to send.
"""

from zmqbroker.wire.frames import (
    EMPTY,
    LARGEST_ENVELOPE,
    LONGEST_REASON,
    LONGEST_SPAN,
    MOST_FRAMES,
    Frames,
    MalformedError,
    head,
    is_same,
    plain,
)
from zmqbroker.wire.header import HEADER, LARGEST_HEADER
from zmqbroker.wire.requests import (
    CANCELLED,
    DONE,
    FAILED,
    INVALID,
    LARGEST_COUNT,
    LONGEST_KEY,
    Header,
    MalformedRequestError,
    Reply,
    check_fields,
    more_fields,
    parse_reply,
    parse_request,
    parse_start,
    reply_header,
    reply_message,
    request_message,
)
from zmqbroker.wire.results import FAIL, REJECT, RELEASE, TOUCH, Verb, is_verb, parse_verb, result_message, verb_message
from zmqbroker.wire.tasks import parse_ready, parse_task, task_message

__all__ = [
    "CANCELLED",
    "DONE",
    "EMPTY",
    "FAIL",
    "FAILED",
    "HEADER",
    "INVALID",
    "LARGEST_COUNT",
    "LARGEST_ENVELOPE",
    "LARGEST_HEADER",
    "LONGEST_KEY",
    "LONGEST_REASON",
    "LONGEST_SPAN",
    "MOST_FRAMES",
    "REJECT",
    "RELEASE",
    "TOUCH",
    "Frames",
    "Header",
    "MalformedError",
    "MalformedRequestError",
    "Reply",
    "Verb",
    "check_fields",
    "head",
    "is_same",
    "is_verb",
    "more_fields",
    "parse_ready",
    "parse_reply",
    "parse_request",
    "parse_start",
    "parse_task",
    "parse_verb",
    "plain",
    "reply_header",
    "reply_message",
    "request_message",
    "result_message",
    "task_message",
    "verb_message",
]
