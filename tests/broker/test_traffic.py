"""What is counted of the loop, without a loop."""

import zmq

from zmqbroker.broker.counters import Counters
from zmqbroker.broker.traffic import SPAN, Traffic
from zmqbroker.transport.messages import Inbox


def test_the_longest_turn_is_forgotten_after_two_spans_at_most_and_one_at_least():
    traffic = Traffic(Counters(), 0.0)
    traffic.longest = 0.5
    traffic.look(SPAN - 1.0)
    assert traffic.longest == 0.5
    traffic.look(SPAN)
    traffic.longest = 0.1
    assert traffic.about({})["longest_turn"] == 0.5
    traffic.look(2 * SPAN)
    assert traffic.about({})["longest_turn"] == 0.1
    traffic.look(3 * SPAN)
    assert traffic.about({})["longest_turn"] == 0.0


def test_a_malformed_message_is_charged_to_the_socket_that_was_read():
    counters = Counters(malformed=7)  # of before
    traffic = Traffic(counters, 0.0)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        for where in ("ready", "results"):
            traffic.watch(where, Inbox(socket, 1))
    traffic.charge("ready")
    counters.malformed += 2
    traffic.charge("results")
    traffic.charge("ready")
    sockets = traffic.about({"ready": 3})["sockets"]
    assert sockets == {
        "ready": {"messages": 0, "malformed": 0, "connections": 3},
        "results": {"messages": 0, "malformed": 2, "connections": None},
    }
