"""`zmqbroker web`: what goes on, on a page in a browser, and for Prometheus."""

import argparse
import logging
import os
import stat
from functools import partial

from zmqbroker.commands import streams
from zmqbroker.commands.asking import complain, control_socket
from zmqbroker.commands.options import add_identity
from zmqbroker.transport.addresses import EXAMPLE, IPC, is_surely_one, parse, refuse_inproc
from zmqbroker.transport.identity import check_privacy, credentials
from zmqbroker.transport.stderr_log import log_to_stderr
from zmqbroker.web.asker import PATIENCE
from zmqbroker.web.place import is_loopback, listen, parse_place, url

ENDED = 0  # exit status
LISTEN = "127.0.0.1:8161"
TOKEN = "ZMQBROKER_WEB_TOKEN"  # the name of a variable
SHORTEST_TOKEN, LONGEST_TOKEN = 16, 1024  # characters
NOT_INSTALLED = 'this needs more than is installed: pip install "zmqbroker[web]"'
EXIT_STATUS = """\
It asks by the control socket, as `zmqbroker status` does, and changes nothing. Exit status: 0 when it is ended by a
signal; 2 for bad options, and where it cannot listen."""


def add_web_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `web` takes."""
    parser.epilog = EXIT_STATUS
    add = parser.add_argument
    add(
        "--listen",
        default=LISTEN,
        metavar="HOST:PORT",
        help=f"where the page is (default: {LISTEN}; port 0: any that is free)",
    )
    add(
        "--token",
        metavar="FILE",
        help=f"a file with a secret of {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters, which whoever looks has to give "
        f"(default: what {TOKEN} says, else none)",
    )
    add(
        "--trust-the-network",
        action="store_true",
        help="listen where other machines may come in, without a token",
    )
    add_identity(parser)
    add(
        "controls",
        nargs="*",
        metavar="CONTROL",
        help="addresses of the control sockets of brokers, which they print at their start (default: those of all "
        "brokers of this user on this machine, looked for anew)",
    )


def web(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Show what brokers do until a signal comes; return the exit status."""
    try:
        token = _token(options.token)
        at = parse_place(options.listen)
        for address in options.controls:
            _check_control(options, address)
        credentials(options.identity, options.broker_identity)
        opened = listen(at)
    except ValueError as error:
        return complain(parser, str(error))
    except OSError as error:
        return complain(parser, f"cannot listen on {options.listen}: {(error.strerror or str(error)).lower()}")
    with opened:
        is_own = is_loopback(opened)
        if not is_own and token is None and not options.trust_the_network:
            return complain(
                parser, f"{options.listen} is open to other machines: give --token FILE, or --trust-the-network"
            )
        try:
            from zmqbroker.web import server
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("zmqbroker"):
                raise
            return complain(parser, NOT_INSTALLED)
        log_to_stderr(logging.INFO)
        connect = partial(control_socket, options, patience=PATIENCE)
        addresses = list(dict.fromkeys(options.controls))
        app = server.application(addresses, connect, token, checks_host=is_own and token is None)
        streams.print_out(f"the page is at {url(opened)}\n")
        server.serve(app, opened, server.end_at_signals)
    return ENDED


def _check_control(options: argparse.Namespace, address: str) -> None:
    """Raise ValueError for what cannot be the address of a control socket."""
    refuse_inproc(address)
    target = parse(address)
    if not target.transport:
        raise ValueError(f"{address!r} is no address of a control socket; {EXAMPLE}")
    if target.transport == IPC and not is_surely_one(target):
        control_socket(options, address).close()  # ZeroMQ knows how long a path may be


def _token(path: str | None) -> str | None:
    """Return the token that a file has, or the environment; None: there is none. Raises ValueError for a bad one."""
    if path is None:
        token, where = os.environ.get(TOKEN, "").strip(), TOKEN
        if TOKEN not in os.environ:
            return None
    else:
        token, where = _read(path), path
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN or not token.isascii() or not token.isprintable():
        wanted = f"a line of {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters of ASCII"
        raise ValueError(f"{where} has no token: one is {wanted}")
    return token


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is no regular file")
            token = file.read().strip()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    check_privacy(path, status)
    return token


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe too, which else waits for who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)
