"""What every worker does: returns what it gets, unless that is one of two requests."""

import os
from pathlib import Path
from time import monotonic, sleep

WHO = b"!who"
HOLD = b"!hold "  # and the path of a file
WHO_SECONDS = 0.02  # so long that several workers have a share
HOLD_SECONDS = 600.0


def work(body: bytes) -> bytes:
    """Echo a body; say who one is; or hold a task until one is killed."""
    if body[:1] != b"!":
        return body
    if body == WHO:
        sleep(WHO_SECONDS)
        return b"%d" % os.getpid()
    return hold(Path(body[len(HOLD) :].decode()))


def work_on_text(body: str) -> str:
    """Do the same for systems that write their messages as JSON."""
    return work(body.encode()).decode()


def hold(path: Path) -> bytes:
    """Note in a file who has the task since when; the first one to do so then keeps it."""
    with path.open("a") as notes:
        notes.write(f"{os.getpid()} {monotonic()}\n")
    if len(path.read_text().splitlines()) == 1:
        sleep(HOLD_SECONDS)
    return b"held"
