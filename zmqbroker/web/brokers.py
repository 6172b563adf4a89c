"""The brokers that are watched: those that the user names, or all of this user's on this machine, looked for anew."""

import asyncio
from collections.abc import Sequence
from time import monotonic

from zmqbroker.transport.control import control_addresses
from zmqbroker.web.watched import Connect, Watched

SOUGHT_EVERY = 2.0  # seconds
GONE_KEPT = 600.0  # seconds for which a broker is shown that is not found any more
MOST_GONE = 20  # of them
NOBODY = "no broker of this user answers on this machine"


class UnknownError(Exception):
    """There is no such broker, or several and none was named. Its text says which there are."""


class Brokers:
    """All brokers that are watched."""

    def __init__(self, addresses: Sequence[str], connect: Connect) -> None:
        """Prepare to watch the brokers with these control addresses; none: all that are found."""
        self._connect = connect
        self._named = {address: Watched(address, connect, True) for address in addresses}
        self._found: dict[str, Watched] = {}  # by address
        self._gone: dict[Watched, float] = {}  # since when, the first first; they are not asked any more
        self._sought = -SOUGHT_EVERY
        self._seeking = asyncio.Lock()

    @property
    def are_told_apart(self) -> bool:
        """Whether there may be several: then each series of metrics has a label that says whose it is.

        That depends on what the user has named, not on what is there: labels that come and go make other series.
        """
        return len(self._named) != 1

    async def all(self) -> list[Watched]:
        """Return all brokers, those that answer first; of several with the same name, one."""
        if not self._named:
            await self._seek()
        watched = [*(self._named or self._found).values(), *self._gone]
        by_name: dict[str, Watched] = {}
        for one in sorted(watched, key=lambda one: bool(one.asker.trouble)):
            by_name.setdefault(one.name, one)
        return sorted(by_name.values(), key=lambda one: (bool(one.asker.trouble), one.name))

    async def find(self, name: str | None) -> Watched:
        """Return the broker of a name; None: the only one there is. Raises UnknownError."""
        watched = await self.all()
        found = [one for one in watched if name in (None, one.name, one.address)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(one.name for one in watched)
        if name is not None:
            raise UnknownError(f"no broker {name!r:.200} is watched; there is {known}" if known else NOBODY)
        raise UnknownError(f"there are several brokers, say which by broker=NAME: {known}" if known else NOBODY)

    async def close(self) -> None:
        """Watch no more."""
        await asyncio.gather(*(one.close() for one in [*self._named.values(), *self._found.values()]))

    async def _seek(self) -> None:
        """Look which brokers there are, unless that was done just now."""
        async with self._seeking:
            if monotonic() < self._sought + SOUGHT_EVERY:
                return
            addresses = await asyncio.to_thread(control_addresses)
            self._sought = now = monotonic()
            self._let_go(set(addresses), now)
            new = [Watched(address, self._connect, False) for address in addresses if address not in self._found]
            self._found |= {one.address: one for one in new}
            await asyncio.gather(*(one.ask("status") for one in new), return_exceptions=True)  # so that they have names
            self._forget(now)

    def _let_go(self, addresses: set[str], now: float) -> None:
        """Ask those no more that are gone; one that has ended as it was told to is not missed."""
        for address in self._found.keys() - addresses:
            one = self._found.pop(address)
            one.leave()
            if not one.has_drained:
                self._gone[one] = now

    def _forget(self, now: float) -> None:
        """Forget those that are gone: after a while, or at once where another one has taken their place."""
        found = {one.name: one for one in self._found.values()}
        for rank, (one, at) in enumerate(reversed([*self._gone.items()])):
            successor = found.get(one.name)
            if successor is not None:
                successor.history.follow(one.history)
            if successor is not None or now > at + GONE_KEPT or rank >= MOST_GONE:
                del self._gone[one]
