"""The code blocks, tables and links of the documents, read from the Markdown itself, and the options they list."""

import argparse
import posixpath
import re
import shlex
from importlib import import_module
from typing import NamedTuple

from helpers import TOP

from zmqbroker.commands.command_lines import COMMANDS, GROUPS
from zmqbroker.commands.options import Parser

README = "README.md"
PROTOCOL = "PROTOCOL.md"
GUIDE = "docs/guide.md"
OPERATIONS = "docs/operations.md"
REFERENCE = "docs/reference.md"
SECURITY = "docs/security.md"
PLACES = ("*.md", "docs/*.md", "bench/**/*.md", "examples/*.md")  # where documents are
DOCUMENTS = sorted(path.relative_to(TOP).as_posix() for place in PLACES for path in TOP.glob(place))


class Section(NamedTuple):
    """What stands below one heading, up to the next one of any level."""

    heading: str
    prose: str  # without its code blocks
    blocks: dict[str, list[str]]  # the code blocks, by language

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each line of its tables, headers and rulers included."""
        lines = [line for line in self.prose.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]

    def block(self, language: str) -> str:
        """Return its first code block in this language."""
        return self.blocks[language][0]


def sections(document: str) -> list[Section]:
    """Split a document, named by its path from the top of the tree, at its headings."""
    found = [Section("", "", {})]
    lines = iter((TOP / document).read_text(encoding="utf-8").splitlines(keepends=True))
    for line in lines:
        if line.startswith("#"):
            found.append(Section(line.strip("# \n"), "", {}))
        elif line.startswith("```"):
            block = "".join(iter(lambda: next(lines), "```\n"))
            found[-1].blocks.setdefault(line[3:].strip(), []).append(block)
        else:
            found[-1] = found[-1]._replace(prose=found[-1].prose + line)
    return found


def section(document: str, heading: str) -> Section:
    """Return the one section with this heading."""
    (found,) = (part for part in sections(document) if part.heading == heading)
    return found


def commands(document: str, heading: str) -> list[list[str]]:
    """Return the words of each line that is shown as a command in a section."""
    return [shlex.split(line) for block in section(document, heading).blocks["sh"] for line in block.splitlines()]


def on_other_addresses(arguments: list[str], addresses: dict[str, str]) -> list[str]:
    """Replace the address of each of the README's ports."""
    return [re.sub(r"tcp://[^:\"]*:(\d+)", lambda found: addresses[found[1]], argument) for argument in arguments]


def anchors(document: str) -> set[str]:
    """Return the anchors of its headings, as they are formed on the web."""
    return {re.sub(r"[^\w -]", "", part.heading.lower()).replace(" ", "-") for part in sections(document)}


def links(document: str) -> list[tuple[str, str]]:
    """Return the target file, by its path from the top, and the anchor of each link that leads into the tree."""
    text = "".join(f"{part.heading}\n{part.prose}" for part in sections(document))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    return [(target_file(document, file), anchor) for file, _, anchor in (target.partition("#") for target in targets)]


def target_file(document: str, file: str) -> str:
    """Return the file that a document names by its path from there, itself where it names none, from the top."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(document), file)) if file else document


ENTRIES = COMMANDS | {
    f"{group} {name}": entry for group, (_, entries) in GROUPS.items() for name, entry in entries.items()
}


def actions_of(command: str) -> list[argparse.Action]:
    """Return the options and arguments of a subcommand."""
    parser, entry = Parser(prog=command), ENTRIES[command]
    known = {"command_line": None} if command == "work" else {}
    getattr(import_module(f"zmqbroker.commands.{entry.module}"), entry.add_options)(parser, **known)
    return parser._actions
