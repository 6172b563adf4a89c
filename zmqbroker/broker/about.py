"""What the control socket tells of queues, workers, tasks and failures: see PROTOCOL.md, part 4.

Ages and spans are in seconds, rounded to milliseconds; None: there is none. Each takes a bounded number of steps.
"""

from itertools import islice
from typing import Any

from zmqbroker.broker.queues import Queue
from zmqbroker.broker.statistics import BOUNDS, Failure, Times
from zmqbroker.broker.store.gate import Store
from zmqbroker.broker.store.journal import Journal
from zmqbroker.broker.store.outcomes import FailedTask
from zmqbroker.broker.store.rows import StoredTask
from zmqbroker.broker.task import RUNNING, Task, Worker
from zmqbroker.wire import Frames

MOST_POOLS = 1000  # of a queue, whose workers are counted: there are so many only if their lists of queues all differ
MOST_SHOWN = 300  # bytes of a stored body

Answer = dict[str, Any]


def about_queue(queue: Queue, steps: int, now: float) -> Answer:
    """Tell of a queue; its oldest task is looked for in so many steps."""
    statistics, oldest = queue.statistics, queue.oldest(steps)
    pools = list(islice(queue.pools, MOST_POOLS))
    return {
        "name": queue.name,
        "waiting": queue.waiting,
        "delayed": queue.delayed,
        "running": queue.running,
        "oldest": None if oldest is None else round(now - oldest.accepted, 3),
        "workers": sum(pool.members for pool in pools),
        "idle": sum(pool.free.idle + pool.ahead.idle for pool in pools),
        "limit": queue.limit,
        "limit_waiting": queue.limit_waiting,
        "paused": queue.is_paused,
        "accepted": statistics.accepted,
        "done": statistics.done,
        "failed": statistics.failed,
        "cancelled": statistics.cancelled,
        "expired": statistics.expired,
        "attempts": {"result": statistics.done - statistics.overtaken, **statistics.endings},
        "late": statistics.late,
        "waited": _about_times(statistics.waited),
        "ran": _about_times(statistics.ran),
    }


def about_worker(worker: Worker, address: str, now: float) -> Answer:
    """Tell of a worker, whose connection comes from this address."""
    announce, record = worker.announce, worker.record
    attempt_id, first = next(iter(worker.held.items()), (b"", None))
    return {
        "owner": worker.owner,
        "label": announce.label if announce else None,
        "host": announce.host if announce else None,
        "pid": announce.pid if announce else None,
        "address": address,
        "queues": [queue.name for queue in worker.pool.queues],
        "asks": len(worker.slots),
        "held": len(worker.held),
        "task": None if first is None or not first.number else about_task(first, now),
        "since": None if first is None else round(now - _in_hand_since(worker, attempt_id, first), 3),
        "done": record.done if record else None,
        "failed": record.failed if record else None,
        "marks": record.marks if record else None,
        "held_back": None if record is None or not record.is_held_back else _left(record.due, now),
    }


def about_task(task: Task, now: float) -> Answer:
    """Tell of an unsettled task."""
    header = task.header
    running = task.status is RUNNING
    return {
        "number": task.number,
        "key": task.key,
        "owner": task.owner,
        "queue": task.queue.name,
        "group": task.group if isinstance(task.group, str) else None,
        "priority": header.priority if header else 0,
        "state": task.status,
        "age": round(now - task.accepted, 3),
        "since": round(now - task.since, 3),
        "attempts": task.attempts,
        "tries": task.tries,
        "worker": task.worker.name if running else None,
        "in_hand": running and task.charged == task.attempt_id,
        "due": _left(task.due, now),
        "bytes": sum(map(len, task.body)),
        "waiters": 1 + len(task.joined or ()),
        "reason": task.reason,
    }


def about_failure(failure: Failure, now: float) -> Answer:
    """Tell of a task that came to a bad end."""
    fields = failure._asdict()
    return fields | {"age": round(now - fields.pop("at"), 3)}


def about_failed(failed: FailedTask, now: float) -> Answer:
    """Tell of a stored task that has failed or expired."""
    state = failed.state
    return {
        "number": failed.number,
        "key": failed.key,
        "owner": failed.owner,
        "queue": failed.queue,
        "status": state.status,
        "reason": state.reason,
        "worker": state.worker,
        "attempts": state.attempts,
        "bytes": failed.size,
        "kept": round(failed.until - now, 3),
    }


def about_stored(stored: StoredTask, offset: float, now: float) -> Answer:
    """Tell of a stored task that is settled, with the beginning of its body where that was read."""
    request, body = stored.request, stored.body
    return about_failed(FailedTask.of(stored, offset), now) | {
        "group": request.group,
        "priority": request.priority,
        "age": round(now + offset - request.accepted, 3),
        "hand_outs": stored.state.hand_outs,
        "frames": None if body is None else len(body),
        "body": None if body is None else _beginning(body).decode(errors="backslashreplace"),
    }


def about_store(store: Store, journal: Journal) -> Answer:
    """Tell of the store."""
    outcomes = journal.outcomes
    return {
        "path": store.path,
        "bytes": store.size,
        "free": store.free,
        "floor": store.floor,
        "refusing": journal.is_low or journal.has_failed,
        "outcomes": len(outcomes),
        "failed": len(outcomes.failed),
        "dropped": outcomes.dropped,
        "damaged": len(journal.damaged),
        "commits": _about_times(store.commits),
        "bounds": BOUNDS,
    }


def _beginning(body: Frames) -> bytes:
    """Return the first bytes of a body, its frames in a row."""
    beginning = b""
    for frame in body:
        beginning += bytes(frame[: MOST_SHOWN - len(beginning)])  # type: ignore[index]  # frames can be sliced
    return beginning


def _about_times(times: Times) -> Answer:
    return {"counts": times.counts, "seconds": round(times.total, 6)}


def _in_hand_since(worker: Worker, attempt_id: bytes, task: Task) -> float:
    """Return since when a worker has had an attempt in hand, the first that it holds, which may be given up by now."""
    return task.since if task.attempt_id == attempt_id else worker.since


def _left(due: float | None, now: float) -> float | None:
    return None if due is None else round(due - now, 3)
