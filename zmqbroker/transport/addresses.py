"""Addresses to connect to: what is one, and whether its host is a name that has to be looked up."""

import ipaddress
from typing import NamedTuple

LAST_PORT = 65535
LONGEST_SURE_IPC = 100  # characters; systems take paths of 103 or more
TCP, IPC, INPROC = "tcp://", "ipc://", "inproc://"
EXAMPLE = "one looks like tcp://localhost:4161 or ipc:///tmp/tasks"


class Address(NamedTuple):
    """An address to connect to."""

    text: str  # as it was given
    transport: str  # with its slashes
    host: str = ""  # of TCP, without brackets
    port: int = 0
    source: str = ""  # of TCP: what the connection is to come from, with a semicolon, see zmq_tcp(7)
    is_name: bool = False  # the host is one, and no number

    @property
    def numeric(self) -> str:
        """Return the address as ZeroMQ takes it, where its host is no name."""
        return self.at(self.host) if self.transport == TCP else self.text

    def at(self, host: str) -> str:
        """Return the address, of TCP, with a number in place of the host."""
        return f"{TCP}{self.source}{f'[{host}]' if ':' in host else host}:{self.port}"


def parse(text: str) -> Address:
    """Take an address apart; raises ValueError, with what to do about it, for one that nobody can connect to.

    What is neither TCP nor ipc nor inproc is left to ZeroMQ.
    """
    _refuse_other_than_text(text)
    for transport in (TCP, IPC, INPROC):
        if text.startswith(transport):
            rest = text.removeprefix(transport)
            if not rest or rest == "*":
                raise ValueError(f"{text!r} is no address to connect to; {EXAMPLE}")
            return _parse_tcp(text, rest) if transport == TCP else Address(text, transport)
    return Address(text, "")


def is_surely_one(target: Address) -> bool:
    """Tell whether ZeroMQ is sure to take an address: for others one has to try, and whoever listens there notices."""
    if target.transport == IPC:
        return target.text.isascii() and target.text.isprintable() and len(target.text) <= LONGEST_SURE_IPC
    return target.transport == TCP and not target.source and "%" not in target.host


def is_port(text: str) -> bool:
    """Tell whether it is the number of a port, but not 0; libzmq would cut 70000 to 4464, and take 4161x for 4161."""
    return text.isascii() and text.isdecimal() and len(text) <= len(str(LAST_PORT)) and 0 < int(text) <= LAST_PORT


def is_exposed(bound: str) -> bool:
    """Tell whether other machines may reach an address that was bound, as far as its number tells."""
    if not bound.startswith(TCP):
        return False
    host = bound.removeprefix(TCP).rpartition(":")[0].strip("[]")
    return not (is_numeric(host) and ipaddress.ip_address(host).is_loopback)


def refuse_inproc(*addresses: str) -> None:
    """Raise ValueError for an inproc address, where there is no context but our own, and for what is no text."""
    for address in addresses:
        _refuse_other_than_text(address)
        if address.startswith(INPROC):
            raise ValueError(
                f"{address} is for who shares a ZeroMQ context: give both sides the same one (context=...), "
                "or use tcp:// or ipc://"
            )


def refuse_unencrypted(*addresses: str) -> None:
    """Raise ValueError for an inproc address: ZeroMQ knows no identities there."""
    for address in addresses:
        if address.startswith(INPROC):
            raise ValueError(f"{address} knows no identities, which ZeroMQ has for tcp:// and ipc:// alone")


def _refuse_other_than_text(address: object) -> None:
    if not isinstance(address, str):
        raise ValueError(f"an address is text, not {type(address).__name__}; {EXAMPLE}")


def _parse_tcp(text: str, rest: str) -> Address:
    source, semicolon, target = rest.rpartition(";")
    host, _, port = target.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host == "*":
        example = f"{TCP}localhost:{port}"
        raise ValueError(
            f"{text!r} is no address to connect to: * is for listening; take the broker's host, {example} say"
        )
    if not is_port(port):
        raise ValueError(
            f"{text!r} is no address to connect to: its port must be a number from 1 to {LAST_PORT}; {EXAMPLE}"
        )
    number = is_numeric(host)
    if not number and not is_name(host):
        raise ValueError(f"{text!r} is no address to connect to: it names no host; {EXAMPLE}")
    return Address(text, TCP, host, int(port), source + semicolon, not number)


def is_numeric(host: str) -> bool:
    """Tell whether a host is given by its number, of IPv4 or IPv6, with or without a scope."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_name(host: str) -> bool:
    """Tell whether a host could be a name at all."""
    try:
        host.encode("idna")  # as getaddrinfo does
    except UnicodeError:
        return False
    return bool(host) and host.isprintable() and not any(character in host for character in " /[]:;")
