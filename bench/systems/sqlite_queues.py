"""huey on SQLite: its own worker program, tasks and results in one file."""

from typing import Any

from bench.systems.link import Link, Settings
from bench.systems.system import Play

POLL = "0.001"  # seconds between two looks for a task or a result


def start_huey_workers(play: Play, count: int) -> None:
    """Start huey's worker program with so many threads in one process."""
    options = {"workers": count, "delay": POLL, "max-delay": POLL, "backoff": 1}
    words = [f"--{name}={value}" for name, value in options.items()]
    play.start_python("-m", "huey.bin.huey_consumer", "bench.systems.huey_tasks.huey", "--quiet", *words)


def connect_huey(settings: Settings) -> Link:
    """Enqueue tasks, and look for results again and again."""
    from huey.exceptions import ResultTimeout

    from bench.systems import huey_tasks

    def result(handle: Any, wait: float) -> bytes:
        try:
            body: bytes = handle.get(blocking=True, timeout=wait, max_delay=float(POLL))
        except ResultTimeout:
            raise TimeoutError from None
        return body

    return Link(huey_tasks.echo, result)
