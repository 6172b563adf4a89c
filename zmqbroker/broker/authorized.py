"""Who is authorized: a line for each key, with what may be done with it, and whose it is.

    client,worker  rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7  alice
    # and what begins so is a comment

Several keys may have one name: tasks belong to the name, so a key can be exchanged for another one.
"""

from collections.abc import Mapping
from typing import NamedTuple

from zmqbroker.transport.keys import ROLES, is_key

LONGEST_NAME = 100  # characters
EXAMPLE = "a line has roles, a key and a name, as `zmqbroker identity show FILE` prints them"


class Authorized(NamedTuple):
    """What may be done with a key, and whose it is."""

    name: str
    roles: frozenset[str]


def parse_authorized(text: str, file: str) -> Mapping[str, Authorized]:
    """Return who is authorized, by key; raises ValueError for a bad line, naming `file` and its number."""
    found: dict[str, Authorized] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            try:
                key, authorized = _parse_line(words)
                if key in found:
                    raise ValueError(f"this key is there already, as that of {found[key].name}")
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from None
            found[key] = authorized
    return found


def _parse_line(words: list[str]) -> tuple[str, Authorized]:
    if len(words) != 3:
        raise ValueError(f"{len(words)} words: {EXAMPLE}, and no blanks in them")
    roles, key, name = words
    for role in roles.split(","):
        if role not in ROLES:
            raise ValueError(f"{role!r:.50} is no role: it is one of {', '.join(ROLES)}, joined by commas")
    if not is_key(key.encode()):
        raise ValueError(f"{key!r:.50} is no public key, which has 40 characters of Z85: {EXAMPLE}")
    if not name.isprintable() or len(name) > LONGEST_NAME:
        raise ValueError(f"{name!r:.50} is no name: it is printable, and has at most {LONGEST_NAME} characters")
    return key, Authorized(name, frozenset(roles.split(",")))
