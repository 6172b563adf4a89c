"""What a key looks like, and what may be done with one, by its role.

Keys are CURVE's, written in Z85, five characters for each four bytes: see RFC 32 of the ZeroMQ project.
"""

import re

ROLES = CLIENT, WORKER, OBSERVER, ADMIN = "client", "worker", "observer", "admin"
LENGTH = 40  # bytes of a key as it is written

DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
KEY = re.compile(b"[%s]{%d}" % (re.escape(DIGITS), LENGTH))
GROUP, MOST_OF_GROUP = 5, 2**32


def is_key(text: bytes) -> bool:
    """Tell whether this is a key: digits of Z85, each five of which stand for four bytes."""
    groups = (text[start : start + GROUP] for start in range(0, LENGTH, GROUP))
    return KEY.fullmatch(text) is not None and all(_value(group) < MOST_OF_GROUP for group in groups)


def _value(group: bytes) -> int:
    value = 0
    for digit in group:
        value = value * len(DIGITS) + DIGITS.index(digit)
    return value
