"""In the evening: `evening.py REQUESTS MONTH ...` leaves a task for each month with the broker, and prints its key."""

import sys

from zmqbroker import Client


def main(requests: str, months: list[str]) -> None:
    """Leave the tasks; each has been stored when its key is printed, and nothing that happens now can lose it."""
    with Client(requests) as client:
        for month in months:
            print(client.send(month.encode(), key=f"report of {month}", queue="night", tries=2))


main(sys.argv[1], sys.argv[2:])
