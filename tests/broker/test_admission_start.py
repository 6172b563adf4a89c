"""How a broker begins that has an identity, and why it does not; and what one without says."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from conftest import LOOPBACK, Peers, Running
from control_support import Asker
from guarded_support import ANY_PORT, Gate, Guarded, gate, guard, handshake

from zmqbroker import Broker
from zmqbroker.broker import admission
from zmqbroker.transport import curve
from zmqbroker.transport.addresses import is_exposed
from zmqbroker.transport.zap import ADDRESS

__all__ = ["gate", "guard"]  # fixtures


def test_a_context_that_has_another_zap_handler_is_refused(gate: Gate):
    with Peers() as peers:
        other = peers.context.socket(zmq.REP)
        other.bind(ADDRESS)
        with pytest.raises(ValueError, match="another ZAP handler"):
            broker(gate, context=peers.context)
        other.close()


def test_a_context_is_free_for_another_broker_as_soon_as_one_was_closed(gate: Gate):
    with Peers() as peers:
        with broker(gate, context=peers.context):
            with pytest.raises(ValueError, match="another ZAP handler"):
                broker(gate, context=peers.context)
            Broker(LOOPBACK, LOOPBACK, LOOPBACK, context=peers.context).close()
        for _ in range(10):  # it might be so by chance
            broker(gate, context=peers.context).close()


def broker(gate: Gate, **options: object) -> Broker:
    addresses = [options.pop(name, LOOPBACK) for name in ("requests", "ready", "results")]
    return Broker(*addresses, **{"identity": gate.identity, "authorized": gate.authorized} | options)  # type: ignore


def test_a_broker_that_lets_in_a_stranger_does_not_start(gate: Gate, monkeypatch):
    monkeypatch.setattr(admission.Admission, "_may_come_in", lambda self, newcomer: True)
    with pytest.raises(ValueError, match="fails open"):
        broker(gate)


def test_a_broker_that_nobody_guards_does_not_start(gate: Gate, monkeypatch):
    monkeypatch.setattr(curve, "enforce", lambda opened: None)
    monkeypatch.setattr("zmqbroker.transport.zap.ADDRESS", "inproc://nobody-asks-there")
    with pytest.raises(ValueError, match="fails open"):
        broker(gate)


def test_a_broker_that_nobody_answers_for_does_not_start(gate: Gate, monkeypatch):
    monkeypatch.setattr(curve, "TRIAL", 0.5)
    monkeypatch.setattr(admission.Admission, "judge", lambda self, now: None)
    with pytest.raises(ValueError, match="does not refuse a stranger"):
        broker(gate)


def test_a_libzmq_that_cannot_keep_strangers_out_is_refused(gate: Gate, monkeypatch):
    monkeypatch.setattr(curve, "ENFORCE", 9999)
    with pytest.raises(ValueError, match="ZAP_ENFORCE_DOMAIN"):
        broker(gate)


def test_every_socket_asks_for_zap_in_a_domain_of_its_own_and_hands_no_routing_id_over(guard, gate: Gate):
    sockets = guard().broker._sockets
    assert set(sockets.opened) == {"requests", "ready", "results", "control"}
    for where, opened in sockets.opened.items():
        assert opened.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
        assert opened.get_string(zmq.ZAP_DOMAIN) == where
        assert opened.mechanism == zmq.CURVE
        assert opened.handshake_ivl == 5000


@pytest.mark.parametrize("missing", ["identity", "authorized"])
def test_an_identity_and_the_authorized_go_together(gate: Gate, missing):
    with pytest.raises(ValueError, match="identity and authorized go together"):
        broker(gate, **{missing: None})


@pytest.mark.parametrize("where", ["requests", "ready", "results", "control"])
def test_inproc_has_no_identities(gate: Gate, where):
    with Peers() as peers, pytest.raises(ValueError, match="inproc://here knows no identities"):
        broker(gate, context=peers.context, **{where: "inproc://here"})


def test_a_file_of_the_authorized_that_makes_no_sense_is_refused_at_the_start(gate: Gate):
    gate.write("nonsense\n")
    with pytest.raises(ValueError, match="line 3: 1 words"):
        broker(gate)
    gate.authorized.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is no text"):
        broker(gate)
    gate.authorized.unlink()
    with pytest.raises(ValueError, match="no such file"):
        broker(gate)
    os.mkfifo(gate.authorized)
    with pytest.raises(ValueError, match="no such file"):
        broker(gate)


def test_a_secret_that_others_may_read_is_refused(gate: Gate):
    gate.identity.chmod(0o644)
    with pytest.raises(ValueError, match="may be read by others"):
        broker(gate)


def test_what_could_not_begin_leaves_its_addresses_and_its_store_free(gate: Gate, monkeypatch, tmp_path):
    with Peers() as peers:
        address = peers.context.socket(zmq.REP)
        address.bind(LOOPBACK)
        requests = address.get_string(zmq.LAST_ENDPOINT)
        address.close()
        with monkeypatch.context() as patch:
            patch.setattr(admission.Admission, "_may_come_in", lambda self, newcomer: True)
            with pytest.raises(ValueError, match="fails open"):
                broker(gate, requests=requests, store=tmp_path / "store")
        broker(gate, requests=requests, store=tmp_path / "store").close()


@pytest.mark.parametrize("address", ["tcp://*:*", "tcp://[::]:*", "tcp://[::1]:*", "ipc://{}/requests", "ipc://*"])
def test_its_doors_are_tried_at_each_kind_of_address(gate: Gate, address, tmp_path):
    alice = gate.let_in("alice", "client")
    with broker(gate, requests=address.format(tmp_path)) as made, Peers() as peers:
        own = {"ipv6": True} if "[" in address else {}
        bound = curve._reachable(made.addresses.requests)
        options = own | gate.keys(alice)
        assert handshake_while_it_runs(made, peers, bound, options) == zmq.EVENT_HANDSHAKE_SUCCEEDED


def handshake_while_it_runs(made: Broker, peers: Peers, bound: str, options: dict[str, Any]) -> int:
    import threading

    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        return handshake(peers, bound, zmq.DEALER, **options)
    finally:
        made.stop()
        made.stop()
        thread.join(20)


def test_serve_takes_an_identity_and_says_what_is_wrong_with_one_in_one_line(gate: Gate, start_program):
    files = "--identity", gate.identity, "--authorized", gate.authorized
    served = start_program("broker.py", *files, "--control", "none", *(LOOPBACK,) * 3)
    assert "identities needed" in served.wait_for("^limits ").string
    assert served.end() == 0
    gate.write("nonsense\n")
    refused = start_program("broker.py", *files, *(LOOPBACK,) * 3)
    assert refused.wait() == 2
    assert refused.lines[-1].startswith(f"broker.py: {gate.authorized}, line 3: 1 words: ")
    alone = start_program("broker.py", *files[:2], *(LOOPBACK,) * 3)
    assert alone.wait() == 2
    assert "identity and authorized go together" in alone.lines[-1]


# Without identities


@pytest.mark.parametrize(
    ("bound", "exposed"),
    [
        ("tcp://0.0.0.0:4161", True),
        ("tcp://[::]:4161", True),
        ("tcp://192.168.0.7:4161", True),
        ("tcp://127.0.0.1:4161", False),
        ("tcp://127.1.2.3:4161", False),
        ("tcp://[::1]:4161", False),
        ("ipc:///tmp/requests", False),
        ("inproc://requests", False),
    ],
)
def test_an_address_of_tcp_that_is_not_loopback_is_exposed(bound, exposed):
    assert is_exposed(bound) is exposed


def test_a_broker_that_lets_in_nobody_says_so(gate: Gate, caplog: pytest.LogCaptureFixture):
    with broker(gate):
        assert caplog.messages == [
            f"{gate.authorized} authorizes nobody: add lines as `zmqbroker identity show FILE` prints them"
        ]


def test_a_broker_that_anybody_reaches_says_so_once_and_in_its_status(start: Callable[..., Running], caplog):
    running = start(requests="tcp://*:*", ready="tcp://0.0.0.0:*", control=ANY_PORT)
    exposed = [running.addresses.requests, running.addresses.ready]
    assert caplog.text.count(f"WITHOUT IDENTITIES, whoever reaches {', '.join(exposed)} may") == 1
    status = Asker(running, running.broker.control_address).ask(ask="status")
    assert (status["identities"], status["open_to"], status["refusals"]) == (False, exposed, None)


def test_a_broker_on_loopback_or_with_an_identity_does_not_say_so(start, guard: Callable[..., Guarded], caplog):
    start()
    guard(requests="tcp://*:*")
    assert "IDENTITIES" not in caplog.text
