"""`zmqbroker identity`: makes a pair of keys, and shows the line that has a broker know it."""

import argparse

from zmqbroker.commands import streams
from zmqbroker.transport.identity import PUBLIC, SECRET, check_name, create, name_of, read_public
from zmqbroker.transport.keys import ROLES

DEFAULT_ROLES = "client,worker"


def add_new_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `identity new` takes."""
    parser.add_argument(
        "name", metavar="NAME", help=f"what the identity is called, and its files, NAME{PUBLIC} and NAME{SECRET}"
    )


def add_show_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `identity show` takes."""
    parser.add_argument(
        "--roles",
        type=roles,
        default=DEFAULT_ROLES,
        metavar="ROLE[,ROLE...]",
        help=f"what it may do: {', '.join(ROLES)} (default: %(default)s)",
    )
    parser.add_argument("file", metavar="FILE", help=f"a file of the identity, NAME{PUBLIC} or NAME{SECRET}")


def new_identity(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Make a pair of keys and write it to two files; return the exit status."""
    try:
        create(options.name)
    except ValueError as error:
        parser.error(str(error))
    streams.print_out(f"{options.name}{PUBLIC}\n{options.name}{SECRET}\n")
    return 0


def show_identity(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print an identity's line for the file of the authorized; return the exit status."""
    name = name_of(options.file)
    try:
        check_name(name)
        key = read_public(options.file).decode()
    except ValueError as error:
        parser.error(str(error))
    streams.print_out(f"{options.roles}  {key}  {name}\n")
    return 0


def roles(text: str) -> str:
    """Check roles between commas."""
    given = text.split(",")
    if not set(given) <= set(ROLES) or len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(ROLES)}, nor several with commas between")
    return text
