"""Where one listens: known before anything is imported that takes a while."""

import ipaddress
import socket
from typing import NamedTuple

BACKLOG = 128


class Place(NamedTuple):
    """Where one listens."""

    host: str  # a name or a number, without brackets
    port: int  # 0: any that is free


def parse_place(text: str) -> Place:
    """Take HOST:PORT apart, or [HOST]:PORT; raises ValueError."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    if not colon or not is_port or not host.strip("[]") or (":" in host and not is_bracketed):
        raise ValueError(f"{text!r} is no HOST:PORT to listen on; one looks like 127.0.0.1:8161 or [::1]:8161")
    return Place(host.removeprefix("[").removesuffix("]") if is_bracketed else host, int(port))


def listen(place: Place) -> socket.socket:
    """Return a socket that listens there; raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
    opened = socket.socket(family, kind, protocol)  # asyncio has what is TCP by name send without delay
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def is_loopback(opened: socket.socket) -> bool:
    """Tell whether only this machine can reach a socket."""
    return ipaddress.ip_address(opened.getsockname()[0].partition("%")[0]).is_loopback


def url(opened: socket.socket) -> str:
    """Return the address of the page."""
    host, port = opened.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
