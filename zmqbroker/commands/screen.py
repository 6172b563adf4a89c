"""What `zmqbroker status` shows of a broker: one screen, however much there is."""

from collections.abc import Sequence
from typing import NamedTuple

from zmqbroker.commands import queues, workers
from zmqbroker.commands.asking import Answer
from zmqbroker.commands.tables import (
    NONE,
    RED,
    YELLOW,
    Column,
    Page,
    Row,
    counted,
    cut,
    number,
    short,
    size,
    span,
    squeeze,
)

MOST_COUNTED = 1000  # queues that no worker asks from: a broker looks for no more
NEAR_FLOOR = 2  # times the floor of a store; with less room on its disk something is to be done
SLOWEST = (
    Column("RUNNING", is_number=True),
    Column("KEY", cut_by=squeeze),
    Column("QUEUE", cut_by=squeeze),
    Column("ATTEMPT", is_number=True),
    Column("FOR", is_number=True),
    Column("WORKER", cut_by=squeeze),
)
FAILURES = (
    Column("FAILED", is_number=True),
    Column("QUEUE", cut_by=squeeze),
    Column("AGO", is_number=True),
    Column("ATTEMPTS", is_number=True),
    Column("REASON", cut_by=cut),
)
REFUSALS = (
    Column("REFUSED", is_number=True),
    Column("AT"),
    Column("AGO", is_number=True),
    Column("ADDRESS", cut_by=squeeze),
    Column("KEY", cut_by=cut),
    Column("REASON", cut_by=cut),
)


class Section(NamedTuple):
    """A table of the screen, of which as many rows are shown as there is room for."""

    columns: Sequence[Column]
    rows: list[Row]
    total: int  # rows that there are in all


def is_healthy(status: Answer) -> bool:
    """Tell whether there are workers for all queues where tasks wait, and room for what is to be stored."""
    return not status["unserved"] and not _is_disk_low(status.get("store"))


def _is_disk_low(store: Answer | None) -> bool:
    """Tell whether new tasks are not stored, or soon will not be; None: there is no store."""
    return store is not None and (store["refusing"] or store["free"] < NEAR_FLOOR * store["floor"])


def picture(page: Page, status: Answer, found: Answer, before: Answer | None, height: int) -> list[str]:
    """Return the lines that show a broker, by its answers to `status` and `workers`; `before` is an earlier status."""
    lines = [*_head(page, status, before), *_alarms(page, status)]
    sections = [
        Section(queues.COLUMNS, [queues.queue_row(queue) for queue in status["queues"]], status["total_queues"]),
        Section(workers.COLUMNS, [workers.worker_row(worker) for worker in found["workers"]], found["total"]),
        Section(SLOWEST, [_slow_row(task) for task in status["slowest"]], len(status["slowest"])),
        Section(FAILURES, [_failure_row(failure) for failure in status["failures"]], len(status["failures"])),
        _refusals(status),
    ]
    sections = [section for section in sections if section.rows]
    room = height - len(lines) - 2 * len(sections)
    for section, shown in zip(sections, shares(room, [len(section.rows) for section in sections]), strict=True):
        if shown:
            lines += ["", *page.table(_titled(section, shown), section.rows[:shown], page.width)]
    return lines[:height]


def shares(room: int, wanted: list[int]) -> list[int]:
    """Divide so many lines among those who want some: to each the same, and what one leaves to the others."""
    given = [0] * len(wanted)
    while room > 0 and given != wanted:
        for place, want in enumerate(wanted):
            if room > 0 and given[place] < want:
                given[place] += 1
                room -= 1
    return given


def several(page: Page, statuses: list[tuple[str, Answer | None]]) -> list[str]:
    """Return the lines that list brokers, each with its address; None: it does not answer."""
    columns = (
        Column("BROKER", cut_by=squeeze),
        Column("REQUESTS", cut_by=squeeze),
        Column("STATE"),
        *(Column(name.upper(), is_number=True) for name in ("waiting", "running", "workers")),
    )
    rows = []
    for address, status in statuses:
        if status is None:
            rows.append(Row([address, NONE, "no answer", NONE, NONE, NONE], RED))
            continue
        counts = [number(status[name]) for name in ("waiting", "running", "workers")]
        style = "" if is_healthy(status) else RED
        rows.append(Row([address, status["addresses"]["requests"], status["state"], *counts], style))
    return page.listing(columns, rows)


def _head(page: Page, status: Answer, before: Answer | None) -> list[str]:
    totals = status["totals"]
    is_draining = status["state"] == "draining"
    who = f"zmqbroker {status['version']}, process {status['pid']}, {status['state']}, up {span(status['uptime'])}"
    where = "  ".join(f"{name} {status['addresses'][name]}" for name in ("requests", "ready", "results"))
    tasks = ", ".join(f"{number(status[name])} {name}" for name in ("waiting", "delayed", "running"))
    at_work = f"{counted(status['workers'], 'worker', 'workers')}, {number(status['idle'])} idle"
    settled = [f"{number(totals[name])} {name}" for name in ("done", "failed", "cancelled", "expired")]
    settled[0] += _rate(status, before)
    odd = ", ".join(f"{number(totals[name])} {name}" for name in ("retried", "late"))
    return [
        page.line(who, YELLOW if is_draining else ""),
        page.line(where),
        page.line(f"{tasks}; {at_work}"),
        page.line(f"{', '.join(settled)}; {odd}"),
        page.line(_loop(status, before)),
        page.line(f"messages: {', '.join(_came(where, came) for where, came in status['sockets'].items())}"),
        *([] if status.get("store") is None else _store(page, status["store"])),
    ]


def _store(page: Page, store: Answer) -> list[str]:
    """Return the lines that tell of a store."""
    room = f": {size(store['bytes'])}, {size(store['free'])} free (floor {size(store['floor'])})"
    odd = "".join(f", {number(store[name])} {name}" for name in ("dropped", "damaged") if store[name])
    kept = f"{counted(store['outcomes'], 'outcome', 'outcomes')}, {number(store['failed'])} failed{odd}"
    counts = store["commits"]["counts"]
    times = "".join(f", p{share} {_within(share / 100, counts, store['bounds'])}" for share in (50, 99))
    commits = f"{counted(sum(counts), 'commit', 'commits')}{times if sum(counts) else ''}"
    path = squeeze(page.escape(store["path"]), page.width - len(f"store {room}"))
    return [page.line(f"store {path}{room}"), page.line(f"stored: {kept}; {commits}")]


def _within(share: float, counts: list[int], bounds: list[float]) -> str:
    """Return in what time so large a share of what was counted was done, as far as the buckets tell."""
    for place, bound in enumerate(bounds):
        if sum(counts[: place + 1]) >= share * sum(counts):
            return f"< {1000 * bound:.3g} ms" if bound < 1 else f"< {span(bound)}"
    return f"> {span(bounds[-1])}"


def _alarms(page: Page, status: Answer) -> list[str]:
    """Return the lines that say what is wrong, if something is."""
    return [page.line(text, RED) for text in (_unserved(status), _low(status.get("store")), _open(status)) if text]


def _unserved(status: Answer) -> str:
    """Say that tasks wait in vain; empty: none do."""
    if not status["unserved"]:
        return ""
    where = counted(status["unserved"], "queue that no worker asks", "queues that no worker asks")
    least = "at least " if status["unserved"] == MOST_COUNTED else ""
    return f"tasks wait in {least}{where} from"


def _low(store: Answer | None) -> str:
    """Say that the disk of the store is full, or nearly; empty: it is not."""
    if store is None or not _is_disk_low(store):
        return ""
    free, floor = size(store["free"]), size(store["floor"])
    if store["refusing"]:
        return f"new tasks are not stored: {free} are free on the store's disk, the floor is {floor}"
    return f"the store's disk is nearly full: {free} are free, and below {floor} new tasks are not stored"


def _open(status: Answer) -> str:
    """Say where anybody may come in, who reaches this machine; empty: nowhere."""
    where = ", ".join(status.get("open_to") or ())
    return where and f"no identities are needed at {where}: whoever reaches that may do anything"


def _rate(status: Answer, before: Answer | None) -> str:
    """Return how many tasks were done in a second since an earlier status of the same broker."""
    if before is None or not _is_later(status, before):
        return ""
    done = status["totals"]["done"] - before["totals"]["done"]
    return f" ({done / (status['uptime'] - before['uptime']):,.0f}/s)"


def _is_later(status: Answer, before: Answer) -> bool:
    """Tell whether both are of the same broker, and this is the later one."""
    return bool(before["pid"] == status["pid"] and before["uptime"] < status["uptime"])


def _loop(status: Answer, before: Answer | None) -> str:
    """Say how busy the loop is, since an earlier status of the same broker or since its start, and what it uses."""
    busy, uptime = status["busy"], status["uptime"]
    if before is not None and _is_later(status, before):
        busy, uptime = busy - before["busy"], uptime - before["uptime"]
    share = min(busy / uptime, 1.0) if uptime else 0.0
    longest = f"longest turn {1000 * status['longest_turn']:,.1f} ms"
    connections = sum(came["connections"] or 0 for came in status["sockets"].values())
    used = f"{size(status['memory'])}, {number(status['descriptors'])} descriptors, {number(connections)} connected"
    return f"busy {share:.0%}, {longest}; {used}"


def _came(where: str, came: Answer) -> str:
    """Say how many messages have come to a socket."""
    malformed = f" ({short(came['malformed'])} malformed)" if came["malformed"] else ""
    return f"{short(came['messages'])} {where}{malformed}"


def _titled(section: Section, shown: int) -> list[Column]:
    """Return the columns, of which the last one says how many rows there are besides those shown."""
    *others, last = section.columns
    if shown < section.total and not last.title:
        last = last._replace(title=f"{shown} of {section.total:,}")
    return [*others, last]


def _refusals(status: Answer) -> Section:
    refusals = status.get("refusals") or {"last": []}
    return Section(REFUSALS, [_refusal_row(one) for one in refusals["last"]], len(refusals["last"]))


def _refusal_row(one: Answer) -> Row:
    key, why = one["key"] or NONE, one["reason"]
    return Row([number(one["count"]), one["where"], span(one["age"]), one["address"], key, why])


def _slow_row(task: Answer) -> Row:
    attempt = f"{task['attempts']} of {task['tries']}" if task["tries"] else str(task["attempts"])
    name = task["worker"] or NONE
    return Row([str(task["number"]), task["key"] or NONE, task["queue"], attempt, span(task["since"]), name])


def _failure_row(failure: Answer) -> Row:
    reason = failure["reason"] if failure["status"] == "failed" else f"{failure['status']}: {failure['reason']}"
    where = f"{reason} ({failure['worker']})" if failure["worker"] else reason
    return Row([str(failure["number"]), failure["queue"], span(failure["age"]), str(failure["attempts"]), where])
