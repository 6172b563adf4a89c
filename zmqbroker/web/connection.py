"""A connection to the page: whoever is at its other end is waited for only so long, and less if too many come.

Between two answers a peer has LONGEST_WAIT to read the first and to bring the whole of the next request, whether it
brings nothing meanwhile or a byte at a time. Where there are MOST_CONNECTIONS, that which is waited for longest is
ended for the new one: so those that bring nothing keep nobody out.
"""

import asyncio
from math import inf

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
LONGEST_WAIT = 20.0  # seconds: a scrape may come each 15
UNFINISHED = (h11.IDLE, h11.SEND_BODY, h11.ERROR)  # states of a peer that has not brought a whole request


class Connection(H11Protocol):
    """A connection that is not waited for without end."""

    _wait: asyncio.TimerHandle | None = None  # for the peer; None: it waits for us

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it, and wait for a request."""
        super().connection_made(transport)
        if len(self.connections) >= MOST_CONNECTIONS:
            oldest = min((one for one in self.connections if isinstance(one, Connection)), key=Connection.waits_until)
            oldest.end_wait()
        self._look()

    def data_received(self, data: bytes) -> None:
        """Wait no more where the request is whole."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait anew: for the answer to be read, and the next request."""
        self._forget_wait()
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Wait for what has been written to be read."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nobody."""
        self._forget_wait()
        super().connection_lost(exc)

    def waits_until(self) -> float:
        """Return the instant, of its loop, until which the peer is waited for; inf: it is not."""
        return inf if self._wait is None else self._wait.when()

    def end_wait(self) -> None:
        """Let the peer go, if it is waited for; what it has not read is lost."""
        if self._wait is not None:
            self._forget_wait()
            self.transport.abort()

    def _look(self) -> None:
        """Begin to wait for the peer, go on, or wait no more."""
        is_its_turn = self.conn.their_state in UNFINISHED or self.flow.write_paused or self.transport.is_closing()
        if not is_its_turn:
            self._forget_wait()
        elif self._wait is None:
            self._wait = self.loop.call_later(LONGEST_WAIT, self.end_wait)

    def _forget_wait(self) -> None:
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
