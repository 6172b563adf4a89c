"""File descriptors, counted."""

import os
from contextlib import ExitStack, closing

import pytest

from zmqbroker.transport import descriptors


@pytest.mark.skipif(descriptors.count_open() is None, reason="this system does not say how many are open")
def test_open_descriptors_are_counted():
    before = descriptors.count_open()
    assert before is not None
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(open(os.devnull)))  # noqa: SIM115 (the stack closes it)
        assert descriptors.count_open() == before + 3
    assert descriptors.count_open() == before


def test_they_are_not_listed_to_be_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "listdir", lambda _: pytest.fail("10,000 of them take 40 ms"))
    descriptors.count_open()
