"""Where one connects, and as whom; and what is said when an identity does not fit what is there."""

from typing import NamedTuple

from zmqbroker.transport.addresses import INPROC
from zmqbroker.transport.greeting import CURVE, NULL
from zmqbroker.transport.identity import Credentials, FilePath, credentials
from zmqbroker.transport.keep_alive import KeepAlive


class Destination(NamedTuple):
    """An address, and what holds for each connection to it."""

    address: str
    keep_alive: KeepAlive = KeepAlive()
    credentials: Credentials | None = None  # None: one has no identity, and neither has the broker

    @property
    def unknown(self) -> str:
        """Return what is said when the broker turns away who one is."""
        key = self.credentials.own.public.decode() if self.credentials is not None else "none"
        return (
            f"the broker at {self.address} does not know this identity ({key}), or not in this role: "
            "add it to the file of its authorized"
        )

    def mismatch(self, mechanism: str) -> str:
        """Return what is said to who is hung up on, by the mechanism of who listens; empty: that is not why."""
        if self.credentials is None:
            wants = f"the broker at {self.address} wants identities: give --identity and --broker-identity"
            return wants if mechanism == CURVE else ""
        if mechanism == NULL:
            return f"the broker at {self.address} has no identity: leave --identity out, or start it with one"
        key = self.credentials.broker.decode()
        another = f"the broker at {self.address} is not the one of --broker-identity ({key}), or that is its RESULTS"
        return another if mechanism == CURVE else ""


def destination(
    address: str,
    keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 (it is immutable)
    *,
    identity: FilePath | None = None,
    broker_identity: FilePath | None = None,
) -> Destination:
    """Return the destination for an address, as who these files say; None: as who the environment says, if anybody.

    Raises ValueError for files that are none of identities, and with an inproc address, where ZeroMQ has none.
    """
    if isinstance(address, str) and address.startswith(INPROC):
        if identity is not None or broker_identity is not None:
            raise ValueError(f"{address} takes no identity: it does not leave this process")
        return Destination(address, keep_alive)
    return Destination(address, keep_alive, credentials(identity, broker_identity))
