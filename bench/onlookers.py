"""Who looks at what a broker does, one process each: browsers and scrapers of a page.

    python -m bench.onlookers browser URL     Debian's chromium, headless, driven by playwright
    python -m bench.onlookers scraper URL     gets the metrics each second, as Prometheus does

Each prints a line of JSON when it has seen something, and then, for each line that it gets, another one: how many
answers it has had from the page so far.
"""

import json
import shutil
import sys
import threading
from collections.abc import Sequence
from urllib.request import urlopen

SCRAPE_INTERVAL = 1.0  # seconds
WAIT = 30.0  # seconds; for any one answer
CHROMIUM = ("chromium", "chromium-browser")  # the names that it goes by
QUIETLY = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COUNT = "performance.getEntriesByType('resource').filter(each => each.name.includes('/api/')).length"
MOST_COUNTED = 100_000


def main(arguments: Sequence[str]) -> int:
    """Be an onlooker."""
    role, url = arguments
    if role == "browser":
        browse(url)
    else:
        scrape(url)
    return 0


def browse(url: str) -> None:
    """Look at the page. It goes on by itself while this process waits."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIETLY)
        page = browser.new_page()
        page.set_default_timeout(WAIT * 1000)
        page.goto(url)
        page.evaluate(f"performance.setResourceTimingBufferSize({MOST_COUNTED})")
        page.wait_for_selector("h1:text('Overview')")
        say(ready=True)
        for _ in sys.stdin:
            say(answers=page.evaluate(COUNT))


def scrape(url: str) -> None:
    """Get the metrics again and again."""
    answers = 0

    def get_all() -> None:
        nonlocal answers
        pause = threading.Event()
        while True:
            with urlopen(f"{url}metrics", timeout=WAIT) as answer:
                answer.read()
            answers += 1
            if answers == 1:
                say(ready=True)
            pause.wait(SCRAPE_INTERVAL)

    threading.Thread(target=get_all, daemon=True).start()
    for _ in sys.stdin:
        say(answers=answers)


def chromium() -> str | None:
    """Return where the browser is; None: it is not here."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def say(**facts: object) -> None:
    """Print a line for whoever started this process."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
