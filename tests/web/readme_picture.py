"""Make the README's pictures of the page: `python tests/web/readme_picture.py [SECONDS]`.

It takes ten minutes, which is what the small pictures on the page show, or SECONDS. A broker, workers and clients of an
imagined studio have tasks that take their time, and now and then fail.
"""

import math
import random
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from browser_support import CHROMIUM, QUIETLY
from conftest import LOOPBACK, Running
from helpers import TOP
from playwright.sync_api import sync_playwright
from web_support import Serving

from zmqbroker import Client, Reject, Worker

LONGEST = 600.0  # seconds
WIDTH, HEIGHT = 1200, 760
A_SECOND = 20  # looks whether to send
FAILS = 0.01  # of all attempts
HOSTS = ["media-1", "media-2"]


class Kind(NamedTuple):
    """A queue, and what is done there."""

    queue: str
    key: str  # what keys begin with
    workers: int
    takes: float  # seconds, more or less
    most: float  # tasks in a second
    reason: str  # why one fails


KINDS = [
    Kind("thumbnails", "photo", 3, 0.25, 14.0, "the file is truncated: no picture"),
    Kind("transcode", "clip", 2, 6.0, 0.5, "unknown codec av02"),
    Kind("mail", "mail", 1, 0.08, 10.0, "mailbox full"),
    Kind("reports", "month", 0, 0.0, 0.05, ""),
]


def handler(kind: Kind) -> Callable[[bytes], bytes]:
    """Return a function that takes its time, and now and then fails."""

    def handle(body: bytes) -> bytes:
        sleep(random.uniform(0.5, 1.5) * kind.takes)
        if random.random() < FAILS:
            raise Reject(kind.reason)
        return body

    return handle


def work(ready: str) -> None:
    """Start the workers."""
    real = socket.gethostname
    for kind in KINDS:
        for number in range(kind.workers):
            socket.gethostname = lambda number=number: HOSTS[number % len(HOSTS)]  # the picture is of no real host
            worker = Worker(ready, handler(kind), queues=[kind.queue], label=f"{kind.queue}-{number + 1}")
            threading.Thread(target=worker.run, daemon=True).start()
    socket.gethostname = real


def send(requests: str, is_over: threading.Event) -> None:
    """Send tasks, now more and now fewer."""
    with Client(requests) as client:
        number = 0
        while not is_over.wait(1 / A_SECOND):
            for place, kind in enumerate(KINDS):
                share = 0.55 + 0.45 * math.sin(monotonic() / (35 + 20 * place) + place)
                if random.random() < share * kind.most / A_SECOND:
                    number += 1
                    client.submit(b"x", queue=kind.queue, key=f"{kind.key} {number}")


def shoot(serving: Serving) -> None:
    """Take a picture in light and one in dark."""
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIETLY)
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(f"http://127.0.0.1:{serving.port}/")
            page.wait_for_selector("text=Tasks wait in 1 queue")
            page.wait_for_timeout(7000)  # rates are of two looks
            page.screenshot(path=str(TOP / "docs" / "images" / f"page-{scheme}.png"))


def main(longest: float) -> None:
    """Let it run, then take the pictures."""
    running = Running(control=LOOPBACK, tries=3, timeout=60.0)
    requests, ready, _ = running.addresses
    serving = Serving(running.broker.control_address)
    work(ready)
    is_over = threading.Event()
    sending = threading.Thread(target=send, args=(requests, is_over))
    sending.start()
    try:
        sleep(longest)
        shoot(serving)
    finally:
        is_over.set()
        sending.join()
        serving.stop()
        running.stop()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else LONGEST)
