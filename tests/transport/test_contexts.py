"""Ending a ZeroMQ context that waits for what does not come."""

import logging

import pytest
import zmq

from zmqbroker.transport.contexts import terminate


def test_a_context_that_cannot_be_terminated_is_left_alone_with_a_word(caplog: pytest.LogCaptureFixture):
    context = zmq.Context()
    opened = context.socket(zmq.DEALER)
    with caplog.at_level(logging.WARNING):
        terminate(context, 0.05)
    assert caplog.messages == ["ZeroMQ does not end within 0.05 s: left alone (a name server that is silent, perhaps)"]
    opened.close()  # so now it ends


def test_a_context_that_ends_is_ended_without_a_word(caplog: pytest.LogCaptureFixture):
    context = zmq.Context()
    terminate(context)
    assert context.closed
    assert caplog.messages == []
