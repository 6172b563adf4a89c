"""Looking through a broker's tasks for those that fit: each of its answers looks at some 2,000, and may have none."""

from collections.abc import Awaitable, Callable

from zmqbroker.web.asker import Answer
from zmqbroker.web.parameters import Value

MOST = 50  # things in a page, where nothing is said
MOST_ANSWERS = (
    20  # that are asked for to fill a page: some 40,000 tasks, each answer takes the broker a millisecond or two
)
LOOKED_THROUGH = ("tasks", "failed")  # what such answers are to

Ask = Callable[..., Awaitable[Answer]]


async def look_through(ask: Ask, what: str, fields: dict[str, Value]) -> Answer:
    """Return as many as are wanted, or all that there are, with None as the cursor.

    Fewer, or none, with another cursor: there are no others up to there, and perhaps some behind it.
    """
    most = int(fields.get("most", MOST))
    answer = await ask(what, **fields)
    found = answer[what]
    for _ in range(MOST_ANSWERS - 1):
        if len(found) >= most or answer["cursor"] is None:
            break
        answer = await ask(what, **fields | {"after": answer["cursor"], "most": most - len(found)})
        found = found + answer[what]  # not in place: others may have got that answer too
    return answer | {what: found}
