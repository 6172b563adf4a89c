"""`zmqbroker status`: one screen of what a broker does, once or each second."""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from textwrap import wrap
from typing import NamedTuple

from zmqbroker.commands.asking import NO_ANSWER, NOBODY, Answer, add_control, complain, control_socket, print_lines
from zmqbroker.commands.screen import is_healthy, picture, several
from zmqbroker.commands.tables import RED, Page
from zmqbroker.commands.watch import Watch
from zmqbroker.transport.control import PATIENCE, ControlSocket, NoAnswerError, control_addresses
from zmqbroker.wire import MalformedError
from zmqbroker.wire.control import ControlError

EXIT_STATUS = """\
Exit status: 0 if all is well; 1 if tasks wait in a queue that no worker asks from, the disk of the broker's store is
full or nearly, or one of several brokers does not answer; 2 for bad options, and if no broker answers. With several
brokers it lists them."""
HEALTHY, UNHEALTHY = 0, 1  # exit statuses
MOST_WORKERS = 50  # asked for
WATCHED_PATIENCE = 2.0  # seconds for an answer, in a watch


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `status` takes."""
    parser.add_argument("--watch", action="store_true", help="draw it anew each second; q ends it")
    add_control(parser, EXIT_STATUS)


def status(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Show what a broker does; return the exit status."""
    try:
        connect = partial(control_socket, options, patience=WATCHED_PATIENCE if options.watch else PATIENCE)
        view = View(options.control, options.json, connect)
        if not options.watch:
            lines = view.look()
            if view.trouble:
                return complain(parser, view.trouble)
            print_lines(lines)
            return view.exit_status
        with Watch(view.page.is_terminal and not options.json) as watch:
            while watch.ended_by is None:
                watch.show(view.look_again())
            return watch.ended_by or view.exit_status
    except ValueError as error:
        return complain(parser, str(error))


class Seen(NamedTuple):
    """What a broker has answered."""

    address: str
    status: Answer | None  # None: it did not
    workers: Answer
    trouble: str = ""  # why not


class View:
    """What there is to be seen of the brokers that are meant, at each look."""

    def __init__(self, address: str | None, is_json: bool, connect: Callable[[str], ControlSocket]) -> None:
        """Look at the broker at an address; None: at all of this user on this machine. `connect` connects to one."""
        self.page = Page()
        self.exit_status = NO_ANSWER  # as of the last look
        self.trouble = ""  # why there was nothing to be seen then
        self._address = address
        self._is_json = is_json
        self._connect = connect
        self._before: Answer | None = None  # the status at the last look

    def look(self) -> list[str]:
        """Return the lines that show what there is now; none where nobody answers. Raises ValueError as `connect`."""
        self.page.measure()
        addresses = [self._address] if self._address else control_addresses()
        seen = self._ask_all(addresses) if len(addresses) > 1 else [self._ask(address) for address in addresses]
        statuses = [one.status for one in seen if one.status is not None]
        if not statuses:
            self.exit_status, self.trouble = NO_ANSWER, seen[-1].trouble if seen else NOBODY
            return []
        self.trouble = ""
        is_well = len(statuses) == len(seen) and all(map(is_healthy, statuses))
        self.exit_status = HEALTHY if is_well else UNHEALTHY
        if self._is_json:
            return [json.dumps({"control": one.address} | (one.status or {"error": one.trouble})) for one in seen]
        if len(seen) > 1:
            listed = several(self.page, [(one.address, one.status) for one in seen])
            return listed + [line for one in seen if one.trouble for line in self._said(one.trouble)]
        height = self.page.height - 1  # the last line is for the prompt
        lines = picture(self.page, statuses[0], seen[0].workers, self._before, height)
        self._before = statuses[0]
        return lines

    def look_again(self) -> list[str]:
        """Return the lines of a look, or those that say why there are none: all of it, with what to do, at the end."""
        lines = self.look()
        if lines:
            return lines
        if self._is_json:
            return [json.dumps({"error": self.trouble})]
        return self._said(self.trouble)

    def _said(self, trouble: str) -> list[str]:
        return [self.page.line(line, RED) for line in wrap(trouble, self.page.width)]

    def _ask_all(self, addresses: list[str]) -> list[Seen]:
        """Ask several at the same time: many that hang take no longer than one."""
        with ThreadPoolExecutor(len(addresses)) as threads:
            return list(threads.map(self._ask, addresses))

    def _ask(self, address: str) -> Seen:
        try:
            with self._connect(address) as control:
                status = control.ask("status")
                return Seen(address, status, {} if self._is_json else control.ask("workers", most=MOST_WORKERS))
        except (NoAnswerError, ControlError, MalformedError) as error:
            return Seen(address, None, {}, str(error))
