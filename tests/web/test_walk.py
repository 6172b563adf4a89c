"""A walk through the pages of a list, before who tells of it as it is told to."""

import asyncio
import gc
from collections.abc import Coroutine
from itertools import count
from typing import Any

import pytest
from web_support import PATIENCE

from zmqbroker.web import walk
from zmqbroker.web.asker import Answer, UnansweredError
from zmqbroker.web.walk import Walk


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine; nothing is to be left that nobody has heard of."""

    async def heard() -> None:
        unheard: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        await main
        gc.collect()
        assert not unheard

    asyncio.run(asyncio.wait_for(heard(), PATIENCE))


def a_page(cursor: int | None) -> Answer:
    return {"queues": [cursor], "cursor": cursor}


@pytest.mark.parametrize("cursors", [[3, 3], [3, 2], [0]])
def test_a_list_whose_next_page_is_none_of_the_next_ones_does_not_end(cursors):
    async def main() -> None:
        asked = iter(cursors)

        async def ask(what: str, after: int) -> Answer:
            return a_page(next(asked))

        with pytest.raises(UnansweredError, match="list of queues does not end"):
            await Walk(ask, "queues").things()

    run(main())


def test_a_list_of_pages_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(walk, "MOST_PAGES", 10)

    async def main() -> None:
        asked = count(1)

        async def ask(what: str, after: int) -> Answer:
            return a_page(next(asked))

        with pytest.raises(UnansweredError, match="list of queues does not end"):
            await Walk(ask, "queues").things()
        assert next(asked) == 11

    run(main())


def test_a_walk_that_fails_when_nobody_waits_any_more_is_heard():
    async def main() -> None:
        goes_on, failed = asyncio.Event(), asyncio.Event()

        async def ask(what: str, after: int) -> Answer:
            await goes_on.wait()
            failed.set()
            raise UnansweredError("no broker answers")

        walked = Walk(ask, "queues")
        with pytest.raises(UnansweredError, match="not told of all its queues in 0 s"):
            await walked.things(0)
        goes_on.set()
        await failed.wait()
        await asyncio.sleep(0)  # the walk ends
        await asyncio.sleep(0)
        del walked

    run(main())


def test_a_walk_is_good_for_a_while_and_a_new_one_that_takes_too_long_is_not_waited_for(monkeypatch):
    async def main() -> None:
        cursors = iter([3, None])

        async def ask(what: str, after: int) -> Answer:
            cursor = next(cursors, 0)
            if cursor == 0:
                await asyncio.Event().wait()
            return a_page(cursor)

        walked = Walk(ask, "queues")
        for _ in range(2):
            assert await walked.things() == [3, None]
        monkeypatch.setattr(walk, "FRESH", 0)
        monkeypatch.setattr(walk, "PAGE_TAKES", 0)
        assert await walked.things(0) == [3, None]
        walked.stop()

    run(main())
