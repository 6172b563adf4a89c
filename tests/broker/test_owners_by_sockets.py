"""Owners of tasks and attempts, with real sockets: what one name says of another one's counts for nothing."""

from collections.abc import Callable

import zmq
from guarded_support import Gate, Guarded, gate, guard

__all__ = ["gate", "guard"]  # fixtures

ANNOUNCE = b'ZB1 {"role": "worker", "label": "w"}'


def test_a_result_of_another_worker_counts_for_nothing_by_results(guard: Callable[..., Guarded], gate: Gate):
    alice, bob, mallory = (
        gate.let_in(name, roles) for name, roles in (("a", "client"), ("b", "worker"), ("m", "worker"))
    )
    guarded = guard()
    client, worker, other = guarded.client(alice), guarded.worker(bob), guarded.worker(mallory)
    worker.ready()
    client.send(b"task")
    attempt_id, _ = worker.receive()
    other.reply(attempt_id, b"forged")
    other.say(b"fail", attempt_id, b"forged")
    other.say(b"reject", attempt_id, b"forged")
    guarded.running.wait_for("malformed", 3)
    worker.reply(attempt_id, b"right")
    assert client.recv() == b"right"


def test_the_same_key_of_two_clients_is_of_two_tasks(guard: Callable[..., Guarded], gate: Gate):
    alice, bob, worker_key = (
        gate.let_in(name, roles) for name, roles in (("a", "client"), ("b", "client"), ("w", "worker"))
    )
    guarded = guard()
    worker = guarded.worker(worker_key)
    clients = [guarded.client(own, zmq.DEALER) for own in (alice, bob)]
    for client, body in zip(clients, (b"alice's", b"bob's"), strict=True):
        client.send_multipart([b'ZB1 {"key": "k"}', b"", body])
    for _ in clients:
        worker.echo()
    assert [client.recv_multipart()[-1] for client in clients] == [b"alice's", b"bob's"]


def test_who_has_two_keys_has_one_name(guard: Callable[..., Guarded], gate: Gate):
    old, new, worker_key = (
        gate.let_in(name, roles) for name, roles in (("a", "client"), ("a", "client"), ("w", "worker"))
    )
    guarded = guard()
    clients = [guarded.client(own, zmq.DEALER) for own in (old, new)]
    for client in clients:
        client.send_multipart([b'ZB1 {"key": "k"}', b"", b"task"])
        guarded.running.wait_until(lambda: guarded.running.count("accepted") + guarded.running.count("joined") >= 1)
    guarded.worker(worker_key).echo()
    assert [client.recv_multipart()[-1] for client in clients] == [b"task", b"task"]


def test_nobody_cancels_the_task_of_another_one(guard: Callable[..., Guarded], gate: Gate):
    alice, mallory, worker_key = (
        gate.let_in(name, roles) for name, roles in (("a", "client"), ("m", "client"), ("w", "worker"))
    )
    guarded = guard()
    client, other = guarded.client(alice, zmq.DEALER), guarded.client(mallory, zmq.DEALER)
    client.send_multipart([b'ZB1 {"key": "k"}', b"", b"task"])
    guarded.running.wait_for("accepted", 1)
    other.send_multipart([b'ZB1 {"key": "k", "cancel": true}', b"", b""])
    assert b'"invalid"' in other.recv_multipart()[0]
    guarded.worker(worker_key).echo()
    assert client.recv_multipart()[-1] == b"task"
