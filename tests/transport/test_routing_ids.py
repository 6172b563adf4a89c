"""Routing ids cannot be guessed: who claims the next one would end the broker."""

import subprocess
import sys

from helpers import PATIENCE

FIRST_ID = """
import zmq
from zmqbroker import Broker

with Broker(*["tcp://127.0.0.1:*"] * 3) as broker, zmq.Context() as context:
    with context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.rcvtimeo, dealer.linger = 20_000, 0
        dealer.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        dealer.send(b"")
        print(router.recv_multipart()[0].hex())
"""


def test_the_routing_ids_of_two_brokers_begin_with_different_numbers():
    runs = [
        subprocess.run([sys.executable, "-c", FIRST_ID], check=True, capture_output=True, text=True, timeout=PATIENCE)
        for _ in range(2)
    ]
    ids = [run.stdout.strip() for run in runs]
    assert all(len(id) == 10 and id.startswith("00") for id in ids)
    assert ids[0] != ids[1]  # once in 2**32 runs they are the same
