"""Look for frames that a parser of wire/ breaks on, guided by what they cover: fuzz_wire.py [-runs=N] [CORPUS].

It runs until it is interrupted or something other than MalformedError comes out; the arguments are those of libFuzzer,
`-max_total_time=SECONDS` among them. It needs `pip install atheris`, which not every Python version has.
"""

import sys
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

try:
    import atheris
except ImportError:
    print("fuzz_wire.py needs atheris, which is not installed: pip install atheris", file=sys.stderr)
    sys.exit(2)

with atheris.instrument_imports():
    from zmqbroker import wire

MOST_FRAMES = 6
WORDS = [wire.EMPTY, wire.HEADER, wire.HEADER + b"{}", wire.FAIL, wire.REJECT, wire.RELEASE, wire.TOUCH]


def draw_message(provider: "atheris.FuzzedDataProvider") -> wire.Frames:
    """Return frames as the broker has them, from one on; every fourth one that is not a word is large."""
    message: wire.Frames = []
    for _ in range(provider.ConsumeIntInRange(1, MOST_FRAMES)):
        kind = provider.ConsumeIntInRange(0, 2 * len(WORDS))
        if kind < len(WORDS):
            message.append(WORDS[kind])
            continue
        start = wire.HEADER if kind % 2 else b""
        frame = start + provider.ConsumeBytes(provider.ConsumeIntInRange(0, 200))
        message.append(zmq.Frame(frame.ljust(65536)) if kind % 4 == 0 else frame)
    return message


def parse_results(message: wire.Frames) -> None:
    if wire.is_verb(message):
        wire.parse_verb(message)


def check_request(message: wire.Frames) -> None:
    envelope, body, header = wire.parse_request([b"id", *message])
    if len(envelope) + (header is not None) + 1 + len(body) != len(message) + 1 or not body:
        raise AssertionError(f"a request was not partitioned: {message!r}")


PARSERS = [check_request, wire.parse_start, wire.parse_ready, parse_results, wire.parse_reply]


def try_parsers(data: bytes) -> None:
    """Give one message to every parser."""
    message = draw_message(atheris.FuzzedDataProvider(data))
    for parse in PARSERS:
        try:
            parse(list(message))
        except wire.MalformedError:
            continue


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_parsers)
    atheris.Fuzz()
