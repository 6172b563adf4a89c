"""What somebody with one role, or with none, tries at a broker with an identity: nothing comes of it. Real sockets."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import zmq
from conftest import PATIENCE_MS
from guarded_support import SUCCEEDED, Gate, Guarded, gate, guard

from zmqbroker.broker import admission
from zmqbroker.transport.identity import Identity

__all__ = ["gate", "guard"]  # fixtures

ANNOUNCE = [b'ZB1 {"role": "worker", "protocol": 1}', b""]


class Cast(NamedTuple):
    """Who is authorized, each for what it is called after."""

    client: Identity
    other_client: Identity
    worker: Identity
    other_worker: Identity
    observer: Identity
    admin: Identity


@pytest.fixture
def cast(gate: Gate) -> Cast:
    return Cast(*(gate.let_in(name, name.rpartition("_")[2]) for name in Cast._fields))


@pytest.fixture
def guarded(cast: Cast, guard: Callable[..., Guarded], tmp_path: Path) -> Guarded:
    """Return a broker with a store, to which these may come."""
    return guard(store=tmp_path / "store")


def announced(guarded: Guarded, own: Identity, *attempt_ids: bytes) -> "zmq.Socket[bytes]":
    """Return the socket of a worker that has announced itself, and is welcome."""
    opened = guarded.open("ready", zmq.DEALER, own)
    opened.send_multipart([*ANNOUNCE, *attempt_ids])
    assert b'"broker"' in opened.recv_multipart()[0]
    return opened


def others(attempt_id: bytes) -> list[bytes]:
    """Return what can be made of the id of an attempt: other hand-outs, of other tasks, of another run."""
    run, number, hand_out, token = (attempt_id[start : start + 8] for start in (0, 8, 16, 24))
    next_one = (int.from_bytes(hand_out, "big") + 1).to_bytes(8, "big")
    return [
        run + number + next_one + token,
        run + number + bytes(8) + token,
        run + number + b"\xff" * 8 + token,
        run + number + hand_out + bytes(8),
        run + bytes(7) + b"\2" + hand_out + token,
        bytes(8) + number + hand_out + token,
        attempt_id[:-1],
        attempt_id + b"\0",
        b"",
    ]


# Attempts


def test_nothing_counts_that_a_worker_says_of_the_attempt_of_another_name(guarded: Guarded, cast: Cast):
    client, worker = guarded.client(cast.client), guarded.worker(cast.worker)
    client.send(b"task")
    attempt_id, _ = worker.take()
    thief, plain = announced(guarded, cast.other_worker, attempt_id), guarded.worker(cast.other_worker)
    assert thief.recv_multipart() == [b"ZB1 cancel " + attempt_id, b""]
    said = 0
    for one in [attempt_id, *others(attempt_id)]:
        for verb in (b"done 0 ", b"fail 0 ", b"reject 0 ", b"release 0 ", b"touch ", b"progress "):
            thief.send_multipart([b"", b"ZB1 " + verb + one, b"1"])
        for verb in (b"fail", b"reject", b"release", b"touch"):
            plain.say(verb, one, b"1")
        plain.reply(one, b"stolen")
        plain.reply(one)
        said += 12
    guarded.running.wait_until(lambda: guarded.running.count("malformed") + guarded.running.count("late") >= said)
    assert guarded.running.count("running") == 1
    worker.reply(attempt_id, b"right")
    assert client.recv() == b"right"
    assert (guarded.running.count("attempts"), guarded.running.count("done")) == (1, 1)


def test_who_names_the_attempt_of_another_name_in_an_announce_is_counted(guarded: Guarded, cast: Cast):
    worker = guarded.worker(cast.worker)
    guarded.client(cast.client, zmq.DEALER).send_multipart([b"", b"task"])
    attempt_id, _ = worker.take()
    announced(guarded, cast.other_worker, attempt_id)
    guarded.running.wait_for("malformed", 1)


def test_who_had_a_task_before_makes_up_no_attempt_of_who_has_it_now(cast: Cast, guard: Callable[..., Guarded]):
    guarded = guard(tries=3)
    client, first, second = guarded.client(cast.client), guarded.worker(cast.other_worker), guarded.worker(cast.worker)
    client.send(b"task")
    earlier, _ = first.take()
    first.say(b"fail", earlier)
    attempt_id, _ = second.take()
    assert earlier[24:] == attempt_id[24:]
    for made_up in (attempt_id, others(attempt_id)[0]):
        for verb in (b"fail", b"reject", b"release", b"touch"):
            first.say(verb, made_up, b"1")
        first.reply(made_up, b"stolen")
    guarded.running.wait_for("malformed", 10)
    second.reply(attempt_id, b"right")
    assert client.recv() == b"right"


def test_a_worker_withdraws_nothing_that_others_have_asked_for(guarded: Guarded, cast: Cast):
    worker, thief = guarded.worker(cast.worker), announced(guarded, cast.other_worker)
    worker.ready()
    guarded.running.wait_for("idle", 1)
    thief.send_multipart([b"", b"ZB1 withdraw 64"])
    assert thief.recv_multipart()[0].startswith(b"ZB1 withdrawn")
    client = guarded.client(cast.client)
    client.send(b"task")
    worker.reply(worker.receive()[0], b"done")
    assert client.recv() == b"done"


# Keys


def test_a_request_says_nothing_of_its_owner(guarded: Guarded, cast: Cast):
    client = guarded.client(cast.other_client, zmq.DEALER)
    for field in ("owner", "name", "user", "User-Id", "identity"):
        client.send_multipart([b'ZB1 {"key": "k", "%s": "client"}' % field.encode(), b"", b"task"])
        assert b'"status":"invalid"' in client.recv_multipart()[0].replace(b" ", b"")
    assert guarded.running.count("accepted") == 0


WISHES = (
    b'"cancel": true',
    b'"fetch": 0',
    b'"forget": true',
    b'"fetch": 0, "forget": true',
    b'"fetch": 0, "body": true',
)


def test_nobody_gets_at_a_task_by_the_key_of_another_name(cast: Cast, guard: Callable[..., Guarded], tmp_path: Path):
    guarded = guard(store=tmp_path / "store", tries=1)
    client, thief = guarded.client(cast.client, zmq.DEALER), guarded.client(cast.other_client, zmq.DEALER)
    worker = guarded.worker(cast.worker)
    for key, more in ((b"memory", b""), (b"stored", b', "detach": true')):
        client.send_multipart([b'ZB1 {"key": "%s"%s}' % (key, more), b"", key])
    assert b"accepted" in client.recv_multipart()[0]
    try_all(thief)
    for _ in range(2):
        worker.echo()
    client.recv_multipart()
    guarded.running.wait_for("done", 2)
    try_all(thief)
    guarded.running.stop()
    guarded.broker.close()
    again = guard(store=tmp_path / "store")
    try_all(again.client(cast.other_client, zmq.DEALER))
    owner = again.client(cast.client, zmq.DEALER)
    owner.send_multipart([b'ZB1 {"key": "stored", "fetch": 0}', b"", b""])
    assert owner.recv_multipart()[-1] == b"stored"


def try_all(thief: "zmq.Socket[bytes]") -> None:
    """Have somebody ask for, cancel and forget what is another one's."""
    for key in (b"memory", b"stored"):
        for wish in WISHES:
            thief.send_multipart([b'ZB1 {"key": "%s", %s}' % (key, wish), b"", b""])
            header, *_, body = thief.recv_multipart()
            assert (b"unknown" in header or b"invalid" in header, body) == (True, b"")


# Who is turned out


def test_the_reply_to_who_was_turned_out_is_for_the_next_key_of_that_name(guarded: Guarded, gate: Gate, cast: Cast):
    second = gate.let_in("client", "client")
    client, worker = guarded.client(cast.client, zmq.DEALER), guarded.worker(cast.worker)
    client.send_multipart([b'ZB1 {"key": "k"}', b"", b"task"])
    attempt_id, _ = worker.take()
    gate.take_out(cast.client)
    guarded.running.wait_until(lambda: not guarded.broker._sockets.handshakes["requests"].open)
    worker.reply(attempt_id, b"result")
    guarded.running.wait_for("undeliverable", 1)
    assert not client.poll(0)
    guarded.running.wait_until(lambda: guarded.handshake("requests", zmq.DEALER, **gate.keys(second)) == SUCCEEDED)
    other = guarded.client(second, zmq.DEALER)
    other.send_multipart([b'ZB1 {"key": "k", "fetch": 0}', b"", b""])
    assert other.recv_multipart()[-1] == b"result"


def test_who_has_another_role_now_speaks_as_that_one_alone(guarded: Guarded, gate: Gate, cast: Cast):
    worker, client = announced(guarded, cast.worker), guarded.client(cast.client)
    asker = guarded.open("control", zmq.DEALER, cast.admin)
    worker.send_multipart([b"", b"ZB1 ready 1"])
    client.send(b"task")
    attempt_id = worker.recv_multipart()[1]
    assert change(asker)["ok"]
    for own, new in ((cast.worker, "client"), (cast.admin, "observer")):
        gate.lines[own] = new + gate.lines[own][gate.lines[own].index(" ") :]
    gate.write()
    guarded.running.wait_for("lost", 1)
    worker.send_multipart([b"", b"ZB1 done 1 " + attempt_id, b"wrong"])
    guarded.worker(cast.other_worker).echo()
    assert client.recv() == b"task"
    assert "is for an admin" in change(asker)["error"]


def change(asker: "zmq.Socket[bytes]") -> dict[str, Any]:
    asker.send_multipart([b"", b'{"zmqbroker": 1, "ask": "pause", "queue": "other"}'])
    answer: dict[str, Any] = json.loads(asker.recv_multipart()[-1])
    return answer


def test_who_was_turned_out_is_cut_off_at_last_though_another_one_had_its_descriptor(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(admission, "hang_up", ended.append)
    door = admission.Door("requests", SimpleNamespace(open={7}), None)  # type: ignore[arg-type]
    door._spoken[7] = admission.Speaker("of who has left", "bob", frozenset())
    door._end(7, "of who was turned out")
    assert ended == []
    door._end(7, "of who was turned out")
    assert ended == [7]


# Who has no identity


def greeting(mechanism: bytes, is_server: bool = False) -> bytes:
    return b"\xff" + bytes(7) + b"\x01\x7f\3\0" + mechanism.ljust(20, b"\0") + bytes([is_server]) + bytes(31)


TASK = b"\1\0\0\4task"  # two frames
COMMAND = b"\4\x1a\5READY\x0bSocket-Type\0\0\0\6DEALER"
WITHOUT = {
    "ZMTP 1.0": [b"\1\0\1\0\5\0task"],
    "ZMTP 2.0": [b"\xff" + bytes(7) + b"\x01\x7f", b"\1\5\0\0", TASK],
    "NULL": [greeting(b"NULL"), COMMAND, TASK],
    "PLAIN": [greeting(b"PLAIN"), b"\4\x08\5HELLO\0\0", TASK],
    "a task at once": [greeting(b"CURVE"), TASK],
    "READY at once": [greeting(b"CURVE"), COMMAND, TASK],
    "noise": [greeting(b"CURVE"), b"\4\xc8\5HELLO" + b"\x5a" * 194, TASK],
    "an error": [greeting(b"CURVE"), b"\4\x0a\5ERROR\x03400", TASK],
    "a server": [greeting(b"CURVE", is_server=True), COMMAND, TASK],
    "too large": [greeting(b"CURVE"), b"\6" + b"\x7f" * 8, TASK],
}


def test_whoever_speaks_zmtp_without_curve_is_cut_off_and_has_said_nothing(guarded: Guarded, cast: Cast):
    for pieces in WITHOUT.values():
        assert is_cut_off(guarded.addresses["requests"], pieces)
    assert guarded.running.count("accepted") == guarded.running.count("malformed") == 0
    client = guarded.client(cast.client)
    client.send(b"task")
    guarded.worker(cast.worker).echo()
    assert client.recv() == b"task"


def is_cut_off(address: str, pieces: list[bytes]) -> bool:
    """Send bytes, piece by piece, and tell whether the other side ends the connection."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_MS / 1000) as raw:
        try:
            for piece in pieces:
                raw.sendall(piece)
            while raw.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
    return True


def test_a_connection_that_somebody_has_listened_to_is_of_no_use_once_more(guarded: Guarded, cast: Cast):
    heard: list[bytes] = []
    with listening(guarded.addresses["requests"], heard) as address:
        client = guarded.running.open(zmq.DEALER, address, **guarded.gate.keys(cast.client))
        client.send_multipart([b"", b"task"])
        guarded.running.wait_for("accepted", 1)
    assert is_cut_off(guarded.addresses["requests"], heard)
    assert is_cut_off(guarded.addresses["requests"], [b"".join(heard)])
    assert guarded.running.count("accepted") == 1
    assert not any(b"task" in piece for piece in heard)


@contextmanager
def listening(address: str, heard: list[bytes]) -> Iterator[str]:
    """Pass on one connection, and write down what its client says, to the end of the block."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as closing:

        def pass_on() -> None:
            near = closing.enter_context(server.accept()[0])
            far = closing.enter_context(socket.create_connection((host, int(port))))
            while ready := select.select([near, far, stop], [], [])[0]:
                for one in ready:
                    piece = b"" if one is stop else one.recv(65536)
                    if not piece:
                        return
                    if one is near:
                        heard.append(piece)
                    (far if one is near else near).sendall(piece)

        stop, stopper = socket.socketpair()
        thread = threading.Thread(target=pass_on)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        stopper.close()
        thread.join()
        stop.close()
