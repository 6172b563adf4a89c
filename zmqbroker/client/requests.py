"""The requests of one client, each of which has a name of its own."""

import itertools
import uuid
from typing import Any

from zmqbroker import wire
from zmqbroker.client.options import Options, plain
from zmqbroker.client.request import Request, Settle
from zmqbroker.wire import Frames


class Requests:
    """Makes tasks, and questions about tasks that are there already. For any thread."""

    def __init__(self) -> None:
        self._next_id = map(str, itertools.count(1)).__next__  # of requests whose key another one may have too
        self._next_key = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count()).__next__

    def task(
        self, options: Options, body: Frames, settle: Settle | None = None, on_progress: Settle | None = None
    ) -> Request:
        """Make a task, whose key is made up unless its user chose one."""
        if options.key is None:
            return options.request(self._next_key(), body, settle, on_progress)
        return options.request(options.key, body, settle, on_progress, self._next_id())

    def question(
        self, key: str, settle: Settle | None = None, instants: dict[str, float] | None = None, **fields: Any
    ) -> Request:
        """Make a request about the task with this key; raises ValueError for what is no key."""
        key = plain(key)
        wire.check_fields({"key": key})
        return Request(key, [wire.EMPTY], wire.more_fields(fields), settle, instants, id=self._next_id())
