"""For the tests of the page in a browser: Debian's chromium, driven by playwright. Without either they skip."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE_MS
from web_support import Serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIETLY = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = os.environ.get("ZMQBROKER_SHOTS", "")  # a directory for pictures of the page; empty: none are made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=QUIETLY)


class Sight:
    """A page that is open, and what went wrong there."""

    def __init__(self, browser: Any, serving: Serving, route: str = "", **options: Any) -> None:
        self.origin = f"http://127.0.0.1:{serving.port}"
        self.wrong: list[str] = []
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))
        self.page.on("console", self._note)
        self.page.on("request", self._check)
        self.page.goto(f"{self.origin}/{route}")

    def see(self, selector: str, **options: Any) -> Any:
        """Wait until something is there."""
        return self.page.wait_for_selector(selector, **options)

    def go(self, route: str, heading: str) -> None:
        """Look at another view, and wait until it is there."""
        self.page.goto(f"{self.origin}/{route}")
        self.see(f"main:not(.stale) h1:text({json.dumps(heading)})")

    def change(self, what: str, change: Callable[[Any], Any]) -> None:
        """Have the answers to a question changed on their way to the page."""

        def answer(route: Any) -> None:
            response = route.fetch()
            route.fulfill(response=response, json=change(response.json()))

        self.page.route(f"**/api/{what}?*", answer)

    def shoot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)

    def close(self) -> None:
        self._context.close()

    def _note(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def _check(self, request: Any) -> None:
        if not request.url.startswith(self.origin):
            self.wrong.append(f"a request to {request.url}")


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Sight]]:
    """Return a function that opens a page, on which nothing may go wrong."""
    opened: list[Sight] = []

    def look(serving: Serving, route: str = "", **options: Any) -> Sight:
        opened.append(Sight(browser, serving, route, **options))
        return opened[-1]

    yield look
    for sight in opened:
        sight.close()
        assert sight.wrong == []
