"""Search in all queues or workers of a broker: those that fit, in an order, a page of them."""

from collections.abc import Callable
from typing import Any

from zmqbroker.web.asker import Answer
from zmqbroker.web.parameters import ParameterError, Value

MOST = 100  # in a page
SORTS: dict[str, dict[str, Callable[[Answer], Any]]] = {  # by what is sorted, and how; the first where nothing is said
    "queues": {
        "trouble": lambda queue: (-_is_unserved(queue), -_unsettled(queue), queue["name"]),
        "name": lambda queue: queue["name"],
        "waiting": lambda queue: (-queue["waiting"], queue["name"]),
        "running": lambda queue: (-queue["running"], queue["name"]),
        "oldest": lambda queue: (-(queue["oldest"] or 0.0), queue["name"]),
        "failed": lambda queue: (-queue["failed"], queue["name"]),
    },
    "workers": {
        "trouble": lambda worker: (worker["held_back"] is None, -(worker["since"] or 0.0), _name(worker)),
        "longest": lambda worker: (-(worker["since"] or 0.0), _name(worker)),
        "name": lambda worker: _name(worker),
        "failed": lambda worker: (-(worker["failed"] or 0), _name(worker)),
    },
}


def search(what: str, things: list[Answer], fields: dict[str, Value]) -> Answer:
    """Return a page of those things that have the text `find` in them, sorted; raises ParameterError."""
    sorts = SORTS[what]
    key = sorts.get(str(fields.get("sort", next(iter(sorts)))))
    if key is None:
        raise ParameterError(f"sort must be one of {', '.join(sorts)}")
    after, most = int(fields.get("after", 0)), int(fields.get("most", MOST))
    if not 1 <= most <= MOST:
        raise ParameterError(f"most must be from 1 to {MOST}")
    find = str(fields.get("find", "")).casefold()
    words = _words_of_queue if what == "queues" else _words_of_worker
    found = sorted((thing for thing in things if find in words(thing).casefold()), key=key)
    cursor = after + most if after + most < len(found) else None
    return {what: found[after : after + most], "total": len(things), "found": len(found), "cursor": cursor}


def _is_unserved(queue: Answer) -> bool:
    return bool(queue["waiting"] and not queue["workers"])


def _unsettled(queue: Answer) -> int:
    return int(queue["waiting"] + queue["delayed"] + queue["running"])


def _name(worker: Answer) -> str:
    return f"{worker['label'] or ''} ({worker['host'] or ''}:{worker['pid'] or ''}) {worker['address']}"


def _words_of_queue(queue: Answer) -> str:
    return str(queue["name"])


def _words_of_worker(worker: Answer) -> str:
    return "\n".join([_name(worker), worker["owner"] or "", *worker["queues"]])
