"""CURVE for the broker's sockets: nobody comes in who was not let in by ZAP, and that this holds is tried."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import zmq

from zmqbroker.transport.addresses import TCP
from zmqbroker.transport.identity import Identity
from zmqbroker.transport.monitor import next_event, open_monitor

ENFORCE = getattr(zmq, "ZAP_ENFORCE_DOMAIN", 93)  # zmq_setsockopt(3); pyzmq may have no name for it
HANDSHAKE_MS = 5000  # after which a connection that is mute is closed
TRIAL = 10.0  # seconds in which one's own attempt to come in has to be refused
PEERS: dict[int, int] = {zmq.ROUTER: zmq.DEALER, zmq.PULL: zmq.PUSH}
LET_IN = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)


def guard(opened: zmq.Socket[Any], identity: Identity, domain: str) -> None:
    """Have a socket ask ZAP, in this domain, about whoever comes; to be called before it is bound.

    Raises ValueError where libzmq would let everybody in as long as ZAP does not answer.
    """
    opened.curve_server = True
    opened.curve_secretkey = identity.secret
    opened.zap_domain = domain.encode()
    opened.handshake_ivl = HANDSHAKE_MS
    if opened.type == zmq.ROUTER:
        opened.router_handover = False  # a newcomer would get what is meant for who had its routing id before
    enforce(opened)


def enforce(opened: zmq.Socket[Any]) -> None:
    """Have nobody let in by a socket while nobody answers for ZAP; raises ValueError where that cannot be had."""
    try:
        opened.setsockopt(ENFORCE, 1)
        is_enforced = opened.getsockopt(ENFORCE) == 1
    except zmq.ZMQError:
        is_enforced = False
    if not is_enforced:
        raise ValueError("this libzmq cannot keep strangers out (no ZMQ_ZAP_ENFORCE_DOMAIN): take the wheel of pyzmq")


def try_to_come_in(
    context: zmq.Context[Any],
    opened: zmq.Socket[Any],
    stranger: Identity,
    broker: bytes,
    answer: Callable[[float], object],
) -> None:
    """See that a socket that is bound refuses a stranger; raises ValueError, and says how it fails, if it does not.

    `broker` is its public key, `answer`, called with the time, answers for ZAP meanwhile.
    """
    address = opened.get_string(zmq.LAST_ENDPOINT)
    trial: zmq.Socket[Any] = context.socket(PEERS[int(opened.type)])
    monitor = open_monitor(context, trial, LET_IN | REFUSED)
    try:
        trial.linger = 0
        trial.ipv6 = "[" in address
        trial.curve_publickey, trial.curve_secretkey, trial.curve_serverkey = *stranger, broker
        trial.connect(_reachable(address))
        until = monotonic() + TRIAL
        while (event := next_event(monitor)) is None:
            now = monotonic()
            if now > until:
                raise ValueError(f"{address} does not refuse a stranger in {TRIAL:g} s: nothing is served")
            answer(now)
            monitor.poll(1)
        if event.number != REFUSED:
            raise ValueError(f"{address} fails open, it lets in a stranger: nothing is served")
    except zmq.ZMQError as error:
        raise ValueError(f"cannot see whether {address} refuses strangers: {error.strerror}") from None
    finally:
        trial.disable_monitor()
        monitor.close(linger=0)
        trial.close()


def _reachable(address: str) -> str:
    """Return where to connect to what listens on all addresses."""
    for everywhere, here in ((f"{TCP}0.0.0.0:", f"{TCP}127.0.0.1:"), (f"{TCP}[::]:", f"{TCP}[::1]:")):
        if address.startswith(everywhere):
            return here + address.removeprefix(everywhere)
    return address
