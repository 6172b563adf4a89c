#!/usr/bin/env python3
"""The broker: ./broker.py [-t TRIES] [-T SECONDS] REQUESTS READY RESULTS."""

import sys

if __name__ == "__main__":
    try:
        from zmqbroker.commands.main import broker_main  # takes a tenth of a second, in which Ctrl-C may come

        sys.exit(broker_main())
    except KeyboardInterrupt:
        sys.exit(130)
