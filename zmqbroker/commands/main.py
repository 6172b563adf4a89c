"""The entry points: what must be so before anything else is, and how a command ends.

What the commands need takes a tenth of a second to import, in which a signal may come: so it is imported here, late.
"""

import signal
import sys
from collections.abc import Sequence

from zmqbroker.commands import streams
from zmqbroker.transport import signals


def broker_main(arguments: Sequence[str] | None = None) -> int:
    """Run `broker.py`; None means the arguments of the command line."""
    return _run("broker.py", arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `zmqbroker`; None means the arguments of the command line."""
    return _run("zmqbroker", arguments)


def _run(program: str, arguments: Sequence[str] | None) -> int:
    signals.end_quietly()
    streams.fill_closed()
    from zmqbroker.commands.command_lines import parse

    try:
        command, options, parser = parse(program, sys.argv[1:] if arguments is None else arguments)
        return command(options, parser)
    except streams.NobodyReadsError:
        return signals.INTERRUPTED + signal.SIGPIPE
    except streams.OutputError as error:
        streams.complain(f"{program}: {error}")
        return streams.OUTPUT_ERROR
