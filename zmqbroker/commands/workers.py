"""`zmqbroker worker`: which workers there are, and what they are at."""

import argparse
from typing import Any

from zmqbroker.commands.asking import add_control, list_things
from zmqbroker.commands.tables import NONE, YELLOW, Column, Row, cut, short, span, squeeze

COLUMNS = (
    Column("WORKER", cut_by=squeeze),
    Column("OWNER", cut_by=squeeze, is_optional=True),
    Column("QUEUES", cut_by=squeeze),
    Column("HAS", is_number=True),
    Column("TASK", is_number=True),
    Column("FOR", is_number=True),
    Column("DONE", is_number=True),
    Column("FAILED", is_number=True),
    Column("", cut_by=cut),
)


def add_worker_list_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `worker list` takes."""
    add_control(parser)


def list_workers(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """List all workers; return the exit status."""
    return list_things(options, parser, "workers", COLUMNS, worker_row)


def worker_row(worker: dict[str, Any]) -> Row:
    """Return what a table says of a worker; a plain one has no name but its address."""
    where = f"{worker['host']}:{worker['pid']}" if worker["host"] else worker["address"]
    name = f"{worker['label']} ({where})" if worker["label"] else where or NONE
    number = worker["task"] and worker["task"]["number"]
    notes = [
        *([f"held back {span(worker['held_back'])}"] if worker["held_back"] is not None else []),
        *(["idle"] if worker["asks"] and not worker["held"] else []),
        *(["plain"] if worker["done"] is None else []),
    ]
    cells = [
        name,
        worker["owner"] or NONE,
        ",".join(worker["queues"]),
        short(worker["held"]),
        NONE if number is None else str(number),
        span(worker["since"]),
        short(worker["done"]),
        short(worker["failed"]),
        ", ".join(notes),
    ]
    return Row(cells, YELLOW if worker["held_back"] is not None else "")
