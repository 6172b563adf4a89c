"""The names of queues, as requests and announces have them."""

import re
from typing import Any

DEFAULT_QUEUE = "default"
LONGEST_QUEUE = 128  # characters
MOST_QUEUES = 64  # that one worker asks from
QUEUE_NAME = f"a name of 1 to {LONGEST_QUEUE} of the characters A-Z a-z 0-9 . _ / -"

_match = re.compile(rf"[A-Za-z0-9._/-]{{1,{LONGEST_QUEUE}}}").fullmatch


def is_queue(name: Any) -> bool:
    """Tell whether this names a queue."""
    return type(name) is str and _match(name) is not None


def queue_list(names: Any) -> tuple[str, ...]:
    """Return the queues that a worker asks from, each once; raises ValueError for what is no list of their names."""
    if not isinstance(names, (list, tuple)) or not 1 <= len(names) <= MOST_QUEUES:
        raise ValueError(f"queues must be a list of 1 to {MOST_QUEUES} names, not {names!r:.50}")
    for name in names:
        if not is_queue(name):
            raise ValueError(f"a queue has {QUEUE_NAME}, not {name!r:.50}")
    return tuple(dict.fromkeys(names))
