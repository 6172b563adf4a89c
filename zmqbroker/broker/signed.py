"""What clients and workers say, told the dispatcher in the name of who says it: with identities, instead of it.

Tasks belong to names, and what is said of an attempt counts from the name that it was handed to.
"""

from collections.abc import Sized

from zmqbroker.broker.admission import Admission, Speaker
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.wire import Announce, Frames, Header


class Signed:
    """The dispatcher, as far as it is told what comes by the sockets."""

    def __init__(self, dispatcher: Dispatcher, admission: Admission) -> None:
        self.counters = dispatcher.counters
        self.refuse = dispatcher.refuse
        self.has_announced, self.answered = dispatcher.has_announced, dispatcher.answered
        self.ask, self.withdraw = dispatcher.ask, dispatcher.withdraw
        self._dispatcher = dispatcher
        self._admission = admission
        self._workers: dict[Sized, Speaker] = {}  # by their connections

    def submit(self, envelope: Frames, body: Frames, now: float, header: Header | None) -> None:
        """Take in a request; it belongs to who has sent it."""
        self._dispatcher.submit(envelope, body, now, header, self._admission.speaker.name)

    def ready(self, envelope: Frames) -> None:
        """Count a plain worker as ready for one more task."""
        speaker = self._admission.speaker
        self._workers[envelope[0]] = speaker
        self._dispatcher.ready(envelope, speaker.name)

    def announce(self, worker_id: Sized, announce: Announce, attempt_ids: list[bytes], now: float) -> None:
        """Note who is at a connection, and which attempts it says that it is at."""
        speaker = self._admission.speaker
        self._workers[worker_id] = speaker
        self._dispatcher.announce(worker_id, announce, attempt_ids, now, speaker.name)

    def answer(self, worker_id: Sized, attempt_id: bytes, asks: int, body: Frames, now: float) -> None:
        """Take in the result of an attempt, or only that its worker asks for more."""
        if self._may_tell(attempt_id):
            self._dispatcher.answer(worker_id, attempt_id, asks, body, now)
        else:
            self._dispatcher.answered(worker_id, attempt_id, asks, now)

    def result(self, attempt_id: Sized, body: Frames, now: float) -> None:
        """Settle the task with the result of any of its attempts."""
        if self._may_tell(attempt_id):
            self._dispatcher.result(attempt_id, body, now)

    def fail(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Give up the running attempt."""
        if self._may_tell(attempt_id):
            self._dispatcher.fail(attempt_id, reason, now)

    def reject(self, attempt_id: Sized, reason: str, now: float) -> None:
        """Fail the task for good."""
        if self._may_tell(attempt_id):
            self._dispatcher.reject(attempt_id, reason, now)

    def release(self, attempt_id: Sized, now: float) -> None:
        """Take the task back unexecuted."""
        if self._may_tell(attempt_id):
            self._dispatcher.release(attempt_id, now)

    def touch(self, attempt_id: Sized, seconds: float | None, now: float) -> None:
        """Move the running attempt's deadline."""
        if self._may_tell(attempt_id):
            self._dispatcher.touch(attempt_id, seconds, now)

    def progress(self, attempt_id: Sized, progress: Sized) -> None:
        """Pass on how far a worker is with an attempt."""
        if self._may_tell(attempt_id):
            self._dispatcher.progress(attempt_id, progress)

    def lose_worker(self, worker_id: Sized, now: float) -> None:
        """Give up what a worker has and is ready for."""
        self._workers.pop(worker_id, None)
        self._dispatcher.lose_worker(worker_id, now)

    def turn_out(self, now: float) -> None:
        """Give up what workers have that are not authorized any more."""
        for worker_id, worker in list(self._workers.items()):
            if not self._admission.may_work(worker):
                self.lose_worker(worker_id, now)

    def _may_tell(self, attempt_id: Sized) -> bool:
        return self._dispatcher.may_tell(attempt_id, self._admission.speaker.name)
