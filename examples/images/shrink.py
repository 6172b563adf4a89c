"""The client: `shrink.py REQUESTS FROM TO` has all pictures of a directory made small, and says which could not be."""

import sys
from pathlib import Path

from zmqbroker import Client, TaskFailed


def main(requests: str, source: Path, target: Path) -> int:
    """Write the thumbnails; return the exit status, 1 if there were failures."""
    target.mkdir(exist_ok=True)
    pictures = sorted(source.iterdir())
    failures = []
    with Client(requests) as client:
        # The files are read while the first results come: a thousand tasks ahead at most, however many there are.
        bodies = (picture.read_bytes() for picture in pictures)
        outcomes = client.map(bodies, queue="images", timeout=60, tries=3, return_failures=True)
        for picture, outcome in zip(pictures, outcomes, strict=True):
            if isinstance(outcome, TaskFailed):
                failures.append((picture.name, outcome))
            else:
                (target / f"{picture.stem}.png").write_bytes(outcome)
    print(f"{len(pictures) - len(failures)} of {len(pictures)} pictures have a thumbnail")
    for name, failure in failures:
        print(f"{name}: {failure.reason}, attempts: {failure.attempts}")
    return 1 if failures else 0


sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
