"""Strangers at the door: mute connections, as many as are wanted, or handshakes that fail, one after the other.

python tests/endurance/flood.py hold ADDRESS NUMBER
python tests/endurance/flood.py knock ADDRESS KEY

ADDRESS is one of TCP, KEY the broker's public key. It says `flooding` when it has begun, and goes on until it is ended.
"""

import os
import resource
import selectors
import socket
import sys

import zmq

AT_ONCE = 20  # sockets with keys that nobody knows, and half as many plain ones
HANDSHAKES_MS = 200  # until they are closed for others


def hold(address: str, number: int) -> None:
    """Hold so many connections that say nothing, and connect again where one is closed."""
    host, port = address.removeprefix("tcp://").split(":")
    selector = selectors.DefaultSelector()
    for _ in range(number):
        selector.register(socket.create_connection((host, int(port))), selectors.EVENT_READ)
    print("flooding", flush=True)
    while True:
        for ended, _ in selector.select():
            said = ended.fileobj.recv(1000)  # type: ignore[union-attr]
            if not said:  # else it is the greeting
                selector.unregister(ended.fileobj)
                ended.fileobj.close()  # type: ignore[union-attr]
                selector.register(socket.create_connection((host, int(port))), selectors.EVENT_READ)


def knock(address: str, key: bytes) -> None:
    """Come with unknown keys, or without any, again and again."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    print("flooding", flush=True)
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
    os.nice(19)  # it is to cost the broker what it costs, and nobody the cores
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    what, address, argument = sys.argv[1:]
    if what == "hold":
        hold(address, int(argument))
    else:
        knock(address, argument.encode())


if __name__ == "__main__":
    main()
