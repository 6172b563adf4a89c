"""The client: `score.py REQUESTS FILE` has each line read by one kind of worker and scored by another."""

import sys

from zmqbroker import Client


def main(requests: str, file: str) -> None:
    """Print a score for each line, in order."""
    with Client(requests) as client, open(file, "rb") as lines:
        # One map feeds the other: what is read goes on to be scored while the next lines are still read.
        read = client.map((line.rstrip(b"\n") for line in lines), queue="cpu", tries=3)
        for score in client.map(read, queue="gpu", tries=3, window=16):
            print(score.decode())


main(sys.argv[1], sys.argv[2])
