"""The pure session of a client: what is sent, what is sent again, and what a reply settles."""

from math import inf

import pytest

from zmqbroker import wire
from zmqbroker.client.futures import CLOSED
from zmqbroker.client.lull import STANDS
from zmqbroker.client.request import CANCEL, Request
from zmqbroker.client.session import Session
from zmqbroker.wire import ACCEPTED, CANCELLED, DONE, EXPIRED, PROGRESS, UNAVAILABLE, UNKNOWN, Frames, Reply


class Told(list[Reply]):
    """Whom replies are given to."""

    def request(self, key: str, body: bytes = b"task", fields: str = "") -> Request:
        return Request(key, [body], fields, self.extend)


def done(key: str | None) -> Reply:
    return Reply(key, DONE, 1, "", [b"result"])


def keys(requests: list[Request]) -> list[str]:
    return [request.key for request in requests]


def settle(session: Session, *replies: Reply) -> int:
    """Give replies to a session and to whom it says; return how many were told."""
    told = session.receive(replies, 0.0)
    for tell, of in told:
        tell(of)
    return sum(len(of) for _, of in told)


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def told() -> Told:
    return Told()


def test_requests_are_sent_in_order_each_once(session: Session, told: Told):
    for key in "abc":
        session.submit(told.request(key))
    assert session.has_unsent
    assert keys(session.take(2, 0.0)) == ["a", "b"]
    assert keys(session.take(2, 0.0)) == ["c"]
    assert not session.has_unsent
    assert session.take(2, 0.0) == []
    assert len(session) == 3


def test_a_reply_settles_its_task_and_no_other(session: Session, told: Told):
    session.submit(told.request("a"))
    session.submit(told.request("b"))
    session.take(2, 0.0)
    assert settle(session, done("b"), done("unknown"), done(None), done("b")) == 1
    assert told == [done("b")]
    assert session.only_waits_for("a")
    assert not session.only_waits_for("b")


def test_what_could_not_be_sent_is_the_next_to_be_sent_in_the_same_order(session: Session, told: Told):
    for key in "abc":
        session.submit(told.request(key))
    batch = session.take(2, 0.0)
    session.put_back(batch)
    assert keys(session.take(9, 0.0)) == ["a", "b", "c"]


def test_a_task_that_was_never_sent_is_cancelled_without_a_word(session: Session, told: Told):
    session.submit(told.request("a"))
    session.submit(told.request("b"))
    session.put_back(session.take(1, 0.0))
    assert session.cancel("a") == []
    assert keys(session.take(9, 0.0)) == ["b"]
    assert session.cancel("a") is None
    assert told == []


def test_a_task_that_was_sent_is_cancelled_by_a_message(session: Session, told: Told):
    session.submit(told.request("a"))
    session.take(1, 0.0)
    assert session.cancel("a") == []
    (cancel,) = session.take(9, 0.0)
    assert cancel.message(0.0) == wire.request_message([b""], "a", CANCEL)
    assert settle(session, done("a")) == 0
    assert len(session) == 0
    assert told == []


def test_who_cancels_may_want_the_answer(session: Session, told: Told):
    session.submit(told.request("sent"))
    session.take(1, 0.0)
    session.submit(told.request("unsent"))
    assert session.cancel("sent", told.extend) == []
    settle(session, done("sent"))
    ((tell, (reply,)),) = session.cancel("unsent", told.extend) or []
    assert tell == told.extend
    assert (reply.key, reply.status) == ("unsent", "cancelled")
    assert told == [done("sent")]
    assert len(session) == 0


def test_after_a_reconnect_all_without_an_answer_is_sent_again_cancels_as_well(session: Session, told: Told):
    for key in "abc":
        session.submit(told.request(key))
    session.take(3, 0.0)
    session.submit(told.request("d"))
    session.cancel("b")
    settle(session, done("a"))
    session.reconnect()
    again = session.take(9, 0.0)
    assert sorted(keys(again)) == ["b", "c", "d"]
    assert [request.settle is None for request in again if request.key == "b"] == [True]
    session.reconnect()
    assert session.cancel("c") == []
    assert {request.key: request.settle for request in session.take(9, 0.0)}["c"] is None


def test_a_request_that_its_sender_sends_itself_is_not_sent_but_is_sent_again(session: Session, told: Told):
    session.expect(told.request("a"))
    assert not session.has_unsent
    assert session.take(9, 0.0) == []
    session.reconnect()
    assert keys(session.take(9, 0.0)) == ["a"]


def test_closing_gives_up_every_task_and_leaves_cancels_to_be_sent(session: Session, told: Told):
    for key in "abc":
        session.submit(told.request(key))
    session.take(2, 0.0)
    session.cancel("a")
    for tell, reply in session.give_up(CLOSED, "why"):
        tell(reply)
    assert [(reply.key, reply.status) for reply in told] == [("b", CLOSED), ("c", CLOSED)]
    assert keys(session.take(9, 0.0)) == ["a"]
    assert len(session) == 1


def test_a_message_has_the_key_the_fields_and_the_body(told: Told):
    message: Frames = told.request("a", b"x", wire.more_fields({"tries": 2})).message(0.0)
    assert message == [b'ZB1 {"key": "a", "tries": 2}', b"", b"x"]


def refuse(session: Session, key: str, now: float) -> None:
    assert session.receive([Reply(key, UNAVAILABLE, 0, "the broker is shutting down", [])], now) == []


def test_a_refused_task_is_sent_again_after_a_pause_that_doubles(session: Session, told: Told):
    session.submit(told.request("a"))
    now = 100.0
    for pause in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert keys(session.take(9, now)) == ["a"]
        refuse(session, "a", now)
        assert session.next_due() == now + pause
        assert not session.only_waits_for("a")
        assert session.take(9, now + pause - 0.1) == []
        now += pause
    assert told == []


def test_a_refused_task_is_sent_at_once_by_the_next_connection_and_its_pause_begins_anew(session: Session, told: Told):
    session.submit(told.request("a"))
    for now in (0.0, 1.0):
        session.take(9, now)
        refuse(session, "a", now)
    session.reconnect()
    assert session.next_due() == inf
    assert keys(session.take(9, 1.0)) == ["a"]
    refuse(session, "a", 2.0)
    assert session.next_due() == 3.0


def test_a_refused_task_is_cancelled_without_a_word_and_not_sent_again(session: Session, told: Told):
    session.submit(told.request("a"))
    session.take(9, 0.0)
    refuse(session, "a", 0.0)
    assert session.cancel("a") == []
    assert session.take(9, 60.0) == []
    assert len(session) == 0


def test_refusals_are_said_at_intervals_that_grow(session: Session, told: Told):
    said = []
    for second in range(100):
        session.submit(told.request(str(second)))
        session.take(9, float(second))
        refuse(session, str(second), float(second))
        if session.complaint(float(second)):
            said.append(second)
    assert said == [0, 10, 30, 70]


def test_connections_that_end_without_a_reply_again_and_again_are_worth_saying(session: Session, told: Told):
    session.submit(told.request("a"))
    said = []
    for cut in range(1, 14):
        session.reconnect()
        if cuts := session.cuts_to_tell():
            said.append((cut, cuts))
    assert said == [(3, 3), (6, 6), (12, 12)]
    settle(session, done("unknown"))
    session.reconnect()
    assert session.cuts_to_tell() == 0
    for _ in range(10):
        session.reconnect(was_cut=False)
    assert session.cuts_to_tell() == 0


def test_a_client_that_has_nothing_outstanding_may_be_cut_off_as_often_as_one_likes(session: Session):
    for _ in range(10):
        session.reconnect()
    assert session.cuts_to_tell() == 0


def test_what_is_sent_again_carries_what_is_left_of_its_delay():
    request = Request("a", [b"x"], "", None, {"delay": 14.0})
    assert [request.message(now)[0] for now in (10.0, 13.0, 20.0)] == [
        b'ZB1 {"key": "a", "delay": 4.0}',
        b'ZB1 {"key": "a", "delay": 1.0}',
        b'ZB1 {"key": "a", "delay": 0.0}',
    ]


def test_what_is_sent_again_carries_what_is_left_of_its_expires():
    request = Request("a", [b"x"], "", None, {"expires": 14.0})
    assert [request.message(now)[0] for now in (10.0, 13.0)] == [
        b'ZB1 {"key": "a", "expires": 4.0}',
        b'ZB1 {"key": "a", "expires": 1.0}',
    ]
    request = Request("a", [b"x"], wire.more_fields({"tries": 2}), None, {"delay": 12.0, "expires": 14.0})
    assert [request.message(now)[0] for now in (10.0, 13.0)] == [
        b'ZB1 {"key": "a", "tries": 2, "delay": 2.0, "expires": 4.0}',
        b'ZB1 {"key": "a", "tries": 2, "delay": 0.0, "expires": 1.0}',
    ]


@pytest.mark.parametrize(("now", "has_expired"), [(10.0, False), (13.9, False), (14.0, True), (20.0, True)])
def test_a_task_has_expired_when_nothing_is_left_of_that(now: float, has_expired: bool):
    assert Request("a", [b"x"], "", None, {"expires": 14.0}).has_expired(now) == has_expired
    assert Request("a", [b"x"], "", None, {"delay": 12.0, "expires": 14.0}).has_expired(now) == has_expired
    assert not Request("a", [b"x"], "", None, {"delay": 12.0}).has_expired(now)


def test_what_has_expired_when_it_is_to_be_sent_is_settled_and_not_sent(session: Session, told: Told):
    for key, expires_at in (("in time", 10.0), ("late", 5.0), ("whenever", inf)):
        session.submit(Request(key, [b"task"], "", told.extend, {"expires": expires_at}))
    assert keys(session.take(1, 1.0)) == ["in time"]
    assert keys(session.take(9, 5.0)) == ["whenever"]
    assert [(tell, reply[0].key) for tell, reply in session.expired] == [(told.extend, "late")]
    ((_, (late,)),) = session.expired
    assert (late.status, late.attempts) == (EXPIRED, 0)
    assert late.reason == "no result came in time: it could not be sent before"
    assert len(session) == 2
    session.reconnect()
    session.expired.clear()
    assert keys(session.take(9, 10.0)) == ["whenever"]
    ((_, (again,)),) = session.expired
    assert (again.key, again.reason) == ("in time", "no result came in time: it could not be sent again before")


@pytest.mark.parametrize(
    ("stored", "reply", "outcome"),
    [
        ("durable", Reply("a", DONE, 1, "", [b"result"]), (DONE, [b"result"])),
        ("durable", Reply("a", UNKNOWN, 0, "never heard of it", []), (EXPIRED, [])),
        ("detach", Reply("a", DONE, 1, "", [b"result"]), (ACCEPTED, [])),
        ("detach", Reply("a", "running", 1, "", []), (ACCEPTED, [])),
        ("detach", Reply("a", UNKNOWN, 0, "never heard of it", []), (EXPIRED, [])),
        ("detach", Reply("a", CLOSED, 0, "the client was closed", []), (CLOSED, [])),
    ],
)
def test_of_a_stored_task_that_has_expired_when_it_is_to_be_sent_again_the_outcome_is_asked_for(
    session: Session, told: Told, stored: str, reply: Reply, outcome: tuple[str, Frames]
):
    fields = wire.more_fields({stored: True})
    session.submit(Request("a", [b"task"], fields, told.extend, {"expires": 5.0}, stored=stored))
    (sent,) = session.take(9, 1.0)
    session.reconnect()
    (asked,) = session.take(9, 5.0)
    assert asked is sent
    header, _, *body = asked.message(5.0)
    assert (b'"fetch"' in header, stored.encode() in header, b"expires" in header) == (True, False, False)
    assert body == [wire.EMPTY]
    assert settle(session, Reply("a", UNAVAILABLE, 0, "the broker is shutting down", [])) == 0
    session.reconnect()
    assert session.take(9, 7.0) == [asked]
    assert settle(session, reply) == 1
    assert [(reply.status, reply.body) for reply in told] == [outcome]
    assert (session.expired, len(session)) == ([], 0)


def test_a_refused_task_does_not_wait_for_its_turn_when_it_has_expired(session: Session, told: Told):
    session.submit(Request("a", [b"task"], "", told.extend, {"expires": 2.5}))
    assert keys(session.take(9, 0.0)) == ["a"]
    refuse(session, "a", 0.0)
    assert keys(session.take(9, 1.0)) == ["a"]
    refuse(session, "a", 1.0)  # 2 seconds of pause, but there are only 1.5
    assert session.next_due() == 2.5
    assert session.take(9, 2.5) == []
    assert [reply.status for _, (reply,) in session.expired] == [EXPIRED]
    assert (len(session), session.next_due()) == (0, inf)


def test_a_task_that_was_cancelled_does_not_expire(session: Session, told: Told):
    session.submit(Request("a", [b"task"], "", told.extend, {"expires": 2.0}))
    session.take(9, 0.0)
    session.cancel("a", told.extend)
    session.reconnect()
    assert [request.is_cancel for request in session.take(9, 3.0)] == [True]
    assert session.expired == []


def test_progress_is_told_to_whom_wants_it_and_settles_nothing(session: Session, told: Told):
    heard = Told()
    for key, on_progress in (("wants", heard.extend), ("does not", None)):
        session.submit(Request(key, [b"task"], "", told.extend, on_progress=on_progress))
    session.take(2, 0.0)
    for key in ("wants", "does not", "unknown", None):
        settle(session, Reply(key, PROGRESS, 1, "", [b"{}"]))
    assert [reply.key for reply in heard] == ["wants"]
    assert (told, len(session)) == ([], 2)
    assert settle(session, done("wants"), done("does not")) == 2


def test_a_task_that_is_being_cancelled_is_not_settled_by_progress(session: Session, told: Told):
    session.submit(Request("a", [b"task"], "", told.extend, on_progress=told.extend))
    session.take(1, 0.0)
    session.cancel("a", told.extend)
    assert settle(session, Reply("a", PROGRESS, 1, "", [b"{}"])) == 0
    assert settle(session, Reply("a", CANCELLED, 1, "", [b""])) == 1


def test_requests_with_one_key_are_told_apart_by_their_ids(session: Session, told: Told):
    others = [Told(), Told()]
    session.submit(told.request("a"))
    for id, other in zip("12", others, strict=True):
        session.submit(Request("a", [b"task"], "", other.extend, id=id))
    assert [request.message(0.0)[0] for request in session.take(9, 0.0)] == [
        b'ZB1 {"key": "a"}',
        b'ZB1 {"key": "a", "id": "1"}',
        b'ZB1 {"key": "a", "id": "2"}',
    ]
    assert settle(session, done("a")._replace(id="2"), done("a")._replace(id="3")) == 1
    assert [len(each) for each in (told, *others)] == [0, 0, 1]
    assert session.cancel("1") == []
    (cancel,) = session.take(9, 0.0)
    assert cancel.message(0.0) == wire.request_message([b""], "a", CANCEL, "1")
    assert settle(session, done("a"), done("a")._replace(id="1")) == 1
    assert [len(each) for each in (told, *others)] == [1, 0, 1]
    assert len(session) == 0


def test_what_is_asked_for_some_time_is_asked_again_for_what_is_left_of_it(told: Told):
    request = Request("a", [b""], "", told.extend, {"fetch": 14.0}, id="1")
    assert [request.message(now)[0] for now in (10.0, 15.0)] == [
        b'ZB1 {"key": "a", "id": "1", "fetch": 4.0}',
        b'ZB1 {"key": "a", "id": "1", "fetch": 0.0}',
    ]
    assert not request.has_expired(15.0)
    for_ever = Request("a", [b""], "", told.extend, {"fetch": inf}, id="1")
    assert for_ever.message(0.0)[0] == b'ZB1 {"key": "a", "id": "1", "fetch": 1000000000.0}'


def test_a_request_that_is_dropped_is_nobodys_any_more_and_the_broker_is_not_told(session: Session, told: Told):
    session.submit(Request("a", [b""], "", told.extend, id="1"))
    session.take(1, 0.0)
    assert session.drop("1") == []
    assert session.drop("1") is None
    session.submit(Request("a", [b""], "", None, id="2"))
    ((tell, (reply,)),) = session.drop("2", told.extend) or []
    assert (tell, reply.key, reply.status, reply.id) == (told.extend, "a", CANCELLED, "2")
    assert session.take(9, 0.0) == []
    assert settle(session, done("a")._replace(id="1")) == 0
    assert len(session) == 0


def test_a_task_that_is_being_cancelled_is_not_settled_because_it_was_accepted_before(session: Session, told: Told):
    session.submit(told.request("a"))
    session.take(1, 0.0)
    session.cancel("a", told.extend)
    assert settle(session, Reply("a", ACCEPTED, 0, "", [b""])) == 0
    assert settle(session, Reply("a", CANCELLED, 0, "", [b""])) == 1


def test_a_cancel_whose_sender_waits_for_the_answer_is_sent_again_when_it_was_refused(session: Session, told: Told):
    session.submit(Request("a", [b""], wire.more_fields({"cancel": True}), told.extend, id="1"))
    session.take(1, 0.0)
    assert settle(session, Reply("a", UNAVAILABLE, 0, "", [b""], id="1")) == 0
    assert [request.name for request in session.take(9, session.next_due())] == ["1"]


def test_replies_for_the_same_are_told_together_and_in_order(session: Session, told: Told):
    other = Told()
    for key in "abc":
        session.submit((other if key == "b" else told).request(key))
    session.take(3, 0.0)
    together = session.receive([done(key) for key in "cba"], 0.0)
    assert [(tell, [reply.key for reply in replies]) for tell, replies in together] == [
        (told.extend, ["c", "a"]),
        (other.extend, ["b"]),
    ]


# When no reply comes for long


def asked(session: Session, now: float) -> list[tuple[str, str | None]]:
    """Have time come, and return the key and the id of what is to be sent then."""
    session.wonder(now)
    return [(request.key, request.id) for request in session.take(10, now)]


def test_after_a_lull_it_is_asked_where_the_oldest_task_stands_and_ever_more_rarely():
    session = Session()
    for key in ("a", "b"):
        session.submit(Request(key, [b""], "", print))
    assert asked(session, 0.0) == [("a", None), ("b", None)]
    assert asked(session, 9.9) == []
    assert asked(session, 10.0) == [("a", STANDS)]
    session.receive([Reply("a", "waiting", 0, "no worker asks from the queue x", [], id=STANDS)], 10.1)
    assert session.plight() == "no worker asks from the queue x"
    assert session.plight() == ""
    assert asked(session, 29.9) == []
    assert asked(session, 30.0) == [("a", STANDS)]


def test_a_reply_ends_a_lull_and_a_task_that_runs_is_in_no_plight():
    session = Session()
    for key in ("a", "b"):
        session.submit(Request(key, [b""], "", print))
    asked(session, 0.0)
    session.receive([Reply("a", DONE, 1, "", [b""])], 9.0)
    assert asked(session, 10.0) == []
    assert asked(session, 20.0) == [("b", STANDS)]
    session.receive([Reply("b", "running", 1, "", [], id=STANDS)], 20.1)
    assert session.plight() == ""


def test_a_question_nobody_waits_for_keeps_no_session_open():
    session = Session()
    session.submit(Request("a", [b""], "", print))
    asked(session, 0.0)
    asked(session, 10.0)
    session.receive([Reply("a", DONE, 1, "", [b""])], 11.0)
    assert len(session) == 0
    session.submit(Request("b", [b""], "", print))
    asked(session, 20.0)
    asked(session, 30.0)
    session.give_up("closed", "")
    assert len(session) == 0
