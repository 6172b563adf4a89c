"""Who may come to a broker with an identity, and who may speak there: with real sockets."""

import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from conftest import Running
from guarded_support import FAILED, REFUSED, SUCCEEDED, Gate, Guarded, gate, guard, next_one, watched

from zmqbroker.broker import admission
from zmqbroker.broker.control import Control
from zmqbroker.broker.desk import OBSERVED
from zmqbroker.broker.dispatch import Dispatcher
from zmqbroker.transport.identity import Identity
from zmqbroker.transport.zap import ADDRESS

__all__ = ["gate", "guard"]  # fixtures

KINDS = {"requests": zmq.DEALER, "ready": zmq.DEALER, "results": zmq.PUSH, "control": zmq.DEALER}
MAY = {"client": ["requests"], "worker": ["ready", "results"], "observer": ["control"], "admin": ["control"]}


def stranger() -> Identity:
    return Identity(*zmq.curve_keypair())


@pytest.mark.parametrize("role", MAY)
def test_a_role_opens_the_sockets_that_belong_to_it_and_no_others(guard: Callable[..., Guarded], gate: Gate, role):
    own = gate.let_in("somebody", role)
    guarded = guard()
    opened = [where for where, kind in KINDS.items() if guarded.handshake(where, kind, **gate.keys(own)) == SUCCEEDED]
    assert opened == MAY[role]


def test_several_roles_open_what_each_of_them_does(guard: Callable[..., Guarded], gate: Gate):
    own = gate.let_in("somebody", "client,worker")
    guarded = guard()
    worker, client = guarded.worker(own), guarded.client(own)
    worker.ready()
    client.send(b"task")
    worker.reply(*[worker.receive()[0], b"result"])
    assert client.recv() == b"result"


@pytest.mark.parametrize("where", KINDS)
def test_a_key_that_is_not_authorized_is_refused_at_each_socket_and_told_so(guard, gate, where):
    guarded = guard()
    assert guarded.handshake(where, KINDS[where], **gate.keys(stranger())) == REFUSED


@pytest.mark.parametrize("where", KINDS)
def test_a_plain_peer_is_let_in_nowhere(guard: Callable[..., Guarded], where):
    guarded = guard()
    assert guarded.handshake(where, KINDS[where]) & FAILED


def test_who_has_another_key_of_the_broker_is_not_let_in(guard: Callable[..., Guarded], gate: Gate):
    own = gate.let_in("alice", "client")
    guarded = guard()
    wrong = gate.keys(own) | {"curve_serverkey": stranger().public}
    assert guarded.handshake("requests", zmq.DEALER, **wrong) != SUCCEEDED


def test_refusals_are_counted_by_address_and_key(guard: Callable[..., Guarded], gate: Gate):
    eve, bob, watcher = stranger(), gate.let_in("bob", "worker"), gate.let_in("watcher", "observer")
    guarded = guard()
    for who in (eve, bob, eve):
        assert guarded.handshake("requests", zmq.DEALER, **gate.keys(who)) == REFUSED
    refusals = guarded.status(watcher)["refusals"]
    assert refusals["total"] == 3
    last = [{name: one[name] for name in ("address", "key", "where", "reason", "count")} for one in refusals["last"]]
    about = {"address": "127.0.0.1", "where": "requests"}
    assert last == [
        about | {"key": eve.public.decode(), "reason": admission.UNKNOWN, "count": 2},
        about | {"key": bob.public.decode(), "reason": "it takes client, and 'bob' is worker", "count": 1},
    ]


def test_the_broker_does_not_tell_of_how_it_has_tried_its_own_doors(guard, gate, caplog):
    watcher = gate.let_in("watcher", "observer")
    guarded = guard()
    status = guarded.status(watcher)
    assert (status["refusals"], status["identities"], status["open_to"]) == ({"total": 0, "last": []}, True, [])
    guarded.running.stop()
    assert caplog.text == ""


def test_a_refusal_is_one_line_in_the_log_and_a_plain_peer_another(guard, gate, caplog):
    gate.let_in("alice", "client")
    guarded = guard()
    assert guarded.handshake("requests", zmq.DEALER, **gate.keys(stranger())) == REFUSED
    guarded.running.wait_until(lambda: not guarded.broker._sockets.handshakes["requests"].open)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "refused at REQUESTS: 127.0.0.1 with the key " in caplog.text
    guarded.handshake("requests", zmq.DEALER)
    guarded.running.wait_until(lambda: "over before its handshake: no identity" in caplog.text)


# What changes


def test_a_key_that_is_added_later_is_let_in(guard: Callable[..., Guarded], gate: Gate):
    guarded = guard()
    new = gate.let_in("alice", "client")
    guarded.running.wait_until(lambda: guarded.handshake("requests", zmq.DEALER, **gate.keys(new)) == SUCCEEDED)


def test_what_a_worker_has_is_lost_at_once_when_its_line_is_taken_out(guard: Callable[..., Guarded], gate: Gate):
    alice, mallory, bob = gate.let_in("alice", "client"), gate.let_in("m", "worker"), gate.let_in("bob", "worker")
    guarded = guard(tries=2)
    first, client = guarded.worker(mallory), guarded.client(alice)
    first.ready()
    client.send(b"task")
    attempt_id, _ = first.receive()
    gate.take_out(mallory)
    second = guarded.worker(bob)
    second.ready()
    second_id, body = second.receive()
    assert body == [b"task"]
    first.reply(attempt_id, b"wrong")
    second.reply(second_id, b"right")
    assert client.recv() == b"right"


def test_the_connections_of_who_was_taken_out_are_ended(guard: Callable[..., Guarded], gate: Gate):
    alice, watcher = gate.let_in("alice", "client"), gate.let_in("watcher", "observer")
    guarded = guard()
    with watched(guarded.running, guarded.addresses["requests"], zmq.DEALER, **gate.keys(alice)) as (client, monitor):
        client.send_multipart([b"", b"waits"])
        assert next_one(monitor) == SUCCEEDED
        guarded.running.wait_for("accepted", 1)
        gate.take_out(alice)
        assert next_one(monitor) == REFUSED  # it was cut off, and has come back
    assert guarded.status(watcher)["refusals"]["last"][0]["key"] == alice.public.decode()


def test_an_idle_worker_that_was_taken_out_gets_no_task(guard, gate, monkeypatch):
    monkeypatch.setattr(admission, "hang_up", lambda descriptor: None)
    alice, mallory, bob = gate.let_in("alice", "client"), gate.let_in("m", "worker"), gate.let_in("bob", "worker")
    guarded = guard()
    first, client = guarded.worker(mallory), guarded.client(alice)
    first.ready()
    guarded.running.wait_for("idle", 1)
    gate.take_out(mallory)
    guarded.running.wait_until(lambda: guarded.running.count("idle") == 0)
    client.send(b"task")
    assert guarded.worker(bob).echo() == [b"task"]
    assert client.recv() == b"task"


def test_what_is_said_by_who_was_taken_out_counts_no_more_though_the_connection_lives(guard, gate, monkeypatch):
    monkeypatch.setattr(admission, "hang_up", lambda descriptor: None)
    mallory, watcher = gate.let_in("m", "client"), gate.let_in("watcher", "observer")
    guarded = guard()
    client = guarded.client(mallory, zmq.DEALER)
    client.send_multipart([b"", b"1"])
    guarded.running.wait_for("accepted", 1)
    gate.take_out(mallory)
    guarded.running.wait_until(lambda: _says_in_vain(guarded, client, watcher))
    accepted = guarded.running.count("accepted")
    client.send_multipart([b"x"] * 2000)
    client.send_multipart([b"", b"2"])
    before = guarded.status(watcher)["refusals"]["total"]
    guarded.running.wait_until(lambda: guarded.status(watcher)["refusals"]["total"] >= before)
    assert guarded.running.count("accepted") == accepted
    assert not client.poll(0)


def _says_in_vain(guarded: Guarded, client: "zmq.Socket[bytes]", watcher: Identity) -> bool:
    client.send_multipart([b"", b"1"])
    return bool(guarded.status(watcher)["refusals"]["total"])


def test_a_bad_line_keeps_in_force_what_was_and_is_named_once(guard, gate, caplog):
    alice = gate.let_in("alice", "client")
    guarded = guard()
    gate.write("clown " + stranger().public.decode() + " eve\n")
    guarded.running.wait_until(lambda: "line 4: 'clown' is no role" in caplog.text)
    assert guarded.handshake("requests", zmq.DEALER, **gate.keys(alice)) == SUCCEEDED
    gate.authorized.unlink()
    guarded.running.wait_until(lambda: f"cannot read {gate.authorized}" in caplog.text)
    assert guarded.handshake("requests", zmq.DEALER, **gate.keys(alice)) == SUCCEEDED
    assert caplog.text.count("no role") == 1
    bob = gate.let_in("bob", "client")
    guarded.running.wait_until(lambda: guarded.handshake("requests", zmq.DEALER, **gate.keys(bob)) == SUCCEEDED)


def test_a_key_that_gets_another_name_comes_in_anew(guard: Callable[..., Guarded], gate: Gate):
    alice, own = gate.let_in("alice", "client"), gate.let_in("bob", "worker")
    guarded = guard()
    worker, client = guarded.worker(own), guarded.client(alice)
    worker.ready()
    client.send(b"task")
    worker.receive()
    gate.lines[own] = gate.lines[own].replace("bob", "robert")
    gate.write()
    guarded.running.wait_for("lost", 1)
    assert guarded.worker(own).echo() == [b"task"]
    assert client.recv() == b"task"


def test_a_key_that_gets_another_role_as_well_stays(guard: Callable[..., Guarded], gate: Gate):
    own = gate.let_in("bob", "client")
    guarded = guard()
    client = guarded.client(own)
    client.send(b"task")
    guarded.running.wait_for("accepted", 1)
    gate.lines[own] = gate.lines[own].replace("client", "client,worker")
    gate.write()
    guarded.running.wait_until(lambda: guarded.handshake("ready", zmq.DEALER, **gate.keys(own)) == SUCCEEDED)
    guarded.worker(own).echo()
    assert client.recv() == b"task"


# Routing ids


@pytest.mark.parametrize("chosen", [b"chosen", b"\0", b"\0chosen"])
def test_a_request_with_a_routing_id_that_was_chosen_is_invalid(guard: Callable[..., Guarded], gate: Gate, chosen):
    alice = gate.let_in("alice", "client")
    guarded = guard()
    client = guarded.client(alice, zmq.DEALER, routing_id=chosen)
    client.send_multipart([b'ZB1 {"key": "k"}', b"", b"task"])
    header = client.recv_multipart()[0]
    assert admission.CHOSEN in header.decode()
    assert guarded.running.count("accepted") == 0


def test_a_worker_with_a_routing_id_that_it_chose_gets_no_task(guard: Callable[..., Guarded], gate: Gate):
    alice, bob, watcher = gate.let_in("a", "client"), gate.let_in("b", "worker"), gate.let_in("w", "observer")
    guarded = guard()
    guarded.worker(bob, routing_id=b"chosen").ready()
    guarded.running.wait_until(lambda: guarded.status(watcher)["refusals"]["total"] == 1)
    assert guarded.status(watcher)["refusals"]["last"][0]["reason"] == admission.CHOSEN
    client = guarded.client(alice)
    client.send(b"task")
    assert guarded.worker(bob).echo() == [b"task"]


def test_a_routing_id_is_not_handed_over_to_a_newcomer(guard: Callable[..., Guarded], gate: Gate):
    alice, mallory = gate.let_in("alice", "client"), gate.let_in("mallory", "client")
    guarded = guard()
    client = guarded.client(alice, zmq.DEALER, routing_id=b"chosen")
    client.send_multipart([b'ZB1 {"key": "k"}', b"", b"task"])
    assert admission.CHOSEN in client.recv_multipart()[0].decode()
    other = guarded.client(mallory, zmq.DEALER, routing_id=b"chosen")
    other.send_multipart([b"", b"task"])
    guarded.client(mallory, zmq.DEALER).send_multipart([b"", b"a task"])
    guarded.running.wait_for("accepted", 1)
    client.send_multipart([b'ZB1 {"key": "k"}', b"", b"task"])
    assert admission.CHOSEN in client.recv_multipart()[0].decode()
    assert not other.poll(0)


# ZAP


def test_what_is_no_question_of_zap_stops_nobody(guard: Callable[..., Guarded], gate: Gate):
    alice = gate.let_in("alice", "client")
    guarded = guard()
    chance = random.Random(16)
    good = [b"1.0", b"1", b"requests", b"127.0.0.1", b"", b"CURVE", b"k" * 32]
    questions = [
        [],
        [b""],
        good[:6],
        [*good, b""],
        [b"2.0", *good[1:]],
        [*good[:5], b"NULL"],
        [*good[:5], b"GSSAPI", b"\xff"],
    ]
    questions += [[*good[:6], b"k" * length] for length in (0, 31, 33)]
    questions += [chance.choices([*good, b"\xff" * 40, b""], k=chance.randrange(1, 12)) for _ in range(200)]
    for question in questions:
        asker = guarded.running.open(zmq.REQ, ADDRESS)
        asker.send_multipart(question or [b""])
        assert asker.recv_multipart()[2] == b"400"
        asker.close()
    assert guarded.handshake("requests", zmq.DEALER, **gate.keys(alice)) == SUCCEEDED


def test_a_question_of_zap_about_a_plain_peer_is_answered_by_no(guard: Callable[..., Guarded]):
    guarded = guard()
    asker = guarded.running.open(zmq.REQ, ADDRESS)
    asker.send_multipart([b"1.0", b"7", b"requests", b"127.0.0.1", b"", b"NULL"])
    assert asker.recv_multipart() == [b"1.0", b"7", b"400", b"refused", b"", b""]


# The control socket


def test_an_observer_asks_and_changes_nothing(guard: Callable[..., Guarded], gate: Gate):
    watcher = gate.let_in("watcher", "observer")
    guarded = guard()
    for ask in ("status", "queues", "workers", "tasks", "failures"):
        assert guarded.ask(watcher, ask=ask)["ok"]
    for ask in ("pause", "resume", "limit", "cancel", "retry", "forget", "drain", "anything", "", None, 1):
        answer = guarded.ask(watcher, ask=ask, queue="default", key="k")
        assert answer["ok"] is False
        assert "an observer may ask for one of status," in answer["error"]
    assert guarded.status(watcher)["state"] == "serving"


def test_all_that_can_be_asked_for_is_a_question_of_an_observer_or_a_change_of_an_admin():
    changes = {"pause", "resume", "limit", "cancel", "retry", "forget", "drain"}
    control = Control(Dispatcher(), lambda worker: "", lambda: None)
    assert {*OBSERVED} | changes == set(control._answers)
    assert not {*OBSERVED} & changes


def test_an_admin_asks_and_changes_things(guard: Callable[..., Guarded], gate: Gate):
    admin = gate.let_in("root", "admin")
    guarded = guard()
    assert guarded.ask(admin, ask="limit", queue="gpu", running=1)["queue"]["limit"] == 1
    assert "gpu" in [queue["name"] for queue in guarded.status(admin)["queues"]]


def test_an_observer_gets_no_body_of_a_stored_task(guard: Callable[..., Guarded], gate: Gate, tmp_path: Path):
    alice, bob = gate.let_in("alice", "client"), gate.let_in("bob", "worker")
    watcher, admin = gate.let_in("watcher", "observer"), gate.let_in("root", "admin")
    guarded = guard(store=tmp_path / "store", tries=1)
    client, worker = guarded.client(alice, zmq.DEALER), guarded.worker(bob)
    client.send_multipart([b'ZB1 {"key": "k", "durable": true}', b"", b"secret"])
    attempt_id, _ = worker.take()
    worker.say(b"fail", attempt_id, b"no")
    assert b'"failed"' in client.recv_multipart()[0]
    told = {own: guarded.ask(own, ask="task", number=1)["stored"] for own in (watcher, admin)}
    assert (told[watcher].pop("body"), told[admin].pop("body")) == (None, "secret")
    ages = ("age", "kept")
    assert all(told[watcher][name] == told[admin][name] for name in told[admin] if name not in ages)


def test_looking_whether_anybody_listens_at_a_control_socket_that_is_a_file_is_no_news(
    start: Callable[..., Running], gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    watcher = gate.let_in("watcher", "observer")
    path = f"{tmp_path}/c"
    guarded = Guarded(start(identity=gate.identity, authorized=gate.authorized, control=f"ipc://{path}"), gate)
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    for _ in range(2):
        assert guarded.status(watcher)["refusals"]["total"] == 0
    assert "CONTROL" not in caplog.text
