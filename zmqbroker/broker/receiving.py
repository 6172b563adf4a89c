"""Receiving: what clients and workers send is read, a bounded number of messages at a time, and told the dispatcher.

What it looks like on the wire is in `wire`, and what comes of it is decided in `dispatch`.
"""

from collections.abc import Sized
from contextlib import suppress

import zmq

from zmqbroker import __version__, wire
from zmqbroker.broker.admission import CHOSEN, Admission, open_inbox
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.handshakes import Handshakes
from zmqbroker.broker.report import Report
from zmqbroker.broker.signed import Signed
from zmqbroker.broker.sockets import Sockets
from zmqbroker.broker.traffic import READY, REQUESTS, RESULTS, Traffic
from zmqbroker.transport.messages import send
from zmqbroker.wire import FAILED, HEADER, INVALID, Frames, announced, head

BATCH = 256  # messages read from one socket in one turn, at most, so that none starves the others
LONG_RESULT = f"its result has more than {wire.MOST_FRAMES} frames"


class Receiver:
    """Reads the broker's three sockets."""

    def __init__(
        self,
        sockets: Sockets,
        dispatcher: Dispatcher,
        traffic: Traffic,
        report: Report,
        max_size: int,
        admission: Admission | None,
    ) -> None:
        """Prepare; `max_size` is in bytes of a body, and 0 means no limit; `admission` None: everybody may speak."""
        self._ready, self._workers = sockets.ready, sockets.workers
        self._admission = admission
        requests = open_inbox(admission, REQUESTS, sockets.requests, BATCH, self._refuse_long, self._refuse_chosen)
        ready = open_inbox(admission, READY, sockets.ready, BATCH, self._ignore_long)
        results = open_inbox(admission, RESULTS, sockets.results, BATCH, self._lose_long)
        self._requests_in = traffic.watch(REQUESTS, requests)
        self._ready_in = traffic.watch(READY, ready)
        self._results_in = traffic.watch(RESULTS, results)
        self._dispatcher = dispatcher if admission is None else Signed(dispatcher, admission)
        self._traffic = traffic
        self._report = report
        self._max_size = max_size
        self._now = 0.0  # of what is being read

    @property
    def has_all_results(self) -> bool:
        """Tell whether there were no more of them, by both sockets, when they were read last."""
        return self._results_in.is_empty and self._ready_in.is_empty

    def receive_requests(self, most: int, now: float) -> None:
        """Read requests, so many at most."""
        self._now = now
        dispatcher = self._dispatcher
        for message in self._requests_in.batch(most):
            try:
                envelope, body, header = wire.parse_request(message)
            except wire.MalformedRequestError as error:
                dispatcher.refuse(error.envelope, error.header, INVALID, str(error))
                continue
            size = len(body[0]) if len(body) == 1 else sum(map(len, body))
            if size > self._max_size > 0:
                why = f"a task of {size} bytes was refused: the limit is {self._max_size} bytes"
                dispatcher.refuse(envelope, header, FAILED, why)
            else:
                dispatcher.submit(envelope, body, self._now, header)
        self._traffic.charge(REQUESTS)

    def receive_ready(self, now: float, is_lost: bool = False) -> None:
        """Read ready messages, and give up what workers had whose connections have dropped: see `liveness`."""
        self._now = now
        dispatcher, workers, inbox = self._dispatcher, self._workers, self._ready_in
        strangers = []  # messages, each with a frame that tells by which connection it came
        for message in inbox.batch(BATCH):
            if message[0] not in workers.known:
                strangers.append((message, inbox.frame))
            elif len(message) > 3 and (done := announced.match_done(message)) is not None:
                asks, attempt_id = done
                dispatcher.answer(message[0], attempt_id, int(asks), message[3:], now)
            elif announced.is_plain(message):
                dispatcher.ready(message[:1])
            else:
                self._hear(message)
        if strangers or is_lost:
            for worker in workers.lost():
                dispatcher.lose_worker(worker, now)
            self._tell_strangers(workers.handshakes, "READY", now)
        for message, frame in strangers:
            self._meet(message, frame)
        self._traffic.charge(READY)

    def _meet(self, message: Frames, frame: zmq.Frame) -> None:
        """Hear a worker whose connection is not known yet, or may be a new one."""
        workers, dispatcher = self._workers, self._dispatcher
        if self._admission is not None:
            self._admission.turn_to(frame)
        has_left = workers.has_left(message[0], frame)
        if not has_left:
            for worker in workers.note(message[0], frame):
                dispatcher.lose_worker(worker, self._now)
        self._hear(message)
        if has_left:
            dispatcher.lose_worker(message[0], self._now)

    def turn_out(self, now: float) -> None:
        """Give up what workers have that are not authorized any more."""
        if isinstance(self._dispatcher, Signed):
            self._dispatcher.turn_out(now)

    def watch(self, handshakes: Handshakes, where: str | None, now: float) -> None:
        """Say so when somebody has come to a socket and left before it said what it is.

        `where` is the name of the socket; None: that is no news there.
        """
        for _ in handshakes.ended():
            pass
        if where is not None:
            self._tell_strangers(handshakes, where, now)

    def _tell_strangers(self, handshakes: Handshakes, where: str, now: float) -> None:
        if handshakes.failed():
            self._report.stranger(where, now)

    def _hear(self, message: Frames) -> None:
        """Take in what a worker says on READY."""
        try:
            self._take_in(message)
        except wire.MalformedError as error:
            self.count_malformed("ready", error)

    def _take_in(self, message: Frames) -> None:
        """Take in a word, an announce, or that a plain worker is ready; raises MalformedError for what is none."""
        if not message[1] and len(message) > 2:
            word = announced.parse_word(message[2])
            if word is not None:
                self._obey_word(message[0], word, message[3:])
                return
            if self._dispatcher.has_announced(message[0]):
                raise wire.MalformedError(f"an unknown word: {head(message[2], 20)!r}")
        elif announced.has_header(message):
            self._welcome(message)
            return
        self._dispatcher.ready(wire.parse_ready(message))

    def _welcome(self, message: Frames) -> None:
        """Take in an announce, or say what is wrong with what should be one."""
        try:
            announce, attempt_ids = announced.parse_announce(message)
        except wire.MalformedRequestError as error:
            self.count_malformed("ready", error)
            send(self._ready, announced.refusal_message(error))
            return
        if send(self._ready, announced.welcome_message(message[0], __version__)):  # else it is gone, and known to be so
            self._dispatcher.announce(message[0], announce, attempt_ids, self._now)

    def _obey_word(self, worker: Sized, word: announced.Word, argument: Frames) -> None:
        """Do what a worker says by a word; one that has not announced itself asks for nothing by it."""
        dispatcher, verb, attempt_id = self._dispatcher, word.verb, word.attempt_id
        if verb in announced.OUTCOMES:
            dispatcher.answered(worker, attempt_id, word.asks, self._now)
        if verb == announced.DONE:
            dispatcher.result(attempt_id, argument or [wire.EMPTY], self._now)
        elif verb == announced.READY:
            dispatcher.ask(worker, word.asks)
        elif verb == announced.WITHDRAW:
            dispatcher.withdraw(worker, word.asks)
        elif verb == announced.PROGRESS:
            dispatcher.progress(attempt_id, announced.parse_said(argument))
        else:
            self._obey(wire.parse_verb([wire.EMPTY, verb, attempt_id, *argument]))

    def receive_results(self, now: float) -> None:
        """Read results."""
        self._now = now
        for message in self._results_in.batch(BATCH):
            try:
                if wire.is_verb(message):
                    self._obey(wire.parse_verb(message))
                else:
                    self._dispatcher.result(message[0], message[1:], self._now)
            except wire.MalformedError as error:
                self.count_malformed("results", error)
        self._traffic.charge(RESULTS)

    def _refuse_long(self, start: Frames) -> None:
        error = wire.parse_start(start)
        self._dispatcher.refuse(error.envelope, error.header, INVALID, str(error))

    def _refuse_chosen(self, message: Frames) -> None:
        """Refuse a request whose sender chose its routing id: somebody else may have that when the reply comes."""
        try:
            envelope, _, header = wire.parse_request(message)
        except wire.MalformedRequestError as error:
            envelope, header = error.envelope, error.header
        self._dispatcher.refuse(envelope, header, INVALID, CHOSEN)

    def _ignore_long(self, start: Frames) -> None:
        self.count_malformed("ready", wire.MalformedError(f"a message of more than {wire.MOST_FRAMES} frames"))
        if len(start[1]) or head(start[2], len(HEADER)) != HEADER:
            return
        with suppress(wire.MalformedError):  # that is counted
            word = announced.parse_word(start[2])
            if word is not None and word.verb == announced.DONE:
                self._dispatcher.answered(start[0], word.attempt_id, word.asks, self._now)
                self._dispatcher.fail(word.attempt_id, LONG_RESULT, self._now)

    def _lose_long(self, start: Frames) -> None:
        if wire.is_verb(start):
            self.count_malformed("results", wire.MalformedError(f"a message of more than {wire.MOST_FRAMES} frames"))
        else:
            self._dispatcher.fail(start[0], LONG_RESULT, self._now)

    def _obey(self, verb: wire.Verb) -> None:
        dispatcher = self._dispatcher
        if verb.name == wire.FAIL:
            dispatcher.fail(verb.attempt_id, verb.reason, self._now)
        elif verb.name == wire.REJECT:
            dispatcher.reject(verb.attempt_id, verb.reason, self._now)
        elif verb.name == wire.RELEASE:
            dispatcher.release(verb.attempt_id, self._now)
        else:
            dispatcher.touch(verb.attempt_id, verb.seconds, self._now)

    def count_malformed(self, where: str, error: wire.MalformedError) -> None:
        """Count and tell of a message that is none of the protocol."""
        self._dispatcher.counters.malformed += 1
        self._report.malformed(where, error, self._now)
