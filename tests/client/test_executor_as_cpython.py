"""CPython's own tests of executors, from the interpreter's test package, with ours in the place of its pools.

They are for pools that an executor has started itself, so some of them do not apply: `APPLY_NOT` has those, each with
the reason.
"""

import importlib
import time
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from conftest import Running
from executor_support import calling

from zmqbroker import Executor

pytestmark = [pytest.mark.slow, pytest.mark.each]

PACKAGE = "test.test_concurrent_futures"
MIXINS = {  # the mixin of each kind of tests, and the module that has it where that is a package
    "ExecutorTest": "executor",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ExecutorShutdownTest": "test_shutdown",
}
NAMES_ITSELF = "its script names a pool of concurrent.futures; test_executor_ends.py has it with ours"
APPLY_NOT = {
    "test_max_workers_negative": "there is no max_workers: how many workers there are is for who starts them",
    "test_interpreter_shutdown": NAMES_ITSELF,
    "test_submit_after_interpreter_shutdown": NAMES_ITSELF,
    "test_hang_gh83386": NAMES_ITSELF,
    "test_cancel_futures": "it expects calls to run once they are submitted; here their workers say so a little later",
}
# Besides, the tests of one kind of pool are left out as a whole: they look at its threads, its processes, their
# initializers and max_tasks_per_child, at what its queues do when a pickle is damaged, and at BrokenProcessPool.


def module_of(name: str) -> ModuleType | None:
    """Return where an interpreter has these tests; None: it has none."""
    for candidate in (f"{PACKAGE}.{name}", PACKAGE):  # a package since 3.12
        try:
            return importlib.import_module(candidate)
        except (ImportError, unittest.SkipTest):
            continue
    return None


class OurMixin:
    """Makes our executor where that of CPython's tests makes a pool."""

    worker_count = 5
    requests = ""  # the broker's address

    def executor_type(self, *_: Any, **__: Any) -> Executor:
        return Executor(self.requests)

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.t1 = time.monotonic()
        self.executor: Executor | None = self.executor_type()

    def tearDown(self) -> None:
        assert self.executor is not None
        self.executor.shutdown()
        self.executor = None
        super().tearDown()  # type: ignore[misc]


@pytest.fixture(scope="module", autouse=True)
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have a broker with as many workers as the pools have."""
    running = Running()
    processes = ("--processes", OurMixin.worker_count)
    with calling(running.addresses.ready, tmp_path_factory.mktemp("workers"), *processes):
        OurMixin.requests = running.addresses.requests
        yield
    running.finish()


def executor_tests(mixin: str) -> type:
    """Return the tests of a kind, for our executor; one that says so where the interpreter has none."""
    found = module_of(MIXINS[mixin])
    if found is None:
        return type(mixin, (unittest.TestCase,), {"test_none": unittest.skip(f"there is no {PACKAGE} here")(id)})
    base = vars(found).get("BaseTestCase") or importlib.import_module(f"{PACKAGE}.util").BaseTestCase
    skipped = {
        name: unittest.skip(reason)(id) for name, reason in APPLY_NOT.items() if hasattr(vars(found)[mixin], name)
    }
    return type(mixin, (vars(found)[mixin], OurMixin, base), skipped)


TestExecutor = executor_tests("ExecutorTest")
TestWait = executor_tests("WaitTests")
TestAsCompleted = executor_tests("AsCompletedTests")
TestShutdown = executor_tests("ExecutorShutdownTest")
