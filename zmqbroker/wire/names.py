"""The names of queues, as requests and announces have them."""

import re
from typing import Any

DEFAULT_QUEUE = "default"
LONGEST_QUEUE = 128  # characters
QUEUE_NAME = f"a name of 1 to {LONGEST_QUEUE} of the characters A-Z a-z 0-9 . _ / -"

_match = re.compile(rf"[A-Za-z0-9._/-]{{1,{LONGEST_QUEUE}}}").fullmatch


def is_queue(name: Any) -> bool:
    """Tell whether this names a queue."""
    return type(name) is str and _match(name) is not None
