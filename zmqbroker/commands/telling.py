"""What is said on stderr of tasks that have no result: each is one line, whatever names and reasons hold. Pure."""

from collections.abc import Sequence

from zmqbroker.client.futures import TaskFailed
from zmqbroker.commands.takers import Item, Outcome
from zmqbroker.transport.limited_log import printable


def failure(outcome: Outcome) -> str:
    """Say why a task has no result, and which one it is in the broker's log."""
    place, error = outcome.item.place, outcome.result
    if isinstance(error, KeyError):
        why = "there is no such task, nor an outcome of one"
    elif not isinstance(error, TaskFailed):
        why = str(error)
    else:
        place = place if error.number is None else f"{place}, task {error.number}"
        why = error.reason
    return printable(f"{place}: {why}")


def left_behind(items: Sequence[Item], word: str) -> str:
    """Say what became of neighbours, one or more, that were left: `word`."""
    first, last = items[0].place, items[-1].place
    return printable(f"{first}: {word}" if len(items) == 1 else f"{first} to {last} ({len(items)}): {word}")
