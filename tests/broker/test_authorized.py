"""The file of the authorized, as text; and who was refused, as a table."""

import pytest
import zmq

from zmqbroker.broker.authorized import Authorized, parse_authorized
from zmqbroker.broker.refusals import LONGEST_ADDRESS, MOST_STRANGERS, Refusals, Stranger

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
OTHER = "1#1" + "1" * 37  # a # in a key begins no comment


def test_a_line_has_roles_a_key_and_a_name():
    found = parse_authorized(f"client,worker {KEY} alice\nadmin\t{OTHER}   bob#1\r\n", "file")
    assert found == {
        KEY: Authorized("alice", frozenset({"client", "worker"})),
        OTHER: Authorized("bob#1", frozenset({"admin"})),
    }


def test_comments_and_empty_lines_say_nothing():
    assert parse_authorized(f"# {KEY}\n\n   \n  # client {KEY} alice\n#client {KEY} alice", "file") == {}


def test_two_keys_may_have_one_name():
    found = parse_authorized(f"client {KEY} alice\nworker {OTHER} alice", "file")
    assert [one.name for one in found.values()] == ["alice", "alice"]


def test_any_key_that_zeromq_makes_is_one():
    for _ in range(200):
        key = zmq.curve_keypair()[0].decode()
        assert key in parse_authorized(f"client {key} alice", "file")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"clown {KEY} alice", "'clown' is no role"),
        (f"client,,worker {KEY} alice", "'' is no role"),
        (f"Client {KEY} alice", "'Client' is no role"),
        (f"client, worker {KEY} alice", "4 words"),
        (f"client {KEY}", "2 words"),
        (f"{KEY} client alice", "is no role"),
        (f"client {KEY} alice in chains", "5 words"),
        (f"client {KEY[:-1]} alice", "is no public key"),
        (f"client {KEY}0 alice", "is no public key"),
        (f"client {KEY[:-1]}\\ alice", "is no public key"),
        (f"client {KEY[:-5]}##### alice", "is no public key"),  # more than 32 bits
        (f"client {KEY} {'a' * 101}", "is no name"),
        (f"client {KEY} al\x1bice", "is no name"),
        (f"client {KEY} al\u202eice", "is no name"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_what_is_wrong(line, why):
    with pytest.raises(ValueError, match=r"^some/file, line 3: .*") as raised:
        parse_authorized(f"# who\nworker {OTHER} bob\n{line}\n", "some/file")
    assert why in str(raised.value)


def test_a_key_that_is_there_twice_is_named_with_whose_it_is():
    with pytest.raises(ValueError, match=r"line 2: this key is there already, as that of alice"):
        parse_authorized(f"client {KEY} alice\nworker {KEY} bob", "file")


# Who was refused


def eve(address: str = "10.0.0.5", key: str = KEY, reason: str = "unknown") -> Stranger:
    return Stranger(address, key, "requests", reason)


def test_refusals_are_counted_by_address_and_key_and_the_last_one_comes_first():
    refusals = Refusals()
    for stranger, now in ((eve(), 1.0), (eve("10.0.0.6"), 2.0), (eve(reason="other"), 3.0)):
        refusals.note(stranger, now)
    about = refusals.about(20, 5.0)
    assert about["total"] == 3
    assert about["last"] == [
        {"address": "10.0.0.5", "key": KEY, "where": "requests", "reason": "other", "count": 2, "age": 2.0},
        {"address": "10.0.0.6", "key": KEY, "where": "requests", "reason": "unknown", "count": 1, "age": 3.0},
    ]


def test_however_many_are_refused_the_last_ones_are_remembered_and_all_are_counted():
    refusals = Refusals()
    for number in range(10 * MOST_STRANGERS):
        refusals.note(eve(f"10.0.0.{number}", "k" * 40), float(number))
    assert refusals.about(20, 0.0)["total"] == 10 * MOST_STRANGERS
    assert len(refusals.about(10_000, 0.0)["last"]) == MOST_STRANGERS
    assert refusals.about(1, 0.0)["last"][0]["address"] == f"10.0.0.{10 * MOST_STRANGERS - 1}"


def test_an_address_takes_a_bounded_room():
    refusals = Refusals()
    refusals.note(eve("a" * 10_000), 0.0)
    assert len(refusals.about(1, 0.0)["last"][0]["address"]) == LONGEST_ADDRESS
