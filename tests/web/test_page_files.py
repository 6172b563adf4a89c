"""The files of the page: nothing of them is made of text from elsewhere, inline, or loaded from another host."""

import re
from html.parser import HTMLParser

import pytest
from helpers import TOP

pytestmark = pytest.mark.once

STATIC = TOP / "zmqbroker" / "web" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
PAGES = sorted(STATIC.glob("*.html"))
NAMESPACE = "http://www.w3.org/2000/svg"  # which nobody loads
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser|setHTML"
)


class Tags(HTMLParser):
    """All start tags of a page, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_nothing_of_markup_and_loads_nothing_from_elsewhere(path):
    text = path.read_text()
    assert MARKUP.findall(text) == []
    assert re.findall(r"https?://[^\s\"'`]+", text.replace(NAMESPACE, "")) == []
    for imported in re.findall(r"from \"(.*)\"", text):
        assert (STATIC / imported).is_file()
        assert imported.startswith("./")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_nothing_inline_and_names_files_that_are_there(path):
    for tag, attributes in Tags(path.read_text()).tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag != "style"
        assert tag != "script" or attributes["src"]
        for name in ("src", "href"):
            target = attributes.get(name) or ""
            assert "//" not in target
            if target.startswith("/static/"):
                assert (STATIC / target.removeprefix("/static/")).is_file()


def test_the_style_loads_nothing():
    text = (STATIC / "style.css").read_text()
    assert not re.findall(r"url\(|@import", text)
