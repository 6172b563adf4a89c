"""Sending: tasks go to workers, and what was decided to clients, to workers and into the log.

Everything is sent without blocking. A ROUTER that is told ROUTER_MANDATORY says at the first frame whether the peer is
there (zmq_setsockopt(3)): a worker that is not costs nothing, a client that is not is counted.
"""

from zmqbroker import wire
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.broker.report import Report
from zmqbroker.broker.sockets import Sockets
from zmqbroker.broker.store.journal import HandOut
from zmqbroker.broker.task import Task
from zmqbroker.transport.messages import send
from zmqbroker.wire import DONE, EXPIRED, FAILED, INVALID, PROGRESS, UNAVAILABLE, Frames, Header, OnlyKey, announced

WENT_WRONG = (FAILED, EXPIRED, INVALID, UNAVAILABLE)


class Sender:
    """Sends what the dispatcher has decided."""

    def __init__(self, sockets: Sockets, dispatcher: Dispatcher, report: Report) -> None:
        self._requests, self._ready = sockets.requests, sockets.ready
        self._dispatcher = dispatcher
        self._report = report

    def hand_out(self, now: float) -> None:
        """Give workers that are ready the tasks that wait."""
        dispatcher, is_verbose = self._dispatcher, self._report.is_verbose
        while (pair := dispatcher.hand_out(now)) is not None:
            envelope, task = pair
            if is_verbose:
                self._report.attempt(task)
            if task.worker.unsent:
                dispatcher.journal.hold(HandOut(envelope, task, task.worker, task.attempt_id))
            elif not self._send_task(envelope, task):
                dispatcher.take_back(task, now)

    def send_stored(self, hand_out: HandOut, now: float) -> None:
        """Give a worker a task, now that this is stored, unless it is not to have it any more."""
        if self._dispatcher.begin(hand_out, now) and not self._send_task(hand_out.envelope, hand_out.task):
            self._dispatcher.take_back(hand_out.task, now)

    def _send_task(self, envelope: Frames, task: Task) -> bool:
        """Send a task to its worker; False: it is gone."""
        if task.worker.wants_headers:
            envelope = [*envelope, _about(task)]
        return send(self._ready, wire.task_message(envelope, task.attempt_id, task.body))

    def send_replies(self, now: float) -> None:
        """Send the replies that were decided."""
        settled = self._dispatcher.settled
        for task in settled:
            if task.status in WENT_WRONG and not _is_no_news(task):
                self._report.failure(task, now)
            elif self._report.is_verbose:
                self._report.outcome(task)
            if task.joined:
                self._send_to_all(task, now)
            elif task.envelope and not send(self._requests, _reply(task, task.envelope, task.header)):
                self._note_undelivered(task, [task.envelope], now)
            task.envelope = task.body = []  # they may be large, and a queue may hold the task on as a stale entry
        settled.clear()

    def _send_to_all(self, task: Task, now: float) -> None:
        """Send the reply to all who wait for it."""
        missed = [
            envelope for envelope, header in task.waiters if not send(self._requests, _reply(task, envelope, header))
        ]
        self._note_undelivered(task, missed, now)

    def _note_undelivered(self, task: Task, envelopes: list[Frames], now: float) -> None:
        """Note who was not there to get a reply; it is undeliverable when nobody was."""
        for envelope in envelopes:
            self._dispatcher.undelivered(task, envelope[0])
        if len(envelopes) == len(task.waiters):
            self._dispatcher.counters.undeliverable += 1
            self._report.undeliverable(now)

    def send_progress(self) -> None:
        """Tell those who want to know how far their tasks have come; who does not read that misses it."""
        progressed = self._dispatcher.progressed
        for task, progress in progressed.items():
            for envelope, header in task.waiters:
                if header is not None and header.progress:
                    about = wire.reply_header(header.key, PROGRESS, task.attempts, "", task.number, header.id)
                    send(self._requests, wire.reply_message([*envelope, about], [progress]))
        progressed.clear()

    def tell_workers(self) -> None:
        """Send what workers are to be told."""
        told = self._dispatcher.told
        for worker_id, verb, what in told:
            send(self._ready, announced.told_message(worker_id, verb, what))  # one that is gone has been told enough
        told.clear()

    def tell_news(self, now: float) -> None:
        """Log what the dispatcher has noticed by itself."""
        dispatcher, report = self._dispatcher, self._report
        for worker, has_come in dispatcher.moves:
            (report.came if has_come else report.left)(worker, now)
        for task, pause in dispatcher.lost:
            report.lost(task, pause)
        for record in dispatcher.held_back:
            report.held_back(record, now)
        for queue in dispatcher.unserved:
            report.unserved(queue, now)
        for news in (dispatcher.moves, dispatcher.lost, dispatcher.held_back, dispatcher.unserved):
            news.clear()


def _is_no_news(task: Task) -> bool:
    """Tell the answer to who has an outcome once more, or whose cancel has crossed with it: nothing is wrong now."""
    header = task.header
    if task.is_answer and task.number:
        return True
    if header is None:
        return False
    return (header.cancel and task.status is INVALID) or header.fetch is not None or header.forget


def _reply(task: Task, envelope: Frames, header: Header | None) -> Frames:
    if header is None:
        return wire.reply_message(envelope, task.body)
    if task.status is DONE and type(header) is OnlyKey:
        return wire.reply_message([*envelope, wire.done_header(header.key, task.attempts, task.number)], task.body)
    worker = task.last_worker if header.worker else None
    number = task.number or None
    about = wire.reply_header(header.key, task.status, task.attempts, task.reason, number, header.id, worker=worker)
    return wire.reply_message([*envelope, about], task.body if header.body else [])


def _about(task: Task) -> bytes:
    """Return what a task tells a worker about itself."""
    return announced.task_header(task.number, task.key, task.queue.name, task.attempt, task.tries, task.timeout)
