"""The page in a real browser: what it shows, to whom, and while things go on."""

from collections.abc import Callable

import pytest
from browser_support import browser, look
from conftest import Running
from control_support import submit
from web_support import IMPATIENT, serve_page

__all__ = ["browser", "look", "serve_page"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.once]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202edetrever\x1b[31m\x00"
HEADINGS = {  # by routes
    "": "Overview",
    "#/queues": "Queues",
    "#/workers": "Workers",
    "#/tasks": "Unsettled tasks",
    "#/failures": "Last failures",
    "#/task/1": "Task 1",
    "#/task/2": "Task 2",
    "#/queue/default": "Queue default",
}


@pytest.fixture
def busy(start: Callable[..., Running]) -> Running:
    """Return a broker where tasks with hostile names wait, run and have failed."""
    running = start(control="tcp://127.0.0.1:*", tries=1)
    worker = running.worker()
    client = submit(running, 1, key=HOSTILE)
    attempt_id, _ = worker.take()
    worker.say(b"reject", attempt_id, HOSTILE.encode())
    client.recv_multipart()
    submit(running, 1, key=f"{HOSTILE} again")
    worker.take()
    submit(running, 3, queue="nobody/asks")
    return running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_views_show_hostile_text_as_text(busy, serve_page, look, scheme, width):
    serving = serve_page(busy.broker.control_address)
    size = {"width": width, "height": 800}
    sight = look(serving, color_scheme=scheme, viewport=size)
    sight.see("text=Tasks wait in 1 queue that no worker asks from")
    for route, heading in HEADINGS.items():
        sight.page.goto(f"{sight.origin}/{route}")
        sight.see(f"main:not(.stale) h1:text('{heading}')")
        sight.shoot(f"{route.replace('/', '-').strip('#-') or 'overview'}-{scheme}-{width}")
        assert sight.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert sight.page.query_selector("main script, main img") is None
    sight.page.goto(f"{sight.origin}/#/task/1")
    sight.see("h1:text('Task 1')")
    shown = sight.see("text=<img src=x onerror=alert(1)>").inner_text()
    assert r"\u202edetrever\x1b[31m\x00" in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_views_are_for_everybody(busy, serve_page, look, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    size = {"width": width, "height": 800}
    still = {"reduced_motion": "reduce", "bypass_csp": True}  # axe is a script of its own
    sight = look(serve_page(busy.broker.control_address), color_scheme=scheme, viewport=size, **still)
    for route, heading in HEADINGS.items():
        sight.page.goto(f"{sight.origin}/{route}")
        sight.see(f"main:not(.stale) h1:text('{heading}')")
        found = [(one["id"], one["nodes"][0]["target"]) for one in axe.run(sight.page).response["violations"]]
        assert found == [], route


def test_numbers_move_and_a_failure_appears_while_one_looks(start, serve_page, look):
    running = start(control="tcp://127.0.0.1:*", tries=1)
    sight = look(serve_page(running.broker.control_address))
    sight.see("text=All is well")
    client = submit(running, 3)
    sight.see(".tile .value >> text=/^3$/")
    worker = running.worker()
    attempt_id, _ = worker.take()
    worker.say(b"reject", attempt_id, b"out of paper")
    client.recv_multipart()
    sight.see("text=out of paper")
    sight.see(".tile .value >> text=/^2$/")


def test_it_says_that_the_broker_does_not_answer_and_is_back_by_itself(start, serve_page, look):
    running = start(control="tcp://127.0.0.1:*")
    address = running.broker.control_address
    sight = look(serve_page(address, patience=IMPATIENT))
    sight.see("text=All is well")
    running.finish()
    told = sight.see("#trouble p").inner_text()
    assert told.startswith("The broker does not answer, since ")
    sight.shoot("no-answer")
    start(control=address)
    sight.see("#trouble p", state="detached")
    assert sight.see("#said", state="attached").inner_text() == "The broker answers again."


def test_focus_and_what_is_typed_stay_while_it_is_drawn_anew(busy, serve_page, look):
    serving = serve_page(busy.broker.control_address)
    sight = look(serving, "#/queues")
    sight.see("tbody a")
    sight.page.fill("input[name=find]", "nobody")
    sight.see("text=/found of/")
    asked = serving.asked.count("queues")
    while serving.asked.count("queues") < asked + 2:
        sight.page.wait_for_timeout(100)
    assert sight.page.evaluate("document.activeElement.name") == "find"
    assert sight.page.input_value("input[name=find]") == "nobody"
    assert sight.page.url.endswith("#/queues?find=nobody")


def test_a_task_is_opened_by_its_number_or_its_key(busy, serve_page, look):
    sight = look(serve_page(busy.broker.control_address), "#/tasks")
    for given, heading in (("2", "Task 2"), (f"{HOSTILE} again".replace("\0", ""), "Not here"), ("plain", "Task 6")):
        sight.see("[data-open] input")
        if heading == "Task 6":
            submit(busy, 1, key="plain")
        sight.page.fill("[data-open] input", given)
        sight.page.keyboard.press("Enter")
        sight.see(f"main:not(.stale) h1:text('{heading}')")
        sight.page.goto(f"{sight.origin}/#/tasks")


def test_it_asks_only_while_it_is_looked_at(busy, serve_page, look):
    serving = serve_page(busy.broker.control_address)
    sight = look(serving)
    sight.see("h1:text('Overview')")
    requests: list[str] = []
    sight.page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    sight.page.on("request", lambda request: requests.append(request.url))
    for _ in range(5):  # something may have been on its way
        requests.clear()
        sight.page.wait_for_timeout(3000)
        if not requests:
            return
    raise AssertionError(requests)


def test_who_logs_in_sees_the_page(busy, serve_page, look):
    token = "correct-horse-battery-staple"
    sight = look(serve_page(busy.broker.control_address, token=token))
    sight.page.fill("#token", "wrong")
    sight.page.click("button")
    sight.see("text=This is not the token.")
    sight.page.fill("#token", token)
    sight.page.click("button")
    sight.see("text=Tasks wait in 1 queue")


def test_no_script_can_be_put_into_the_page(busy, serve_page, look):
    sight = look(serve_page(busy.broker.control_address))
    sight.see("h1:text('Overview')")
    sight.page.evaluate(
        "const made = document.createElement('script'); made.textContent = 'window.ran = 1'; document.body.append(made)"
    )
    assert sight.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in sight.wrong)
    sight.wrong.clear()
