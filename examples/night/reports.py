"""What the workers do: a task is the name of a month, and its result what was sold then."""

import csv
from pathlib import Path

SALES = Path(__file__).parent / "sales"


def add_up(body: bytes) -> bytes:
    """Add up the sales of a month; where there is no file of them, the attempt fails."""
    month = body.decode()
    with open(SALES / f"{month}.csv", newline="") as file:
        total = sum(float(row["amount"]) for row in csv.DictReader(file))
    return f"{month}: {total:.2f}".encode()
