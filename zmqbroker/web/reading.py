"""Asking all brokers at once, for one scrape or to know whether any answers: none can hold up the others for long."""

import asyncio

from zmqbroker.web.asker import UnansweredError
from zmqbroker.web.brokers import Brokers
from zmqbroker.web.metrics import Reading
from zmqbroker.web.watched import Watched
from zmqbroker.wire.control import ControlError

PATIENCE = 3.0  # seconds for a new walk through a broker's queues; else the last one is told of


async def read_all(brokers: Brokers) -> list[Reading]:
    """Return what each broker tells."""
    return list(await asyncio.gather(*map(_read, await brokers.all())))


async def is_answering(brokers: Brokers) -> bool:
    """Tell whether any broker answers."""
    answers = [one.ask("status") for one in await brokers.all()]
    return any(
        not isinstance(answer, BaseException) for answer in await asyncio.gather(*answers, return_exceptions=True)
    )


async def _read(watched: Watched) -> Reading:
    """Return what a broker tells; one that tells only how it is, is there."""
    try:
        status = await watched.ask("status")
    except (UnansweredError, ControlError):
        return Reading(watched, None, None)
    try:
        return Reading(watched, status, await watched.queues.things(PATIENCE))
    except (UnansweredError, ControlError):
        return Reading(watched, status, None)
