#!/usr/bin/env python3
"""The broker: ./broker.py [-t TRIES] [-T SECONDS] REQUESTS READY RESULTS."""

import sys

from zmqbroker.cli import broker_main

if __name__ == "__main__":
    sys.exit(broker_main())
