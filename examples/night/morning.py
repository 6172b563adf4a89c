"""In the morning: `morning.py REQUESTS KEYS` prints the results of the tasks whose keys are in a file, one a line."""

import sys
from pathlib import Path

from zmqbroker import Client, TaskFailed

LONGEST = 600  # seconds to wait for what is not done yet


def main(requests: str, keys: list[str]) -> int:
    """Print what became of the tasks; return the exit status, 1 if any has failed."""
    status = 0
    with Client(requests) as client:
        for key in keys:
            try:
                print(client.fetch(key, wait=LONGEST).decode())
            except TaskFailed as failure:
                print(f"{key} has failed: {failure.reason}")
                status = 1
    return status


sys.exit(main(sys.argv[1], Path(sys.argv[2]).read_text().splitlines()))
