"""The Celery application, for its worker program and the client; the settings are in the environment."""

import json
import os

from celery import Celery

from bench.systems.task import work_on_text

settings = json.loads(os.environ["BENCH_SETTINGS"])
app = Celery("bench", broker=settings["url"], backend=settings["url"])
app.conf.broker_connection_retry_on_startup = True
if settings["name"] in ("celery-late", "durable-celery"):
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)

echo = app.task(work_on_text, name="echo")
