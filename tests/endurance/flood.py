"""Strangers at the door: mute connections, as many as are wanted, and handshakes that fail, one after the other.

python tests/endurance/flood.py HOST PORT KEY MUTE; KEY is the broker's public key. It says `flooding` when so many are
connected, and goes on until it is ended.
"""

import os
import resource
import selectors
import socket
import sys
import threading
from itertools import count

import zmq

AT_ONCE = 20  # sockets with keys that nobody knows, and half as many plain ones
HANDSHAKES_MS = 200  # until they are closed for others


def hold(host: str, port: int, number: int) -> None:
    """Hold so many connections that say nothing, and connect again where one is closed."""
    selector = selectors.DefaultSelector()
    for opened in count(1):
        if opened > number:
            if opened == number + 1:
                print("flooding", flush=True)
            ended, _ = selector.select()[0]
            selector.unregister(ended.fileobj)
            ended.fileobj.close()  # type: ignore[union-attr]
        selector.register(socket.create_connection((host, port)), selectors.EVENT_READ)


def knock(address: str, key: bytes) -> None:
    """Come with unknown keys, or without any, again and again."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    while True:
        strangers = []
        for number in range(AT_ONCE + AT_ONCE // 2):
            stranger = context.socket(zmq.DEALER)
            stranger.linger = 0
            if number < AT_ONCE:
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = key
            stranger.connect(address)
            strangers.append(stranger)
        strangers[0].poll(HANDSHAKES_MS)
        for stranger in strangers:
            stranger.close()


def main() -> None:
    host, port, key, mute = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.Thread(target=knock, args=(f"tcp://{host}:{port}", key.encode()), daemon=True).start()
    try:
        hold(host, int(port), int(mute))
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
