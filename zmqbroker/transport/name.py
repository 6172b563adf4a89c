"""A host's name: looked up in a thread, and its addresses handed out one after the other, until one is kept."""

from functools import partial

from zmqbroker.transport.addresses import Address
from zmqbroker.transport.alarm import Alarm
from zmqbroker.transport.inquiry import Inquiry, addresses_of
from zmqbroker.transport.search import Search


class Name:
    """Finds the address of a name at which somebody answers; see `search` for the order."""

    def __init__(self, target: Address) -> None:
        """Begin to look it up; raises OSError without descriptors."""
        self._target = target
        self._search = Search()
        self._alarm = Alarm()
        self._inquiry: Inquiry[list[str]] | None = None  # None: none is under way

    def fileno(self) -> int:
        """Return what is readable when the name server has answered."""
        return self._alarm.fileno()

    @property
    def is_looked_up(self) -> bool:
        """Tell whether a name server is being asked, and has not answered yet."""
        return self._inquiry is not None and self._inquiry.answer is None

    def advance(self, now: float) -> str | None:
        """Return the address to try now, None: go on with what is tried; `next_due` is when to call again."""
        self._alarm.hear()
        if self._inquiry is not None and self._inquiry.answer is not None:
            self._search.found(self._inquiry.answer, now)
            self._inquiry = None
        address = self._search.advance(now)
        if self._search.is_looking and self._inquiry is None:
            try:
                self._inquiry = Inquiry(partial(addresses_of, self._target), self._alarm)
            except OSError:  # no thread can be started: later, perhaps
                self._search.missed(now)
        return address

    def taken(self, now: float) -> None:
        """Note that the address that is tried has taken the connection: it has time for its answer."""
        self._search.taken(now)

    def missed(self, now: float) -> None:
        """Note that it has hung up instead of answering."""
        self._search.missed(now)

    def keep(self) -> None:
        """Note that it has answered: there is no more to try."""
        self._search.keep()

    def next_due(self) -> float:
        """Return when to advance, if nothing is readable before; inf: not before."""
        return self._search.next_due()

    def close(self) -> None:
        """Stop looking."""
        if self._inquiry is not None:
            self._inquiry.abandon()
        self._alarm.close()
