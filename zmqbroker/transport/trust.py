"""Whom one may trust with pickles: who unpickles runs whatever code the sender likes."""

import ipaddress
from functools import partial

from zmqbroker.transport.addresses import INPROC, IPC, TCP, Address, is_numeric, parse
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.inquiry import addresses_of, ask_within

NAME_PATIENCE = 5.0  # seconds for a name server to say which addresses a name has


def refuse_strangers(broker: Destination, danger: str, identities: str, trust: str) -> None:
    """Raise ValueError where a stranger may be at the other end: it is not this machine, and has no identity.

    `danger` says what a stranger may do then, `identities` and `trust` how to say who one is, or to run that risk.
    """
    if broker.credentials is not None:
        return
    stranger = _stranger(parse(broker.address))
    if stranger:
        what = f"{broker.address} {stranger}, and without identities whoever"
        raise ValueError(f"{what} {danger}: give {identities}, or {trust}; see docs/security.md")


def _stranger(target: Address) -> str:
    """Return how it comes that whoever is at an address may not be of this machine; empty: it is."""
    if target.transport in (IPC, INPROC) or "://" not in target.text:  # who connects refuses what is no address
        return ""
    if target.transport != TCP:
        return "may be another machine"
    if not target.is_name:
        return "" if _is_loopback(target.host) else "may be another machine"
    if target.host == "localhost":
        return ""
    found = ask_within(partial(addresses_of, target), NAME_PATIENCE)
    if not found:
        return "has a name that does not resolve now, so it may be another machine"
    return "" if all(map(_is_loopback, found)) else "may be another machine"


def _is_loopback(host: str) -> bool:
    return is_numeric(host) and ipaddress.ip_address(host).is_loopback
