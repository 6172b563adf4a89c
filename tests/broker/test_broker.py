"""The broker on real sockets: what peers of every kind send, and what they get."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, Peers, Running
from helpers import PATIENCE

from zmqbroker import Broker

Start = Callable[..., Running]


def test_a_client_gets_what_a_worker_answered(running: Running):
    client, worker = running.client(), running.worker()
    client.send(b"task")
    attempt_id, body = worker.take()
    assert body == [b"task"]
    worker.reply(attempt_id, b"result")
    assert client.recv_multipart() == [b"result"]


def test_bodies_of_several_frames_pass_unchanged(running: Running):
    client, worker = running.client(), running.worker()
    body = [b"", b"one", b"", b"x" * 200_000, b""]
    client.send_multipart(body)
    assert worker.echo() == body
    assert client.recv_multipart() == body


def test_the_envelope_of_a_dealer_is_echoed_as_it_came(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker()
    client.send_multipart([b"correlation 7", b"hop", b"", b"task"])
    worker.echo()
    assert client.recv_multipart() == [b"correlation 7", b"hop", b"", b"task"]


def test_a_relaxed_and_correlated_req_client_gets_the_reply_to_its_last_request(running: Running):
    client = running.client(req_correlate=1, req_relaxed=1)
    worker = running.worker()
    client.send(b"given up")
    attempt_id, _ = worker.take()
    client.send(b"wanted")
    worker.reply(attempt_id, b"late reply")
    attempt_id, body = worker.take()
    worker.reply(attempt_id, b"reply to ", *body)
    assert client.recv_multipart() == [b"reply to ", b"wanted"]


def test_a_dealer_worker_with_slots_gets_a_task_for_each_ready_message(running: Running):
    client, worker = running.client(zmq.DEALER), running.worker(zmq.DEALER)
    for _ in range(4):
        worker.ready()
    running.wait_for("idle", 1)
    for number in range(6):
        client.send_multipart([b"", b"%d" % number])
    assert [worker.receive()[1] for _ in range(4)] == [[b"0"], [b"1"], [b"2"], [b"3"]]
    running.wait_for("accepted", 6)
    assert running.count("waiting") == 2


def test_a_worker_that_fails_an_attempt_gives_it_to_another(start: Start):
    running = start(tries=3)
    client, one, two = running.client(), running.worker(), running.worker()
    client.send(b"task")
    attempt_id, _ = one.take()
    one.say(b"fail", attempt_id, b"ValueError: bad")
    attempt_id, _ = two.take()
    two.reply(attempt_id)  # the short form of the same
    attempt_id, _ = one.take()
    one.say(b"reject", attempt_id, b"for good")
    assert client.recv_multipart() == [b""]
    assert running.count("retried") == 2


def test_a_released_task_is_not_charged(start: Start):
    running = start(tries=1)
    client, worker = running.client(), running.worker()
    client.send(b"task")
    attempt_id, _ = worker.take()
    worker.say(b"release", attempt_id)
    worker.echo()
    assert client.recv() == b"task"


def test_a_touched_attempt_outlives_its_timeout(start: Start):
    running = start(tries=1, timeout=0.2)
    touching, client, other = running.worker(), running.client(), running.client()
    client.send(b"long")
    attempt_id, _ = touching.take()
    touching.say(b"touch", attempt_id, b"30")
    silent = running.worker()
    other.send(b"short")
    silent.take()
    assert other.recv() == b""  # so the timeout of the first has passed as well
    touching.reply(attempt_id, b"done")
    assert client.recv() == b"done"


def test_a_task_too_large_is_refused_and_the_connection_stays(start: Start, caplog: pytest.LogCaptureFixture):
    running = start(max_size=1000)
    client, worker = running.client(), running.worker()
    for frames in ([b"x" * 1001], [b"x" * 500] * 3, [b"x" * 1_000_000]):
        client.send_multipart(frames)
        assert client.recv_multipart() == [b""]
    client.send(b"x" * 1000)
    worker.echo()
    assert client.recv() == b"x" * 1000
    assert running.count("refused") == 3
    assert "a task of 1001 bytes was refused: the limit is 1000 bytes" in caplog.text


def test_a_full_queue_makes_senders_wait_and_drops_nothing(start: Start):
    running = start(max_waiting=10)
    client, worker = running.client(zmq.DEALER, sndhwm=0), running.worker(zmq.DEALER)
    for number in range(5000):
        client.send_multipart([b"", b"%d" % number])
    running.wait_for("accepted", 10)
    assert running.count("waiting") <= 10
    for _ in range(5000):
        worker.ready()
    for number in range(5000):
        attempt_id, body = worker.receive()
        assert body == [b"%d" % number]
        worker.reply(attempt_id, *body)
        assert running.count("waiting") <= 10
    assert [client.recv_multipart()[1] for _ in range(5000)] == [b"%d" % number for number in range(5000)]


def test_stopping_lets_the_running_tasks_finish(start: Start):
    running = start(drain=20)
    client, late_client, worker = running.client(), running.client(), running.worker()
    client.send(b"task")
    attempt_id, _ = worker.take()
    running.broker.stop()
    late_client.send(b"one more")
    assert late_client.recv() == b""
    worker.reply(attempt_id, b"done")
    assert client.recv() == b"done"
    running.thread.join(20)
    assert not running.thread.is_alive()


def test_stopping_twice_fails_what_is_left_at_once(start: Start):
    running = start(drain=3600)
    waiting, taken, worker = running.client(), running.client(), running.worker()
    taken.send(b"running")
    worker.take()
    waiting.send(b"waiting")
    running.wait_for("accepted", 2)
    running.stop()
    assert (waiting.recv(), taken.recv()) == (b"", b"")
    assert running.count("failed") == 2


def test_what_the_drain_does_not_finish_fails(start: Start):
    running = start(drain=0.05)
    client = running.client()
    client.send(b"never taken")
    running.wait_for("accepted", 1)
    running.broker.stop()
    assert client.recv() == b""
    running.thread.join(20)
    assert not running.thread.is_alive()


def test_stopping_answers_requests_that_a_full_queue_left_unread(start: Start):
    # inproc: what is sent has arrived, so all twenty requests are there when the broker stops.
    running = start(max_waiting=1, requests="inproc://requests")
    clients = [running.client() for _ in range(20)]
    for client in clients:
        client.send(b"task")
    running.wait_for("accepted", 1)
    running.stop()
    assert [client.recv() for client in clients] == [b""] * 20
    assert (running.count("failed"), running.count("refused")) == (1, 19)


def test_a_broker_that_leaves_delivers_a_great_many_replies(start: Start):
    running = start(drain=0)
    client = running.client(zmq.DEALER, sndhwm=0, rcvhwm=0)
    for number in range(3000):
        client.send_multipart([b"%d" % number, b"", b"task"])
    running.wait_for("accepted", 3000)
    running.broker.stop()
    replies = {client.recv_multipart()[0] for _ in range(3000)}
    assert len(replies) == 3000


def test_a_broker_that_leaves_answers_all_that_a_full_queue_left_unread_by_tcp(start: Start):
    running = start(drain=0, max_waiting=1)
    clients = [running.client() for _ in range(20)]
    for client in clients:
        client.send(b"malformed? no: one of them waits, the others are not read")
    running.wait_for("accepted", 1)
    probe = running.client(zmq.DEALER)
    probe.send(b"x")
    assert not probe.poll(200)  # milliseconds: unread as well, and by now the others have arrived
    running.broker.stop()
    assert [client.recv() for client in clients] == [b""] * 20


def test_a_broker_runs_once(start: Start):
    running = start()
    running.stop()
    with pytest.raises(RuntimeError, match="a broker runs once"):
        running.broker.run()


def test_leaving_the_with_block_stops_a_broker_that_runs_in_a_thread():
    with Peers() as peers, Broker(*["tcp://127.0.0.1:*"] * 3, drain=3600) as broker:
        thread = threading.Thread(target=broker.run)
        thread.start()
        client = peers.open(zmq.REQ, broker.addresses.requests)
        client.send(b"task")
        while not broker.counters()["accepted"]:
            thread.join(0.005)
        broker.__exit__(None, None, None)
        assert client.recv() == b""
        assert not thread.is_alive() or thread.join(20) is None


def test_the_largest_numbers_are_limits_like_others(start: Start):
    running = start(max_size=2**70, tries=2**70, max_waiting=2**70, timeout=1e300, drain=1e300)
    client = running.client()
    client.send(b"task")
    running.worker().echo()
    assert client.recv() == b"task"


def test_several_brokers_in_one_process_do_not_meet(start: Start):
    brokers = [start() for _ in range(3)]
    clients = [running.client() for running in brokers]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    for number, running in enumerate(brokers):
        assert running.worker().echo() == [b"%d" % number]
        assert clients[number].recv() == b"%d" % number


def test_inproc_with_a_shared_context():
    context = zmq.Context()
    with Broker("inproc://requests", "inproc://ready", "inproc://results", context=context) as broker:
        assert broker.addresses == ("inproc://requests", "inproc://ready", "inproc://results")
        broker.stop()
        broker.run()
    assert not context.closed
    context.term()


@pytest.mark.parametrize("transport", ["ipc", "ipv6"])
def test_other_transports(start: Start, tmp_path: Path, transport: str):
    if transport == "ipc":
        addresses = {name: f"ipc://{tmp_path}/{name}" for name in ("requests", "ready", "results")}
    else:
        addresses = dict.fromkeys(("requests", "ready", "results"), "tcp://[::1]:*")
    try:
        running = start(**addresses)
    except ValueError:
        if transport == "ipv6":
            pytest.skip("this machine has no IPv6 loopback")
        raise
    client = running.client()
    client.send(b"task")
    running.worker().echo()
    assert client.recv() == b"task"


def test_an_ipc_address_chosen_by_the_system_can_be_used_from_any_directory(start: Start):
    assert start(requests="ipc://*").addresses.requests.startswith("ipc:///")


def test_an_ipc_path_of_a_live_broker_is_refused_and_a_stale_one_taken_over(tmp_path: Path, start: Start):
    address = f"ipc://{tmp_path}/requests"
    first = start(requests=address)
    with pytest.raises(ValueError, match="something else listens there"):
        start(requests=address)
    client = first.client()
    client.send(b"still heard")
    first.worker().echo()
    assert client.recv() == b"still heard"

    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(stale))
    assert stale.exists()
    second = start(requests=f"ipc://{stale}")
    client = second.client()
    client.send(b"task")
    second.worker().echo()
    assert client.recv() == b"task"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, start: Start):
    precious = tmp_path / "precious"
    precious.write_text("data")
    with pytest.raises(ValueError, match="not a socket"):
        start(requests=f"ipc://{precious}")
    assert precious.read_text() == "data"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense", "that is no address"),
        ("tipc://{1,2}", "no such transport here"),
        ("tcp://127.0.0.1:99999", "that is no address"),
        ("tcp://127.0.0.1", "that is no address"),
        ("tcp://127.0.0.1:4161x", "that is no address"),
        ("udp://127.0.0.1:1", "use tcp://"),
        ("carrier-pigeon://x", "use tcp://"),
        ("ipc:///no/such/directory/x", "create it first"),
        ("ipc://" + "x" * 300, "too long"),
        ("tcp://192.0.2.1:1", "this machine has no such"),
    ],
)
def test_an_address_that_cannot_be_bound_says_what_to_do(address: str, reason: str):
    with pytest.raises(ValueError, match=f"cannot listen on .*{reason}"):
        Broker(address, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*")


def test_a_name_whose_server_is_silent_is_refused_in_time(monkeypatch: pytest.MonkeyPatch):
    may_answer = threading.Event()
    monkeypatch.setattr("zmqbroker.transport.binding.NAME_PATIENCE", 0.1)
    monkeypatch.setattr("zmqbroker.transport.binding.addresses_of", lambda _: may_answer.wait(PATIENCE) and [])
    try:
        with pytest.raises(ValueError, match="cannot listen on tcp://name:4161: its name server is silent"):
            Broker("tcp://name:4161", LOOPBACK, LOOPBACK)
    finally:
        may_answer.set()


def test_a_taken_address_says_so(running: Running):
    with pytest.raises(ValueError, match="something else listens there"):
        Broker(running.addresses.requests, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*")


@pytest.mark.parametrize("limits", [{"tries": -1}, {"timeout": float("nan")}, {"drain": float("inf")}, {"tries": "3"}])
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any]):
    with pytest.raises(ValueError, match="must be 0 or more"):
        Broker("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", **limits)


@pytest.mark.parametrize("number", [0, 65, "2"])
def test_a_number_of_io_threads_that_makes_no_sense_is_refused(number: Any):
    with pytest.raises(ValueError, match="io_threads must be 1 to 64"):
        Broker(LOOPBACK, LOOPBACK, LOOPBACK, io_threads=number)


def test_a_broker_has_the_io_threads_it_was_told_to_have():
    with Broker(LOOPBACK, LOOPBACK, LOOPBACK, io_threads=3) as broker:
        assert broker._sockets.context.get(zmq.IO_THREADS) == 3
