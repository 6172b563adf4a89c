#!/usr/bin/env python3
"""The broker: ./broker.py [-t TRIES] [-T SECONDS] REQUESTS READY RESULTS."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (who has an older one is told so)
    sys.exit(f"broker.py: Python 3.10 or newer is needed, and this is {sys.version_info[0]}.{sys.version_info[1]}")


def main() -> int:
    """Run the broker; return its exit status."""
    try:
        from zmqbroker.commands.main import broker_main

        return broker_main()
    except ModuleNotFoundError as error:
        if error.name != "zmq":
            raise
        sys.exit(
            "broker.py: pyzmq is not installed for this Python: "
            "python3 -m venv .venv && . .venv/bin/activate && pip install pyzmq"
        )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
