"""The login in a real browser, which alone knows what an address has after its `#`."""

import pytest
from test_page_in_browser import HEADINGS, browser, busy, look
from web_support import serve_page

__all__ = ["browser", "busy", "look", "serve_page"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.once]
TOKEN = "correct-horse-battery-staple"
ROUTE = "#/queue/default"


def test_the_login_keeps_the_address(busy, serve_page, look):
    serving = serve_page(busy.broker.control_address, token=TOKEN, checks_host=False)
    sight = look(serving, ROUTE)

    def log_in(token: str) -> None:
        sight.see("#token").fill(token)
        sight.page.click("button[type=submit]")

    log_in("wrong")
    sight.see("[role=alert]")
    for _ in range(2):  # the second time the cookie goes away while the page is looked at
        log_in(TOKEN)
        sight.see(f"h1:has-text('{HEADINGS[ROUTE]}')")
        assert sight.page.url == f"{sight.origin}/{ROUTE}"
        sight.page.context.clear_cookies()
    sight.see("#token")
