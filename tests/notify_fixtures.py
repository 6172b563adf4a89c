"""A service manager: the fixture, which test modules name as a plugin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from notify_support import Manager, abstract, set_variables


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Return a service manager that the programs which a test starts find in their environment."""
    listening = Manager(abstract(tmp_path))
    set_variables(monkeypatch, listening.address)
    yield listening
    listening.close()
