"""`python -m zmqbroker` is the `zmqbroker` command."""

import sys

from zmqbroker.cli import main

sys.exit(main())
