"""Who may be at an address: this machine alone, or a stranger, from whom nobody takes pickles."""

import pytest

from zmqbroker.transport import trust
from zmqbroker.transport.destination import Destination
from zmqbroker.transport.identity import Credentials, Identity
from zmqbroker.transport.trust import refuse_strangers

NAMES = {"here": ["127.0.0.1", "::1"], "away": ["192.0.2.1"], "both": ["127.0.0.1", "192.0.2.1"], "nowhere": []}
CREDENTIALS = Credentials(Identity(b"public", b"secret"), b"broker")


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "addresses_of", lambda target: NAMES[target.host])


def refusal(address: str, credentials: Credentials | None = None) -> str:
    try:
        refuse_strangers(Destination(address, credentials=credentials), "is a danger", "--identity", "--trust")
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "address",
    [
        "ipc:///tmp/tasks",
        "inproc://tasks",
        "tcp://127.0.0.1:1",
        "tcp://127.1.2.3:1",
        "tcp://[::1]:1",
        "tcp://localhost:1",
        "tcp://here:1",
        "tcp://192.0.2.1:0;127.0.0.1:1",
    ],
)
def test_this_machine_is_trusted(address):
    assert refusal(address) == ""


@pytest.mark.parametrize(
    "address",
    [
        "tcp://192.0.2.1:1",
        "tcp://0.0.0.0:1",
        "tcp://[::]:1",
        "tcp://[2001:db8::1]:1",
        "tcp://127.0.0.1:0;192.0.2.1:1",
        "tcp://away:1",
        "tcp://both:1",
        "vmci://2:1",
    ],
)
def test_another_machine_is_not(address):
    told = "may be another machine, and without identities whoever is a danger: give --identity, or --trust;"
    with pytest.raises(ValueError, match=told):
        refuse_strangers(Destination(address), "is a danger", "--identity", "--trust")
    assert refusal(address, CREDENTIALS) == ""


def test_a_name_that_does_not_resolve_is_not_trusted():
    assert refusal("tcp://nowhere:1").startswith(
        "tcp://nowhere:1 has a name that does not resolve now, so it may be another machine, and without identities "
    )
    assert refusal("tcp://nowhere:1", CREDENTIALS) == ""


def test_a_name_server_that_is_silent_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trust, "NAME_PATIENCE", 0.0)
    monkeypatch.setattr(trust, "ask_within", lambda _, seconds: None if seconds == 0 else ["127.0.0.1"])
    assert "does not resolve now" in refusal("tcp://here:1")
