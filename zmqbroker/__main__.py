"""`python -m zmqbroker` is the `zmqbroker` command."""

import sys

from zmqbroker.commands.main import main

sys.exit(main())
