"""Where one listens: known before anything is imported that takes a while."""

import ipaddress
import socket
from typing import NamedTuple

from zmqbroker.transport.addresses import is_name, is_numeric, is_port

BACKLOG = 128
ANY = "0"  # a port
EXAMPLE = "one looks like 127.0.0.1:8161 or [::1]:8161, or for all addresses 0.0.0.0:8161 or [::]:8161"


class Place(NamedTuple):
    """Where one listens."""

    host: str  # a name or a number, without brackets
    port: int  # 0: any that is free


def parse_place(text: str) -> Place:
    """Take HOST:PORT apart, or [HOST]:PORT; raises ValueError."""
    host, _, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if is_bracketed else host
    is_host = is_numeric(name) if ":" in name else is_name(name) and name != "*"
    if not is_host or (":" in name and not is_bracketed) or not (is_port(port) or port == ANY):
        raise ValueError(f"{text!r} is no HOST:PORT to listen on; {EXAMPLE}")
    return Place(name, int(port))


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
