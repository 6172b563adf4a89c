"""A process that goes on with a story until it is killed, and prints the number of each turn that is stored.

store_writer.py PATH SEED TURNS
"""

import sys
from pathlib import Path

from store_support import NO_RESERVE, Story

from zmqbroker.broker.store.sqlite import SqliteStore


def main(path: str, seed: str, turns: str) -> None:
    story = Story(int(seed))
    for _ in range(int(turns)):
        story.tell()
    store = SqliteStore(Path(path), **NO_RESERVE)
    while True:
        store.start(story.tell())
        print(story.turns, flush=True)


main(*sys.argv[1:])
