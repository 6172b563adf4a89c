"""The `zmqbroker` command as shells find it, for tests of what documents show."""

import os
import sys
from pathlib import Path

import pytest
from helpers import TOP


@pytest.fixture
def zmqbroker_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what an installation would make of the `zmqbroker` command, and have shells find it."""
    script = tmp_path / "bin" / "zmqbroker"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom zmqbroker.commands.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    monkeypatch.chdir(tmp_path)
    return str(script)
