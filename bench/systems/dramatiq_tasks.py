"""The Dramatiq actor, for its worker program and the client; the settings are in the environment."""

import json
import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.systems.task import work_on_text

settings = json.loads(os.environ["BENCH_SETTINGS"])
broker = RedisBroker(url=settings["url"])
broker.add_middleware(Results(backend=RedisBackend(client=redis.Redis.from_url(settings["url"], socket_timeout=None))))
dramatiq.set_broker(broker)

echo = dramatiq.actor(work_on_text, actor_name="echo", store_results=True)
