"""A call that drives the client's socket itself: it is to be found out by nothing but the time it takes."""

import errno
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from math import inf, nan
from time import monotonic
from typing import Any

import pytest
import zmq
from conftest import PATIENCE_MS, Peers, Running
from helpers import PATIENCE, bound_addresses, wait_until
from library_support import NOBODY, Gate, Proxy, echo, run_in_threads, start_broker, wait_until_idle, working

from zmqbroker import Client, TaskFailed, wire
from zmqbroker.client import driving
from zmqbroker.client.link import Link
from zmqbroker.client.request import Request
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.messages import send


class Interruption(BaseException):
    """Like KeyboardInterrupt, but nobody else's."""


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.addresses.requests) as client:
        wait_until_idle(client._link)
        yield client


@pytest.fixture
def echoing(running: Running) -> Iterator[None]:
    with working(running.addresses.ready, echo):
        yield


@contextmanager
def interrupted_by(handler: Callable[[], Any]) -> Iterator[Callable[[], None]]:
    """Have a signal call `handler` in this thread; what is yielded sends it, from any thread."""
    main = threading.main_thread()
    assert threading.current_thread() is main
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield lambda: signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def raise_interruption(*_: object) -> None:
    raise Interruption


@pytest.mark.usefixtures("echoing")
def test_a_call_that_is_alone_gets_its_reply_in_its_own_thread(running: Running):
    used = Link(Destination(running.addresses.requests), None)
    wait_until_idle(used)
    settled: list[int] = []
    for number in range(20):
        used.call(Request(str(number), [b"task"], "", lambda _: settled.append(threading.get_ident())), inf)
    used.close()
    assert settled == [threading.get_ident()] * 20


def test_a_task_that_comes_during_a_call_does_not_wait_for_it(client: Client, running: Running):
    gate = Gate(b"long")
    futures = []

    def submit_during_the_call() -> None:
        gate.wait_for(b"long")
        futures.append(client.submit(b"short"))
        futures[0].result(PATIENCE)
        gate.open(b"long")

    with working(running.addresses.ready, gate, count=2):
        other = threading.Thread(target=submit_during_the_call)
        other.start()
        assert client.call(b"long", wait=PATIENCE) == b"LONG"
        other.join()
    assert futures[0].result(0) == b"SHORT"


@pytest.mark.parametrize("wait", [inf, 1e300])
def test_a_call_that_others_have_overtaken_may_wait_for_ever(client: Client, running: Running, wait: float):
    threading.Thread(target=lambda: (running.wait_for("accepted", 1), client.submit(b"another"))).start()
    worker = running.worker()

    def work() -> None:
        running.wait_for("accepted", 2)
        worker.echo()

    threading.Thread(target=work).start()
    assert client.call(b"task", wait=wait) == b"task"


def test_a_call_that_waits_for_no_number_of_seconds_is_refused(client: Client):
    with pytest.raises(ValueError, match="wait must be a number of seconds, not nan"):
        client.call(b"task", wait=nan)


def test_a_call_that_others_have_overtaken_ends_in_time(client: Client, running: Running):
    asked = threading.Event()

    def submit_during_the_call() -> None:
        running.wait_for("accepted", 1)
        client.submit(b"another")
        asked.set()

    other = threading.Thread(target=submit_during_the_call)
    other.start()
    with pytest.raises(TimeoutError, match="no reply within"):
        client.call(b"nobody works", wait=0.5)
    other.join()
    assert asked.is_set()
    running.wait_for("cancelled", 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("echoing")
def test_threads_that_call_submit_cancel_and_give_up_each_get_their_own(client: Client, running: Running, seed: int):
    wrong: list[Any] = []
    outcomes: Counter[str] = Counter()
    all_are_here = threading.Barrier(4)  # now and then, so that no task is left and one of them is alone again

    def use(name: int) -> None:
        chance = random.Random(f"{seed} {name}")
        for number in range(100):
            task = b"%d %d" % (name, number)
            if chance.random() < 0.2:
                future = client.submit(task)
                if chance.random() < 0.5:
                    future.cancel()
            else:
                future = None
            try:
                wait = chance.choice((PATIENCE, PATIENCE, PATIENCE, 0, 0.0005))
                result = future.result(PATIENCE) if future else client.call(task, wait)
                outcomes["done"] += 1
                if result != task:
                    wrong.append((task, result))
            except (CancelledError, TimeoutError) as error:
                outcomes[type(error).__name__] += 1
            if number % 10 == 9:
                all_are_here.wait(PATIENCE)

    run_in_threads(4, use)
    assert wrong == []
    assert sum(outcomes.values()) == 400
    assert outcomes["done"] > 100
    running.wait_until(lambda: running.broker.counters()["waiting"] == 0)


def test_a_callback_that_waits_for_a_reply_is_told_that_it_cannot(client: Client, running: Running):
    told: list[str] = []

    def wait_in_vain(_: object) -> None:
        for wait in (lambda: client.call(b"task"), client.submit(b"task").result, lambda: next(client.map([b"task"]))):
            with pytest.raises(RuntimeError) as caught:
                wait()
            told.append(str(caught.value))

    future = client.submit(b"task")
    future.add_done_callback(wait_in_vain)
    with working(running.addresses.ready, echo):
        assert future.result(PATIENCE) == b"task"
        assert client.call(b"another", wait=PATIENCE) == b"another"
    assert told == ["a callback of a future cannot wait for a reply: the thread that it runs in receives them"] * 3


@pytest.mark.usefixtures("echoing")
def test_a_call_without_descriptors_for_its_bell_is_left_to_the_background_thread(
    client: Client, monkeypatch: pytest.MonkeyPatch
):
    def fail() -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    client._link._driving._spare_bell = None
    monkeypatch.setattr(driving, "Alarm", fail)
    assert client.call(b"task", wait=PATIENCE) == b"task"


# Interrupted


def test_an_interrupted_call_cancels_its_task_and_leaves_the_client_usable(client: Client, running: Running):
    gate = Gate(b"long")
    with working(running.addresses.ready, gate), interrupted_by(raise_interruption) as send:
        for times in range(5):
            threading.Thread(target=lambda: (gate.wait_for(b"long"), send())).start()
            with pytest.raises(Interruption):
                client.call(b"long")
            running.wait_for("cancelled", times + 1)
            gate.open(b"long")
            assert client.call(b"task", wait=PATIENCE) == b"TASK"
            wait_until_idle(client._link)
            gate.shut(b"long")


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("where", ["send", "receive"])
def test_a_call_interrupted_in_the_middle_of_a_message_spoils_no_other(
    client: Client, monkeypatch: pytest.MonkeyPatch, where: str
):
    def send_half(opened: zmq.Socket[bytes], message: list[bytes]) -> bool:
        monkeypatch.undo()
        opened.send(message[0], zmq.SNDMORE)
        raise Interruption

    def receive_half(opened: zmq.Socket[bytes], flags: int) -> list[bytes]:
        monkeypatch.undo()
        opened.recv(flags)
        raise Interruption

    if where == "send":
        monkeypatch.setattr(driving, "send", send_half)
    else:
        monkeypatch.setattr(zmq.Socket, "recv_multipart", receive_half)
    with pytest.raises(Interruption):
        client.call(b"first")
    assert client.call(b"second", wait=PATIENCE) == b"second"
    wait_until_idle(client._link)
    assert client.call(b"third", wait=PATIENCE) == b"third"


@pytest.mark.usefixtures("echoing")
def test_a_client_whose_wake_up_was_interrupted_can_be_woken_again(client: Client, monkeypatch: pytest.MonkeyPatch):
    def interrupt() -> None:
        monkeypatch.undo()
        raise Interruption

    monkeypatch.setattr(client._link._shared.alarm, "ring", interrupt)
    with pytest.raises(Interruption):
        client.submit(b"first")
    assert client.call(b"second", wait=PATIENCE) == b"second"


def test_a_timeout_of_a_signal_handlers_own_comes_through(client: Client, running: Running):
    def raise_timeout() -> None:
        raise TimeoutError("the handler's")

    with interrupted_by(raise_timeout) as send_signal:
        threading.Thread(target=lambda: (running.wait_for("accepted", 1), send_signal())).start()
        with pytest.raises(TimeoutError, match="the handler's"):
            client.call(b"task")
    running.wait_for("cancelled", 1)


def test_a_map_that_is_collected_in_the_middle_of_a_call_harms_nothing(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
):
    replies = [client.map([b"mapped"] * 20, window=5)]

    def send_with_a_collection_in_between(opened: zmq.Socket[bytes], message: list[bytes]) -> bool:
        monkeypatch.undo()
        replies.clear()
        return send(opened, message)

    with working(running.addresses.ready, echo):
        assert next(replies[0]) == b"mapped"
        running.wait_until(lambda: running.count("done") == running.count("accepted"))
        wait_until_idle(client._link)
        monkeypatch.setattr(driving, "send", send_with_a_collection_in_between)
        assert client.call(b"task", wait=PATIENCE) == b"task"


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("closes", [False, True])
def test_a_signal_handler_in_the_middle_of_a_message_may_do_all_but_wait(
    client: Client, monkeypatch: pytest.MonkeyPatch, closes: bool
):
    futures = []

    def send_with_a_handler_in_between(opened: zmq.Socket[bytes], message: list[bytes]) -> bool:
        monkeypatch.undo()
        opened.send(message[0], zmq.SNDMORE)
        futures.append(client.submit(b"another"))
        for wait in (lambda: client.call(b"another"), futures[0].result, lambda: next(client.map([b"another"]))):
            with pytest.raises(RuntimeError, match="has interrupted the client at work: it cannot wait for a reply"):
                wait()
        if closes:
            client.close()
        return send(opened, message[1:])

    monkeypatch.setattr(driving, "send", send_with_a_handler_in_between)
    if closes:
        with pytest.raises(TaskFailed, match="the client was closed before the reply came"):
            client.call(b"task")
    else:
        assert client.call(b"task", wait=PATIENCE) == b"task"
        assert futures[0].result(PATIENCE) == b"another"


def test_a_signal_handler_may_call_while_a_call_waits(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
):
    gate = Gate(b"long")
    is_waiting = threading.Event()
    poll = zmq.zmq_poll
    results = []

    def poll_until_interrupted(*arguments: Any) -> None:
        """Keep the call where it has no lock: a signal that comes a moment sooner or later finds it in a message."""

        def is_over() -> bool:
            poll(*arguments)
            return bool(results)

        monkeypatch.undo()
        is_waiting.set()
        wait_until(is_over)

    def call_as_well() -> None:
        results.extend(client.call(task, wait=PATIENCE) for task in (b"first", b"second"))
        gate.open(b"long")

    monkeypatch.setattr(zmq, "zmq_poll", poll_until_interrupted)
    with (
        working(running.addresses.ready, gate, count=2),
        interrupted_by(call_as_well) as send_signal,
    ):
        threading.Thread(target=lambda: (gate.wait_for(b"long"), is_waiting.wait(PATIENCE), send_signal())).start()
        assert client.call(b"long", wait=PATIENCE) == b"LONG"
        wait_until_idle(client._link)
        assert client.call(b"third", wait=PATIENCE) == b"THIRD"
    assert results == [b"FIRST", b"SECOND"]


# Closed


def test_a_signal_handler_may_close_the_client(client: Client, running: Running):
    gate = Gate(b"long")
    with working(running.addresses.ready, gate), interrupted_by(client.close) as send:
        threading.Thread(target=lambda: (gate.wait_for(b"long"), send())).start()
        with pytest.raises(TaskFailed, match="the client was closed before the reply came"):
            client.call(b"long")
        gate.open(b"long")


def test_closing_in_another_thread_ends_a_call(client: Client, running: Running):
    threading.Thread(target=lambda: (running.wait_for("accepted", 1), client.close())).start()
    with pytest.raises(TaskFailed, match="the client was closed before the reply came"):
        client.call(b"task")


def test_closing_the_context_ends_a_call():
    context: zmq.Context[Any] = zmq.Context()
    client = Client(NOBODY, context=context)
    wait_until(lambda: client._link._shared.asleep)
    closing = threading.Thread(target=context.term, daemon=True)
    threading.Thread(target=lambda: (wait_until(lambda: bool(client._link._shared.session)), closing.start())).start()
    with pytest.raises(TaskFailed, match="the client was closed before the reply came"):
        client.call(b"task")
    closing.join(PATIENCE)
    assert not closing.is_alive()
    client.close()


# Cut


def test_a_reply_that_came_with_the_end_of_the_connection_is_read(monkeypatch: pytest.MonkeyPatch):
    with Peers() as peers:
        broker: zmq.Socket[bytes] = peers.context.socket(zmq.ROUTER)
        broker.rcvtimeo = PATIENCE_MS
        port = broker.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            client_id, header, _, body = broker.recv_multipart()
            key = json.loads(header[4:])["key"]
            broker.send_multipart([client_id, wire.reply_header(key, "done", 1, ""), b"", body])

        with Client(f"tcp://127.0.0.1:{port}") as client:
            future = client.submit(b"first")  # so that the background thread has read, and found nothing more
            answer()
            assert future.result(PATIENCE) == b"first"
            wait_until_idle(client._link)
            # The call reads nothing before the background thread has noticed the end.
            monkeypatch.setattr(zmq, "zmq_poll", lambda *_: wait_until(lambda: client._link._shared.bell is None))

            def answer_and_leave() -> None:
                answer()
                broker.close(linger=PATIENCE_MS)

            other = threading.Thread(target=answer_and_leave)
            other.start()
            assert client.call(b"second", wait=PATIENCE / 4) == b"second"
            other.join()
            monkeypatch.undo()


def test_a_call_ends_in_time_whatever_comes_meanwhile():
    with Peers() as peers:
        broker: zmq.Socket[bytes] = peers.context.socket(zmq.ROUTER)
        broker.linger = 0
        broker.sndhwm = 0
        broker.rcvtimeo = PATIENCE_MS
        port = broker.bind_to_random_port("tcp://127.0.0.1")
        ended = threading.Event()

        def send_nonsense() -> None:
            client_id = broker.recv_multipart()[0]
            while not ended.is_set():
                broker.send_multipart([client_id, b"nonsense"])
            broker.close()

        other = threading.Thread(target=send_nonsense)
        with Client(f"tcp://127.0.0.1:{port}") as client:
            wait_until_idle(client._link)
            other.start()
            started = monotonic()
            with pytest.raises(TimeoutError, match="no reply within"):
                client.call(b"task", wait=0.2)
            waited = monotonic() - started
            ended.set()
            other.join()
        assert waited < PATIENCE / 4


def test_a_call_survives_a_cut_connection_and_runs_once(running: Running):
    gate = Gate(b"long")
    with (
        Proxy(running.addresses.requests) as proxy,
        working(running.addresses.ready, gate),
        Client(proxy.address) as client,
    ):
        proxy.wait_for(1)
        wait_until_idle(client._link)

        def cut() -> None:
            gate.wait_for(b"long")
            proxy.cut()
            proxy.wait_for(2)
            gate.open(b"long")

        threading.Thread(target=cut).start()
        assert client.call(b"long", wait=PATIENCE) == b"LONG"
    assert gate.counts == Counter([b"long"])


def test_calls_go_on_when_the_broker_was_restarted_between_them():
    brokers = [start_broker()]
    try:
        addresses = bound_addresses(brokers[0])
        with working(addresses[1], echo), Client(addresses[0]) as client:
            for number in range(3):
                wait_until_idle(client._link)
                assert client.call(b"%d" % number, wait=PATIENCE) == b"%d" % number
                assert brokers[-1].end(signal.SIGKILL) == -signal.SIGKILL
                brokers.append(start_broker(*addresses))
                bound_addresses(brokers[-1])
            assert client.call(b"last", wait=PATIENCE) == b"last"
    finally:
        for broker in brokers:
            broker.clean_up()
