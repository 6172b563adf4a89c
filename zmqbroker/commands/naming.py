"""How files of results are called after their inputs: `--output '{.}.out'`, in the words of GNU parallel. Pure."""

import os
import re
from collections.abc import Callable, Sequence

PARTS: dict[str, Callable[[str], str]] = {  # of an input's name
    "{}": lambda name: name,
    "{.}": lambda name: os.path.splitext(name)[0],
    "{/}": os.path.basename,
    "{//}": lambda name: os.path.dirname(name) or ".",
    "{/.}": lambda name: os.path.splitext(os.path.basename(name))[0],
}
PLACEHOLDER = re.compile("|".join(map(re.escape, PARTS)))


def names_from(template: str, inputs: Sequence[str]) -> list[str]:
    """Return the name of each input's result; raises ValueError where two of them are the same."""
    if len(inputs) > 1 and PLACEHOLDER.search(template) is None:
        raise ValueError(f"{template!r} names the same file for all: say {', '.join(PARTS)} in it")
    names = [_name_from(template, name) for name in inputs]
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        other = first.setdefault(os.path.normpath(name), index)
        if other != index:
            raise ValueError(f"the results of {inputs[other]} and {inputs[index]} would both be {name}")
    return names


def _name_from(template: str, input: str) -> str:
    return PLACEHOLDER.sub(lambda match: PARTS[match[0]](input), template)
