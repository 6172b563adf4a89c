"""What a broker's answers must look like for all that is done with them here: the fields that are used, and no others.

A newer broker may tell more. Who answers otherwise is no broker of this version, and is told of as one that does not
answer: nothing behind this looks again. All that is named here was told by the first release; what only later brokers
tell is not to be asked for here, and to be done without where it is not there.
"""

from collections.abc import Callable
from typing import Any

LARGEST = 2.0**63  # of numbers; what is not finite is no number either

Fits = Callable[[Any], bool]


def fits(ask: str, answer: dict[str, Any]) -> bool:
    """Tell whether an answer is one to what is asked for."""
    return ANSWERS[ask](answer)


def _text(value: Any) -> bool:
    """Any text: half a pair of surrogates too, in keys and labels."""
    return isinstance(value, str)


def _name(value: Any) -> bool:
    """Text that can be a label of metrics."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST < value < LARGEST


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _maybe(fit: Fits) -> Fits:
    return lambda value: value is None or fit(value)


def _list(fit: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(map(fit, value))


def _table(fit: Fits) -> Fits:
    """Return what fits an object of any names."""
    return lambda value: isinstance(value, dict) and all(map(_name, value)) and all(map(fit, value.values()))


def _object(**fields: Fits) -> Fits:
    return lambda value: (
        isinstance(value, dict) and all(name in value and fit(value[name]) for name, fit in fields.items())
    )


def _all(*fits: Fits) -> Fits:
    return lambda value: all(fit(value) for fit in fits)


def _counts(*names: str) -> dict[str, Fits]:
    return dict.fromkeys(names, _count)


def _page(name: str, fit: Fits) -> Fits:
    return _object(**{name: _list(fit)}, total=_count, cursor=_maybe(_count))


def _has_buckets(times: dict[str, Any], where: dict[str, Any]) -> bool:
    """Tell whether there is a bucket below each of the bounds that are told of there, and one more."""
    return len(times["counts"]) == len(where["bounds"]) + 1


TIMES = _object(counts=_list(_count), seconds=_number)
QUEUE = _object(
    name=_name,
    **_counts("waiting", "delayed", "running", "workers", "accepted", "done", "failed", "cancelled", "expired"),
    oldest=_maybe(_number),
    limit=_maybe(_count),
    limit_waiting=_maybe(_count),
    paused=_flag,
    attempts=_object(**_counts("result", "fail", "reject", "release", "timeout", "lost")),
    waited=TIMES,
    ran=TIMES,
)
TASK = _object(
    **_counts("number", "attempts", "tries"),
    key=_maybe(_text),
    owner=_maybe(_text),
    queue=_name,
    state=_text,
    age=_number,
    since=_number,
    worker=_maybe(_text),
)
WORKER = _object(
    owner=_maybe(_text),
    label=_maybe(_text),
    host=_maybe(_text),
    pid=_maybe(_number),
    address=_text,
    queues=_list(_name),
    held=_count,
    task=_maybe(TASK),
    since=_maybe(_number),
    done=_maybe(_count),
    failed=_maybe(_count),
)
END = _object(  # of a task that is settled
    **_counts("number", "attempts"), key=_maybe(_text), queue=_name, status=_text, reason=_text, worker=_text
)
SOCKET = _object(**_counts("messages", "malformed"), connections=_maybe(_count))
STORE = _all(
    _object(**_counts("bytes", "free", "floor", "failed"), refusing=_flag, commits=TIMES, bounds=_list(_number)),
    lambda store: _has_buckets(store["commits"], store),
)
STATUS = _object(
    version=_name,
    pid=_count,
    addresses=_object(requests=_name),
    uptime=_number,
    state=_text,
    memory=_maybe(_count),
    descriptors=_maybe(_count),
    open_to=_list(_text),
    refusals=_maybe(_object(total=_count)),
    busy=_number,
    longest_turn=_number,
    sockets=_table(SOCKET),
    **_counts("waiting", "delayed", "running", "workers", "idle", "unserved", "total_queues"),
    totals=_object(**_counts("accepted", "done", "failed", "late")),
    queues=_list(QUEUE),
    slowest=_list(TASK),
    failures=_list(END),
    store=_maybe(STORE),
)
QUEUES = _all(
    _object(bounds=_list(_number)),
    _page("queues", QUEUE),
    lambda answer: all(_has_buckets(queue[times], answer) for queue in answer["queues"] for times in ("waited", "ran")),
)
ANSWERS: dict[str, Fits] = {
    "status": STATUS,
    "queues": QUEUES,
    "workers": _page("workers", WORKER),
    "tasks": _page("tasks", TASK),
    "task": lambda answer: any(_object(**one)(answer) for one in ({"task": TASK}, {"stored": END}, {"failure": END})),
    "failures": _page("failures", END),
    "failed": _page("failed", END),
}
