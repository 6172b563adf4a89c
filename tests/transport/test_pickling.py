"""Pickles of anything as frames, with large buffers beside them."""

import pickle
import sys
from typing import Any

import pytest

from zmqbroker.transport import pickling


class Array(bytearray):
    """What is pickled as arrays of numpy are."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Array, (pickle.PickleBuffer(self),)


def test_a_large_buffer_is_a_frame_of_its_own():
    value = {"large": Array(b"1" * 65536), "small": Array(b"2" * 65535)}
    frames = pickling.dump(value)
    assert [len(frame) > 65535 for frame in frames] == [True, True]
    assert frames[1] == b"1" * 65536
    assert pickling.load(frames) == value


def test_a_buffer_is_as_it_was_when_it_was_pickled():
    array = Array(b"1" * 100_000)
    frames = pickling.dump(array)
    array[0] = 0
    loaded = pickling.load(frames)
    loaded[1] = 0
    assert (loaded[0], pickling.load(frames)[1]) == (ord("1"), ord("1"))


def test_a_message_has_no_more_frames_than_a_broker_takes():
    value = [Array(b"1" * 65536) for _ in range(905)]
    frames = pickling.dump(value)
    assert len(frames) == 901
    assert len(pickling.load(frames)) == 905


def test_frames_of_the_transport_are_read_as_they_are():
    value = Array(b"1" * 70_000)
    assert pickling.load([memoryview(frame) for frame in pickling.dump(value)]) == value  # type: ignore[arg-type]


def test_functions_and_lambdas_are_pickled():
    offset = 3
    assert pickling.load(pickling.dump(lambda number: number + offset))(4) == 7
    assert pickling.load(pickling.dump(len)) is len


def test_a_python_is_named_as_far_as_pickles_depend_on_it():
    own = pickling.own_python("a test")
    assert own.python.endswith(f" {sys.version_info[0]}.{sys.version_info[1]}")
    assert own.cloudpickle


def test_without_cloudpickle_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickling, "cloudpickle", None)
    with pytest.raises(ImportError, match=r'^a test needs cloudpickle: pip install "zmqbroker\[python\]"$'):
        pickling.own_python("a test")


def test_an_exception_is_described_in_one_line():
    assert pickling.described(ValueError("two\nlines")) == "ValueError: two lines"
    assert pickling.described(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_the_calls_of_a_chunk_have_their_results_in_order():
    assert pickling.call_each(pow, [(2, 3), (3, 2)]) == [8, 9]
