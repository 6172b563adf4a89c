"""How an `Executor` ends: `shutdown` in all its forms, one that is dropped, and the end of the program."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Running
from executor_support import calling, waits_for
from helpers import PATIENCE, Program, wait_until
from library_support import NOBODY, run_script

from zmqbroker import Executor, TaskFailed


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a broker that has a worker."""
    running = Running()
    with calling(running.addresses.ready, tmp_path_factory.mktemp("workers")):
        yield running.addresses.requests
    running.finish()


def thread_of(executor: Executor) -> threading.Thread:
    return executor._link._thread


def test_a_shutdown_waits_for_all_calls(requests: str, tmp_path: Path):
    executor = Executor(requests)
    futures = [executor.submit(pow, number, 2) for number in range(20)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == [number**2 for number in range(20)]
    assert not thread_of(executor).is_alive()
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.submit(pow, 2, 2)
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.submit(len, threading.Lock())


def test_a_shutdown_that_does_not_wait_has_the_calls_go_on(requests: str, tmp_path: Path):
    executor = Executor(requests)
    gate = tmp_path / "gate"
    running, behind = executor.submit(waits_for, str(gate)), executor.submit(pow, 2, 8)
    executor.shutdown(wait=False)
    assert not behind.done()
    gate.touch()
    assert (running.result(PATIENCE)[:4], behind.result(PATIENCE)) == ("done", 256)
    thread_of(executor).join(PATIENCE)
    assert not thread_of(executor).is_alive()


def test_a_shutdown_may_cancel_what_does_not_run(requests: str, tmp_path: Path):
    executor = Executor(requests)
    gate = tmp_path / "gate"
    running = executor.submit(waits_for, str(gate))
    wait_until(running.running)
    behind = [executor.submit(pow, 2, 8) for _ in range(10)]
    gate.touch()
    executor.shutdown(cancel_futures=True)
    assert running.result(0).startswith("done")
    assert any(future.cancelled() for future in behind)
    assert all(future.done() for future in behind)


def test_an_executor_that_is_dropped_has_its_calls_done_and_ends(requests: str):
    executor = Executor(requests)
    thread, results = thread_of(executor), executor.map(abs, range(-5, 5))
    del executor
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_a_callback_cannot_wait_for_a_shutdown(requests: str):
    said: list[str] = []
    with Executor(requests) as executor:

        def end(_: object) -> None:
            try:
                executor.shutdown()
            except RuntimeError as error:
                said.append(str(error))

        executor.submit(pow, 2, 8).add_done_callback(end)
    assert "a callback of a future cannot wait" in said[0]


def test_without_a_broker_calls_fail_after_the_connect_timeout():
    with Executor(NOBODY, connect_timeout=0.2) as executor:
        error = executor.submit(pow, 2, 8).exception(PATIENCE)
    assert isinstance(error, TaskFailed)
    assert isinstance(error, ConnectionError)


# The end of a program

WRITES = """
import sys
from pathlib import Path
from zmqbroker import Executor
executor = Executor(sys.argv[1])
for name in "abc":
    future = executor.submit(Path.touch, Path(sys.argv[2]) / name)
    future.add_done_callback(lambda _: print("done", flush=True))
"""


@pytest.mark.parametrize("end", ["", "executor.shutdown(wait=False)", "del executor"])
def test_the_end_of_a_program_waits_for_the_calls_that_are_left(requests: str, tmp_path: Path, end: str):
    ended = run_script(f"{WRITES}\n{end}\n", requests, str(tmp_path))
    assert (ended.stdout, ended.returncode) == ("done\n" * 3, 0)
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_no_calls_are_taken_at_the_end_of_a_program(requests: str):
    late = """
import atexit, sys
def late():
    try:
        executor.submit(abs, 1)
    except RuntimeError as error:
        print(error)
atexit.register(late)
from zmqbroker import Executor
executor = Executor(sys.argv[1])
executor.submit(abs, 1).result()
"""
    ended = run_script(late, requests)
    told = "cannot schedule new futures after interpreter shutdown\n"
    assert (ended.stdout, ended.returncode) == (told, 0)


@pytest.mark.slow
def test_a_program_without_a_broker_comes_to_its_end():
    ended = run_script(WRITES, NOBODY, "/")
    assert ended.returncode == 0
    assert "giving up 3 tasks" in ended.stderr


@pytest.mark.slow
def test_a_program_whose_calls_take_long_says_that_it_waits_and_ctrl_c_cancels_them(running: Running, tmp_path: Path):
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, time\nfrom zmqbroker import Executor\nExecutor(sys.argv[1], queue='python.x').submit(abs, 1)\n"
    )
    program = Program(str(script), running.addresses.requests)
    try:
        program.wait_for("the program is over, but waits for .*, 1 tasks outstanding: Ctrl-C cancels these")
        program.end(2)  # type: ignore[arg-type]
        program.wait_for("Ctrl-C: cancelling what is left at .*, 1 tasks outstanding$")
        assert "Traceback" not in program.output
        running.wait_for("cancelled", 1)
    finally:
        program.clean_up()
