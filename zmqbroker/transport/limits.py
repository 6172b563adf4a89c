"""Numbers as users give them: of any type, and perhaps none at all."""

from math import inf
from numbers import Integral, Real
from typing import Any


def is_number(value: Any, least: float = 0.0, most: float = inf) -> bool:
    """Tell whether it is a number of any type, numpy's say, that is finite and lies between these."""
    return _is_between(value, Real, least, most) and value != inf


def is_whole(value: Any, least: int = 0, most: float = inf) -> bool:
    """Tell whether it is a whole number of any type between these."""
    return _is_between(value, Integral, least, most)


def _is_between(value: Any, kind: type[Any], least: float, most: float) -> bool:
    return isinstance(value, kind) and bool(least <= value <= most)
