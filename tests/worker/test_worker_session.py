"""The pure session of a worker: what it asks for, what it says of its tasks, and what it says again."""

import pytest

from zmqbroker.wire import MalformedError
from zmqbroker.wire.announced import (
    CANCEL,
    DONE,
    DROP,
    WITHDRAWN,
    Given,
    Welcome,
    Word,
    parse_told,
    parse_word,
    task_header,
    told_message,
    welcome_message,
)
from zmqbroker.wire.frames import Frames
from zmqbroker.worker.session import LARGEST_KEPT, Session


def said(messages: list[Frames]) -> list[str]:
    """Return what is said, as a line each: the word and what follows it."""
    return [b" ".join([bytes(frame) for frame in message[1:]])[4:].decode() for message in messages]  # type: ignore[call-overload]


def one(message: Frames | None) -> str:
    assert message is not None
    return said([message])[0]


def give(session: Session, *names: bytes) -> None:
    for name in names:
        assert session.receive(Given(name, [b"body"])) == []


def do(session: Session, seconds: float, now: float = 0.0) -> str:
    """Have the next task done in so many seconds, and return what is said of it."""
    session.begin(now)
    return one(session.finish(DONE, [b"r"], now + seconds))


@pytest.fixture
def session() -> Session:
    session = Session(3)
    assert said(session.welcome()) == ["ready 3"]
    return session


def adaptive() -> Session:
    session = Session(None)
    assert said(session.welcome()) == ["ready 1"]
    return session


# Asking


def test_nothing_is_asked_for_before_the_welcome():
    session = Session(3)
    assert session.asked == 0
    assert said(session.welcome()) == ["ready 3"]
    assert session.asked == 3


def test_a_fixed_number_of_slots_is_what_it_has_and_asks_for(session: Session):
    give(session, b"a", b"b")
    assert session.asked == 1
    assert do(session, 0.001) == "done 1 a r"
    assert do(session, 10.0) == "done 1 b r"
    assert session.asked == 3


def test_one_slot_is_one_task_at_a_time():
    session = Session(1)
    assert said(session.welcome()) == ["ready 1"]
    for _ in range(3):
        give(session, b"a")
        assert do(session, 0.00001) == "done 1 a r"


def test_short_tasks_are_asked_for_ahead():
    session = adaptive()
    asks = []
    for _ in range(100):
        give(session, b"a")
        asks.append(int(do(session, 0.00001).split()[1]))
    assert sum(asks) == 1 + 99 + 63  # as many as came but for the first, and so many ahead
    assert session.asked == 64
    assert max(asks) < 10  # not all at once


@pytest.mark.parametrize(
    ("seconds", "ahead"), [(0.0025, 2), (0.0005, 10), (0.00001, 64), (0.0, 64), (0.005, 1), (1, 1)]
)
def test_what_is_asked_for_ahead_takes_five_milliseconds(seconds: float, ahead: int):
    session = adaptive()
    for _ in range(200):
        give(session, b"a")
        do(session, seconds)
    assert ahead - 1 <= session.asked <= ahead


def test_a_long_task_ends_asking_ahead_until_short_ones_have_come_again():
    session = adaptive()
    for _ in range(100):
        give(session, b"a")
        do(session, 0.00001)
    give(session, b"a", b"b")
    assert do(session, 0.2) == "done 0 a r"
    assert do(session, 0.00001) == "done 0 b r"


# Dropped, cancelled, withdrawn


def test_a_task_that_is_dropped_before_it_began_is_given_back(session: Session):
    give(session, b"a", b"b", b"c")
    session.begin(0.0)
    assert said(session.receive(Word(DROP, 0, b"b"))) == ["release 0 b"]  # nothing is asked for behind one that is long
    assert one(session.finish(DONE, [b"r"], 1.0)) == "done 2 a r"
    assert session.begin(1.0).attempt_id == b"c"


def test_a_task_that_is_dropped_while_none_is_in_hand_makes_room_for_another_one(session: Session):
    give(session, b"a", b"b", b"c")
    assert said(session.receive(Word(DROP, 0, b"b"))) == ["release 1 b"]
    assert session.asked == 1


def test_drop_does_nothing_to_what_has_begun_or_is_done(session: Session):
    give(session, b"a")
    session.begin(0.0)
    assert session.receive(Word(DROP, 0, b"a")) == []
    assert not session.is_cancelled
    session.finish(DONE, [b"r"], 1.0)
    assert session.receive(Word(DROP, 0, b"a")) == []


def test_cancel_is_told_to_what_is_in_hand_and_to_nothing_else(session: Session):
    give(session, b"a", b"b")
    session.begin(0.0)
    assert said(session.receive(Word(CANCEL, 0, b"b"))) == ["release 0 b"]
    assert not session.is_cancelled
    assert session.receive(Word(CANCEL, 0, b"a")) == []
    assert session.is_cancelled
    session.finish(DONE, [b"r"], 1.0)
    give(session, b"c")
    session.begin(1.0)
    assert not session.is_cancelled


def test_who_stops_takes_back_what_was_asked_for_and_gives_back_what_lies_behind(session: Session):
    give(session, b"a", b"b")
    session.begin(0.0)
    assert said(session.stop()) == ["withdraw 1", "release 0 b"]
    assert one(session.finish(DONE, [b"r"], 1.0)) == "done 0 a r"
    assert said(session.receive(Given(b"c", [b"crossed"]))) == ["release 0 c"]
    assert session.asked == 0
    assert not session.tasks


def test_withdrawn_ends_the_wait_for_tasks(session: Session):
    assert said(session.stop()) == ["withdraw 3"]
    assert session.asked == 3
    session.receive(Word(WITHDRAWN, 3, b""))
    assert session.asked == 0


def test_tasks_may_come_between_two_answers_to_a_withdrawal_in_parts():
    session = Session(100)
    session.welcome()
    session.stop()
    session.receive(Word(WITHDRAWN, 64, b""))
    assert session.asked == 36
    assert said(session.receive(Given(b"a", [b"body"]))) == ["release 0 a"]
    session.receive(Word(WITHDRAWN, 36, b""))
    assert session.asked == 0


def test_what_is_more_than_a_message_may_ask_for_is_asked_for_and_taken_back_in_several():
    session = Session(100)
    assert said(session.welcome()) == ["ready 64", "ready 36"]
    assert said(session.stop()) == ["withdraw 64", "withdraw 36"]


# Connections


def test_what_is_not_done_is_named_to_the_next_connection(session: Session):
    give(session, b"a", b"b")
    session.begin(0.0)
    session.disconnect()
    assert session.held() == [b"a", b"b"]
    assert said(session.welcome()) == ["ready 1"]


def test_what_was_done_is_said_again_and_asks_for_nothing(session: Session):
    for name in b"abcd":
        give(session, bytes([name]))
        do(session, 1.0)
    session.disconnect()
    assert session.held() == []
    assert said(session.welcome()) == ["done 0 b r", "done 0 c r", "done 0 d r", "ready 3"]  # as many as it may have


def test_what_is_done_without_a_connection_is_said_by_the_next_one(session: Session):
    give(session, b"a", b"b", b"c")
    session.disconnect()
    for argument in ([b"small"], [bytes(LARGEST_KEPT + 1)], [bytes(LARGEST_KEPT), b"1"]):
        session.begin(0.0)
        assert session.finish(DONE, argument, 1.0) is None
    assert session.has_unsaid
    assert [line[:8] for line in said(session.welcome())] == ["done 0 a", "done 0 b", "done 0 c", "ready 3"]
    assert not session.has_unsaid
    session.disconnect()
    assert said(session.welcome()) == ["done 0 a small", "ready 3"]  # what is large is said once


def test_a_stopped_worker_asks_no_new_connection_for_tasks(session: Session):
    give(session, b"a", b"b")
    session.begin(0.0)
    session.disconnect()
    assert session.stop() == []
    assert session.held() == [b"a"]
    assert session.has_unsaid
    assert said(session.welcome()) == ["release 0 b"]  # which the announce may have named, if it was sent before
    assert not session.has_unsaid
    assert one(session.finish(DONE, [b"r"], 1.0)) == "done 0 a r"


def test_a_touch_without_a_connection_is_said_by_the_next_one(session: Session):
    give(session, b"a", b"b")
    session.begin(0.0)
    assert one(session.touch(b"5.0")) == "touch a 5.0"
    session.disconnect()
    assert session.touch(b"9.0") is None
    assert said(session.welcome()) == ["touch a 9.0", "ready 1"]
    session.disconnect()
    session.touch(b"9.0")
    session.finish(DONE, [b"r"], 1.0)
    assert said(session.welcome()) == ["done 0 a r", "ready 2"]
    assert session.touch(b"9.0") is None  # nothing is in hand


# Progress


def test_progress_is_said_ten_times_a_second_at_most_and_the_last_word_counts(session: Session):
    give(session, b"a")
    session.begin(0.0)
    session.progress(b"1")
    assert one(session.say_progress(10.0)) == "progress a 1"
    for number in (b"2", b"3"):
        session.progress(number)
        assert session.say_progress(10.05) is None
    assert session.progress_due() == 10.1
    assert one(session.say_progress(10.1)) == "progress a 3"
    assert session.say_progress(11.0) is None


def test_progress_of_one_task_is_not_said_of_the_next(session: Session):
    give(session, b"a", b"b")
    session.begin(0.0)
    session.progress(b"1")
    session.finish(DONE, [b"r"], 1.0)
    session.progress(b"2")  # of nothing
    session.begin(1.0)
    assert session.say_progress(2.0) is None


# What the broker says


def test_all_that_a_broker_says_is_read():
    about = task_header(7, "key", "default", 2, 3, 1.5)
    plain = parse_told([b"", b"id", b"a", b"b"])
    assert plain == Given(b"id", [b"a", b"b"])
    assert plain.fields == {}
    given = parse_told([about, b"", b"id", b"body"])
    assert given == Given(b"id", [b"body"], about)
    assert given.fields["number"] == 7
    assert given.fields["key"] == "key"
    for verb in (DROP, CANCEL):
        assert parse_told(told_message(b"w", verb, b"an id \0")[1:]) == Word(verb, 0, b"an id \0")
    assert parse_told(told_message(b"w", WITHDRAWN, b"12")[1:]) == Word(WITHDRAWN, 12, b"")
    welcome = parse_told(welcome_message(b"w", "1.0")[1:])
    assert isinstance(welcome, Welcome)
    assert (welcome.fields["version"], welcome.refusal) == ("1.0", "")
    refusal = parse_told([b'ZB1 {"status": "invalid", "reason": "not here"}', b"", b""])
    assert isinstance(refusal, Welcome)
    assert refusal.refusal == "not here"


@pytest.mark.parametrize(
    "message",
    [
        [b""],
        [b"", b"id"],
        [b"", b"", b"body"],
        [b"nothing"],
        [b"ZB1 {}"],
        [b"ZB1 {", b""],
        [b"ZB1 {}", b""],
        [b"a", b""],
    ],
)
def test_what_no_broker_says_is_malformed(message: Frames):
    with pytest.raises(MalformedError):
        parse_told(message)


def test_a_task_with_a_header_of_nonsense_tells_nothing_about_itself():
    given = parse_told([b"ZB1 nonsense", b"", b"id", b"body"])
    assert isinstance(given, Given)
    assert given.fields == {}


def test_what_a_session_says_is_what_a_broker_reads(session: Session):
    give(session, b"a \0 ")
    session.begin(0.0)
    message = session.finish(DONE, [b"r"], 1.0)
    assert message is not None
    assert parse_word(message[1]) == Word(DONE, 1, b"a \0 ")
