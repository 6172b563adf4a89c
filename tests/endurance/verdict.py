"""How a run that keeps books ends: it is played, cleaned up after, and judged."""

import shutil
from pathlib import Path
from typing import Protocol

SHOWN = 10  # violations


class Run(Protocol):
    """What is played."""

    violations: list[str]

    def run(self) -> None:
        """Play it to its end."""

    def clean_up(self) -> None:
        """End all that it has started."""


def verdict(run: Run, directory: Path) -> int:
    """Play a run whose journals are in a directory; return the exit status. They stay if a promise was broken."""
    try:
        run.run()
    except KeyboardInterrupt:
        run.violations.append("interrupted")
    finally:
        run.clean_up()
    for violation in run.violations[:SHOWN]:
        print(f"VIOLATION: {violation}")
    if run.violations:
        print(f"{len(run.violations)} violations; the journals are in {directory}")
        return 1
    shutil.rmtree(directory)
    print("every promise was kept")
    return 0
