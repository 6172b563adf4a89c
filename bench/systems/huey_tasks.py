"""The huey instance, for its worker program and the client; the settings are in the environment."""

import json
import os
from pathlib import Path

from huey import SqliteHuey

from bench.systems.task import work

settings = json.loads(os.environ["BENCH_SETTINGS"])
huey = SqliteHuey("bench", filename=str(Path(settings["directory"]) / "tasks.db"), fsync=True)

echo = huey.task()(work)
